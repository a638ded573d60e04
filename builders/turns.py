"""One at a time: what the processes and threads of one user would tear apart if they changed it side by side."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from platformdirs import user_cache_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def taken(what: str, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Wait for one's turn, after `waiting` was told, and have it; the system ends it with this process, however that ends."""
    with (user_cache_path("slipway", ensure_exists=True) / f"{what}.lock").open("w") as file:
        if not locked(file, fcntl.LOCK_EX):
            if waiting:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def locked(file: TextIO, kind: int) -> bool:
    """Lock a file, if that needs no waiting; another kind of lock that this process had on it is gone either way."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
