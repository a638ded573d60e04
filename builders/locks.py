"""Whose lock keeps a stack: read from the words of Pulumi's self-managed backends, and whether its process still lives."""

from __future__ import annotations

import os
import pwd
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_FIRST_UTS = "uts:[4026531838]"  # PROC_UTS_INIT_INO of include/linux/proc_ns.h
_LOCKED = "the stack is currently locked by"
_HOLDER = re.compile(r"created by (?P<user>.+)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<since>\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A process that said it works on the stack."""

    user: str
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host} (process {self.pid}, since {self.since})"


def parse_locks(stderr: str) -> tuple[Lock, ...]:
    """Return the holders that the engine names when it refuses to run; none if it was not for a lock."""
    if _LOCKED not in stderr:
        return ()
    return tuple(
        Lock(user=found["user"], host=found["host"], pid=int(found["pid"]), since=found["since"])
        for found in _HOLDER.finditer(stderr)
    )


def is_dead(lock: Lock) -> bool:
    """Tell whether the holder was a process of this user and host that is gone; of others nothing can be told.

    Containers may have the same host's name, and each sees its own processes alone: from within one nothing can be told.
    """
    with suppress(KeyError):  # a container's user may have a number and no name
        here = (pwd.getpwuid(os.getuid()).pw_name, socket.gethostname())
        return (lock.user, lock.host) == here and not _in_container() and not _is_engine(lock.pid)
    return False


def _in_container() -> bool:
    """Tell whether the host's name is of a namespace of its own, as each container's is, with the host's network too."""
    with suppress(OSError):  # no Linux: no such namespaces
        return Path("/proc/self/ns/uts").readlink().name != _FIRST_UTS
    return False


def _is_engine(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    with suppress(OSError):  # no /proc: a living process of that number is taken for the holder
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        return name.startswith("pulumi") and rest.split()[0] != "Z"
    return True
