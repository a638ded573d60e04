"""Debian packages of the host, and the emulation of other architectures."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.toolchain.commands import read_output
from scripts.toolchain.layout import ARCHITECTURES, host_architecture
from scripts.toolchain.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scripts.toolchain.commands import Log

# What provides a command is asked for by its command, so that a user's own serves as well.
COMMANDS = {
    "cc": "gcc", "ctr": "containerd", "curl": "curl", "openssl": "openssl", "ssh-keygen": "openssh-client", "ip": "iproute2",
}  # fmt: skip
MACHINES = (
    "arch-test", "binfmt-support", "busybox-static", "docker-registry", "libc6-dev", "libseccomp-dev", "mmdebstrap", "nftables",
    "openssh-server", "qemu-user-static", "skopeo", "systemd-container",
)  # fmt: skip

BINFMT = Path("/proc/sys/fs/binfmt_misc")
POLICY = Path("/usr/sbin/policy-rc.d")
NO_SERVICES = "#!/bin/sh\n# Of scripts/setup, while it installs packages.\nexit 101\n"
QEMU = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}


def left_out() -> str:
    """Say why this host cannot have packages and machines, "" where it can."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid():
        return "needs root"
    return "" if shutil.which("apt-get") else "needs apt-get"


def package_step(part: str) -> Step:
    """Return the step that installs what is missing."""

    def make(log: Log) -> None:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        log.run(["apt-get", "update", "-q"], environment=quiet)
        with services_stay_off():
            install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing_packages(part)]
            log.run(install, environment=quiet)

    return Step(
        name="Debian packages",
        part=part,
        about_s=40,
        is_made=lambda: not missing_packages(part),
        make=make,
        lane="debian",
        blocked=left_out(),
    )


def missing_packages(part: str) -> list[str]:
    """Return the packages that `part` needs and this host lacks."""
    python = [] if importlib.util.find_spec("ensurepip") or shutil.which("uv") else ["python3-venv"]
    if part == "python":
        return python
    commands = [package for command, package in COMMANDS.items() if shutil.which(command) is None]
    columns = "${Package} ${db:Status-Status}\n"
    listed = read_output(["sh", "-c", f"dpkg-query -W -f '{columns}' {' '.join(MACHINES)} 2>/dev/null; true"])
    return python + commands + select_missing(MACHINES, listed or "")


def select_missing(wanted: Iterable[str], listed: str) -> list[str]:
    """Return what is wanted and not `installed` in lines of `package status`."""
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in installed]


def emulation_step() -> Step:
    """Return the step that lets this host run the other architecture; the kernel forgets it at every boot."""
    foreign = [QEMU[each] for each in ARCHITECTURES if each != host_architecture()]

    def is_made() -> bool:
        try:
            return all("enabled" in (BINFMT / each).read_text() for each in foreign)
        except OSError:
            return False

    def make(log: Log) -> None:
        if not (BINFMT / "register").exists():
            log.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT])
        for each in foreign:
            log.run(["update-binfmts", "--enable", each])

    return Step(
        name="emulation",
        part="machines",
        about_s=1,
        is_made=is_made,
        make=make,
        needs=("Debian packages",),
        blocked=left_out(),
    )


@contextmanager
def services_stay_off() -> Iterator[None]:
    """Install without starting: a package that brings a service (docker-registry) starts it unless this file says no."""
    if POLICY.exists() and POLICY.read_text() != NO_SERVICES:  # ours is of a run that was killed
        yield
        return
    POLICY.write_text(NO_SERVICES)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
