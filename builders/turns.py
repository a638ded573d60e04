"""One at a time: what the processes and threads of one user would tear apart if they changed it side by side."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def taken(what: str) -> Iterator[None]:
    """Wait for one's turn and have it; the system ends it with this process, however that ends."""
    with (user_cache_path("slipway", ensure_exists=True) / f"{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
