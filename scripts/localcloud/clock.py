"""The cloud's own clock: the host's time plus an offset that the control port sets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def host_now() -> datetime:
    """Tell the host's time."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Clock:
    """Time as the cloud sees it; every timestamp and the bill follow it."""

    offset: timedelta = timedelta()
    host: Callable[[], datetime] = host_now

    def now(self) -> datetime:
        """Tell the cloud's time."""
        return self.host() + self.offset

    def set(self, now: datetime) -> None:
        """Make it `now`; time runs on from there."""
        self.offset = now - self.host()
