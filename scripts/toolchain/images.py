"""Root file systems made by mmdebstrap: what local machines boot, and what the images of demo and local cluster hold.

In a machine image of another architecture the netfilter tools are the host's: user-mode emulation does not pass
their system calls to the kernel.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.toolchain.artefact import Artefact, digest
from scripts.toolchain.commands import read_output
from scripts.toolchain.errors import SetupError
from scripts.toolchain.layout import ARCHITECTURES, Layout, host_architecture
from scripts.toolchain.steps import Step

if TYPE_CHECKING:
    from scripts.toolchain.commands import Log

RELEASE = "bookworm"
PACKAGES = "packages of the cluster"

MACHINE = (
    "systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "cloud-init", "iproute2", "ca-certificates",
    "curl", "openssl", "procps", "iputils-ping",
)  # fmt: skip
NETFILTER = ("nftables", "iptables")
COMPILER = ("gcc", "libc6-dev")
CLUSTER = (
    "busybox", "ca-certificates", "containerd", "containernetworking-plugins", "docker-registry", "python3", "runc",
)  # fmt: skip

# Two fifths of an emulated installation, for nothing: cloud-init is read by the host's Python, and no machine of the local
# cloud reaches a server with a public certificate.
_LEFT_OUT_UNDER_EMULATION = (
    "--dpkgopt=path-exclude=/usr/bin/py3compile",
    "--dpkgopt=path-exclude=/usr/share/ca-certificates/mozilla/*",
)
SLIM = tuple(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale"))

# Nothing that must differ between machines stays in the image; cloud-init makes it at the first boot.
ANONYMOUS = 'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname "$1"/var/lib/dbus/machine-id; : > "$1"/etc/machine-id'
# Half of what the compiler's packages bring, and nothing that compiling C needs; a base image goes through every builder.
SLENDER = (
    'cd "$1" && rm -rf usr/bin/*-lto-dump-* usr/lib/gcc/*/*/lto1 usr/lib/gcc/*/*/plugin usr/lib/gcc/*/*/lib*san* '
    "usr/lib/*/lib*san.so* usr/bin/*-ld.gold usr/bin/*-dwp usr/bin/*gp-* usr/bin/*gprof* usr/lib/*/*gprof* "
    "usr/bin/perl5* usr/lib/*/libperl.so* usr/lib/*/perl usr/share/perl usr/share/perl5 usr/share/zoneinfo "
    "var/lib/apt/lists/* var/cache/apt/*"
)
CLOUD_INIT = r"""
printf 'datasource_list: [NoCloud]\nlocale: C.UTF-8\napt: {preserve_sources_list: true}\n' \
  > "$1"/etc/cloud/cloud.cfg.d/90-slipway.cfg
""".strip()


def machine_options(architecture: str, host: str) -> list[str]:
    """Return mmdebstrap's options for a machine image of `architecture` on a host of `host`."""
    foreign = architecture != host
    netfilter = [f"{package}:{host}" if foreign else package for package in NETFILTER]
    return [
        "--variant=minbase",
        f"--arch={architecture},{host}" if foreign else f"--arch={architecture}",
        f"--include={','.join([*MACHINE, *netfilter])}",
        *SLIM,
        *(_LEFT_OUT_UNDER_EMULATION if foreign else ()),
        f"--customize-hook={ANONYMOUS}",
        f"--customize-hook={CLOUD_INIT}",
    ]


def base_options(architecture: str) -> list[str]:
    """Return mmdebstrap's options for a base image with a C compiler."""
    compiler = f"--include={','.join(COMPILER)}"
    return ["--variant=essential", f"--arch={architecture}", compiler, *SLIM, f"--customize-hook={SLENDER}"]


def cluster_options(architecture: str) -> list[str]:
    """Return mmdebstrap's options for the packages of the local cluster."""
    return ["--variant=essential", f"--arch={architecture}", f"--include={','.join(CLUSTER)}", *SLIM]


def debian_sources() -> str:
    """Return the package sources of this host for the images, "" where it has none and mmdebstrap's default serves."""
    columns = "$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = read_output(["apt-get", "indextargets", "--format", columns, "Created-By: Packages"]) or ""
    return select_sources(listed)


def select_sources(listed: str) -> str:
    """Return those lines of `origin|source` that are Debian's own of our release."""
    split = [line.partition("|") for line in dict.fromkeys(listed.splitlines())]
    ours = [source for origin, _, source in split if origin == "Debian" and source.split()[2].startswith(RELEASE)]
    return "".join(f"{source}\n" for source in ours)


def image_steps(layout: Layout) -> list[Step]:
    """Return the steps that make the images, the emulated and so slowest ones first."""
    host = host_architecture()
    order = sorted(ARCHITECTURES, key=lambda each: each == host)
    machines = [
        _step(
            f"machine image {architecture}",
            layout.machine(architecture),
            machine_options(architecture, host),
            architecture=architecture,
            about_s=70 if architecture == host else 300,
        )
        for architecture in order
    ]
    bases = [
        _step(
            f"base image {architecture}",
            layout.base(architecture),
            base_options(architecture),
            architecture=architecture,
            about_s=25 if architecture == host else 80,
        )
        for architecture in order
    ]
    cluster = _step(PACKAGES, layout.packages, cluster_options(host), architecture=host, about_s=35)
    return [*machines, *bases, cluster]


def _step(name: str, path: Path, options: list[str], *, architecture: str, about_s: int) -> Step:
    artefact = Artefact(path=path, key=digest(RELEASE, *options))

    def make(log: Log) -> None:
        if is_mounted(path):
            raise SetupError(f"{path} is in use by machines of the local cloud; run python -m scripts.localcloud down")
        with artefact.replace() as target:
            sources = debian_sources()
            where = ["-"] if sources else []
            kind = "tar" if path.suffix == ".tar" else "directory"
            # In a mount namespace of its own: when it is killed, what it has mounted in the target goes with it.
            mmdebstrap = ["unshare", "--mount", "mmdebstrap", f"--format={kind}"]
            log.run([*mmdebstrap, *options, RELEASE, target, *where], stdin=sources)

    emulated = architecture != host_architecture()
    return Step(
        name=name,
        part="machines",
        about_s=about_s,
        is_made=artefact.is_made,
        make=make,
        needs=("Debian packages", "emulation") if emulated else ("Debian packages",),
        lane="debian",
    )


def is_mounted(path: Path) -> bool:
    """Tell whether an overlay mount of any process lies over `path`: every machine has mounts of its own."""
    for mounts in Path("/proc").glob("[0-9]*/mounts"):
        with suppress(OSError):  # it has ended meanwhile
            if re.search(rf"lowerdir={re.escape(str(path))}[,:]", mounts.read_text()):
                return True
    return False
