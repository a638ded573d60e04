"""What this host must offer before the local cloud starts; each lack is one line that says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from typing import TYPE_CHECKING

from scripts.localcloud import network, nspawn
from scripts.localcloud.commands import CommandFailed, run

if TYPE_CHECKING:
    from pathlib import Path

LOCK, RECORDS = "lock", "cloud.sqlite"
"""By either a state folder is told from any other; the lock comes first."""
TOOLS = ("ip", "nft", "nsenter", "systemd-nspawn", "unshare")


class HostUnfit(Exception):
    """The host cannot run what was asked for; `str(exc)` says why and what to do."""


def check_linux() -> None:
    """Refuse any system but Linux."""
    if sys.platform != "linux":
        raise HostUnfit(f"the local cloud runs on Linux only, this is {sys.platform}")


def check_root() -> None:
    """Refuse any user but root."""
    if os.geteuid() != 0:
        raise HostUnfit("the local cloud must be run by root: its servers are machines on this host")


def check_tools() -> None:
    """Refuse a host without the tools that machines are made with."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise HostUnfit(f"not on PATH: {', '.join(missing)} (run scripts/setup)")


def check_images(images: Path) -> tuple[str, ...]:
    """Give the architectures that have no machine image; refuse when the host's own has none, which emulated ones need too."""
    missing = tuple(name for name in nspawn.IMAGES.values() if not (images / name / "usr").is_dir())
    own = nspawn.host_image()
    if own in missing or own not in nspawn.IMAGES.values():
        raise HostUnfit(f"no machine image of this host's architecture, {own}, in {images} (run scripts/setup)")
    return missing


def check_network() -> None:
    """Refuse a host that uses our address ranges for something else."""
    used = network.ranges_in_use()
    if used:
        raise HostUnfit(used)


def check_state(state: Path) -> None:
    """Make the state folder; refuse a path that the tools below cannot take, and a folder that holds something else."""
    if any(sign in str(state) for sign in ":,\\\n"):
        raise HostUnfit(f"state folder {state}: the path may hold no colon, comma, backslash or line break")
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise HostUnfit(f"state folder {state}: {error.strerror} (choose another with --state)") from error
    names = {path.name for path in state.iterdir()}
    if names and names.isdisjoint((LOCK, RECORDS)):
        raise HostUnfit(f"state folder {state}: holds something else (choose an empty or a new one with --state)")


def check_port(port: int, option: str) -> None:
    """Refuse a port that somebody listens on, and say who."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise HostUnfit(f"port {port}: {error.strerror}{_holder(port)} (choose another with {option})") from error


def _holder(port: int) -> str:
    try:
        listeners = run("ss", "-Hltnp", f"sport = :{port}")
    except CommandFailed:
        return ""
    _, found, users = listeners.partition("users:((")
    return f" by {users.split(')')[0].replace(chr(34), '')}" if found else ""
