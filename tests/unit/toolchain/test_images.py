"""What images are made of."""

import subprocess

import pytest

from scripts.toolchain.debian import select_missing
from scripts.toolchain.images import is_mounted, machine_options, select_sources


def test_a_foreign_image_holds_the_host_s_netfilter_tools():
    """User-mode emulation does not pass netfilter calls, so nft and iptables are the host's own programs."""
    options = machine_options("arm64", "amd64")

    assert "--arch=arm64,amd64" in options
    assert next(each for each in options if each.startswith("--include=")).endswith(",nftables:amd64,iptables:amd64")


def test_a_foreign_image_lacks_what_only_takes_time_under_emulation():
    """The host's Python reads cloud-init, and no public server is reached."""
    options = machine_options("arm64", "amd64")

    assert "--dpkgopt=path-exclude=/usr/bin/py3compile" in options
    assert "--dpkgopt=path-exclude=/usr/share/ca-certificates/mozilla/*" in options


def test_a_native_image_is_of_one_architecture():
    """The host's own architecture needs nothing foreign, and lacks nothing."""
    options = machine_options("amd64", "amd64")

    assert "--arch=amd64" in options
    assert not any("py3compile" in each or "ca-certificates/" in each for each in options)
    assert next(each for each in options if each.startswith("--include=")).endswith(",nftables,iptables")


def test_sources_are_the_host_s_own_of_debian():
    """Other vendors' sources and other releases stay out, repeated ones count once."""
    listed = (
        "Debian|deb mirror.example/debian/ bookworm main\n"
        "Debian|deb mirror.example/debian/ bookworm main\n"
        "Debian|deb mirror.example/security/ bookworm-security main\n"
        "Debian|deb mirror.example/debian/ trixie main\n"
        "Node Source|deb node.example/ nodistro main\n"
    )

    assert select_sources(listed) == (
        "deb mirror.example/debian/ bookworm main\ndeb mirror.example/security/ bookworm-security main\n"
    )


@pytest.mark.root
def test_an_image_is_in_use_as_long_as_a_machine_runs(tmp_path):
    """A machine mounts its disk where no other process sees it, and its image must not be replaced meanwhile."""
    for name in ("image", "imaginary", "upper", "work", "root"):
        (tmp_path / name).mkdir()
    script = (
        'mount -t tmpfs tmpfs "$1/upper" && mkdir "$1"/upper/{upper,work}'
        ' && mount -t overlay overlay -o "lowerdir=$1/image,upperdir=$1/upper/upper,workdir=$1/upper/work" "$1/root"'
        " && echo mounted && exec sleep 60"
    )
    machine = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "bash", "-c", script, "machine", tmp_path],
        stdout=subprocess.PIPE,
        text=True,
    )

    with machine.stdout:
        assert machine.stdout.readline() == "mounted\n"
        assert (is_mounted(tmp_path / "image"), is_mounted(tmp_path / "imag")) == (True, False)
        machine.kill()
    machine.wait()
    assert not is_mounted(tmp_path / "image")


def test_only_missing_packages_are_installed():
    """A removed package whose configuration stayed counts as missing."""
    listed = "nftables installed\nmmdebstrap config-files\n"

    assert select_missing(["nftables", "mmdebstrap", "arch-test"], listed) == ["mmdebstrap", "arch-test"]
