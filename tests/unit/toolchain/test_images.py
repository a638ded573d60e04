"""What images are made of."""

from scripts.toolchain.debian import select_missing
from scripts.toolchain.images import machine_options, select_sources


def test_a_foreign_image_holds_the_host_s_netfilter_tools():
    """User-mode emulation does not pass netfilter calls, so nft and iptables are the host's own programs."""
    options = machine_options("arm64", "amd64")

    assert "--arch=arm64,amd64" in options
    assert next(each for each in options if each.startswith("--include=")).endswith(",nftables:amd64,iptables:amd64")


def test_a_native_image_is_of_one_architecture():
    """The host's own architecture needs nothing foreign."""
    options = machine_options("amd64", "amd64")

    assert "--arch=amd64" in options
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


def test_only_missing_packages_are_installed():
    """A removed package whose configuration stayed counts as missing."""
    listed = "nftables installed\nmmdebstrap config-files\n"

    assert select_missing(["nftables", "mmdebstrap", "arch-test"], listed) == ["mmdebstrap", "arch-test"]
