"""Who uses a stack's builders through `slipway with` on this machine, and whether they go with the last of these users.

Users share a lock on a file, which the system lets go of when a process ends, however it ends. What the file says holds while
somebody has the lock: a chain of users that was killed leaves nothing that a later one believes.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from platformdirs import user_cache_path

from builders import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Lease:
    """One use."""

    _file: TextIO

    @property
    def claimed(self) -> bool:
        """Whether one of the users brought the builders up."""
        return os.fstat(self._file.fileno()).st_size > 0

    def claim(self) -> None:
        """Note that one of the users brings them up."""
        self._file.write("up\n")
        self._file.flush()

    def alone(self) -> bool:
        """Tell whether nobody else uses them now; the use goes on."""
        claimed = self.claimed
        alone = turns.locked(self._file, fcntl.LOCK_EX)
        fcntl.flock(self._file, fcntl.LOCK_SH)  # the system may have let go of it while it looked,
        if claimed and not self.claimed:  # and a newcomer may have taken itself for the first
            self.claim()
        return alone

    def last(self) -> bool:
        """End the use; where nobody else uses them, keep newcomers waiting until this process is done."""
        if turns.locked(self._file, fcntl.LOCK_EX):
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)  # a network's file system may keep the old lock
        return turns.locked(self._file, fcntl.LOCK_EX)


@contextmanager
def taken(identity: str, *, waiting: Callable[[], None]) -> Iterator[Lease]:
    """Use the builders of a stack; `waiting` is told where the last user is just taking them down."""
    with _file(identity).open("a+") as file:
        if turns.locked(file, fcntl.LOCK_EX):
            file.truncate(0)
        if not turns.locked(file, fcntl.LOCK_SH):
            waiting()
            fcntl.flock(file, fcntl.LOCK_SH)
        yield Lease(file)


def keep(identity: str) -> None:
    """Let the builders stay up when their users are done: somebody has said that they shall be up."""
    with suppress(FileNotFoundError):
        os.truncate(_file(identity), 0)


def in_use(identity: str) -> bool:
    """Tell whether anybody uses them."""
    try:
        with _file(identity).open("r+") as file:
            return not turns.locked(file, fcntl.LOCK_EX)
    except FileNotFoundError:
        return False


def _file(identity: str) -> Path:
    return user_cache_path("slipway", ensure_exists=True) / f"with-{identity}.lock"
