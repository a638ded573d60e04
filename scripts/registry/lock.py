"""An external lock: a file that all writers of a tag agree on, on a disk that they share."""

from __future__ import annotations

import fcntl
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.registry.errors import Locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PAUSE_S = 0.1


@contextmanager
def held(path: str, *, wait_s: float, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock, after `waiting` was told if somebody else has it. An empty path is no lock.

    The system lets go of it when this process ends, however it ends.
    """
    if not path:
        yield
        return
    with Path(path).open("a") as file:
        deadline, told = time.monotonic() + wait_s, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    hint = "wait longer: --wait 30m"
                    raise Locked(f"{path}: another process holds it since {wait_s:.0f} s", hint=hint) from error
                if not told:
                    waiting(f"{path}: another process holds it")
                    told = True
                time.sleep(_PAUSE_S)
        yield
