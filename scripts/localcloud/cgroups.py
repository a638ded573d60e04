"""One control group per machine: what the machine's processes are found by, also after everything else was killed.

The group is made in every hierarchy before the machine's first process starts, so there is no moment at which a process of
ours has no name. It also keeps the machines' systemd instances out of each other's way.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PARENT = "slipway"
_changes = threading.Lock()
"""The parent is removed with its last group, and another may be on its way."""


def machine_ids() -> list[int]:
    """List the machines that have a group."""
    names = {path.name for root in _hierarchies() for path in (root / PARENT).glob("*") if path.is_dir()}
    return sorted(int(name) for name in names if name.isdigit())


def create(machine_id: int) -> list[Path]:
    """Make a machine's group; returns the files that a process writes its id to in order to join."""
    groups = [root / PARENT / str(machine_id) for root in _hierarchies()]
    with _changes:
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)
            for knob in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty at first, and nobody can join
                for folder in (group.parent, group):
                    if (folder / knob).exists() and not (folder / "cgroup.controllers").exists():
                        (folder / knob).write_text((folder.parent / knob).read_text())
    return [group / "cgroup.procs" for group in groups]


def init_pid(machine_id: int) -> int | None:
    """Find the machine's PID 1 as this host sees it; None while it does not run."""
    for pid in _pids(machine_id):
        with suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            spaces = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
            # Until it becomes init, the process is still systemd-nspawn's own.
            if (
                len(spaces) == 2
                and spaces[1] == "1"
                and "systemd-nspawn" not in str(Path(f"/proc/{pid}/exe").readlink())
            ):
                return pid
    return None


def kill(machine_id: int) -> None:
    """Cut a machine's power: end its PID 1 (the kernel ends the rest), then whatever is left; done when all are gone."""
    pid = init_pid(machine_id)
    if pid:
        _signal(pid)
    grace = time.monotonic() + (2.0 if pid else 0.0)
    deadline = grace + 10.0
    seen = _pids(machine_id)
    while left := _pids(machine_id):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(left)} do not end")
        if time.monotonic() > grace:
            for each in left:
                _signal(each)
        time.sleep(0.01)
    # Dead ones may wait for their parent to take notice; an idle parent shall not hold us up.
    reaped = time.monotonic() + 1.0
    while any(Path(f"/proc/{each}").exists() for each in seen) and time.monotonic() < reaped:
        time.sleep(0.01)


def remove(machine_id: int) -> None:
    """Remove a machine's empty group, and the parent after the last one."""
    for root in _hierarchies():
        group = root / PARENT / str(machine_id)
        with _changes:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
            with suppress(OSError):
                group.parent.rmdir()


def birth(pid: int) -> str | None:
    """Give the start time of a live process in the kernel's ticks, which tells it from a later one of the same number."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]


def _signal(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _pids(machine_id: int) -> set[int]:
    pids: set[int] = set()
    for root in _hierarchies():
        for folder, _, _ in os.walk(root / PARENT / str(machine_id)):  # passes over what vanishes meanwhile
            with suppress(OSError):
                pids.update(int(line) for line in Path(folder, "cgroup.procs").read_text().split())
    return pids - {0}


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            yield Path(mount)
