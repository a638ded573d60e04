"""The record of all calls to the API, which tests count."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

KEPT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One call and how it was answered."""

    number: int
    time: datetime
    method: str
    path: str
    query: str
    status: int
    duration_ms: float

    @property
    def is_write(self) -> bool:
        """Tell whether the call asked for a change."""
        return self.method != "GET"


@dataclass(slots=True)
class History:
    """The latest calls; numbers go on after a clear, so that `since` stays meaningful."""

    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=KEPT))
    count: int = 0

    def add(self, *, time: datetime, method: str, path: str, query: str, status: int, duration_ms: float) -> None:
        """Record one call."""
        self.count += 1
        self.entries.append(
            Entry(
                number=self.count,
                time=time,
                method=method,
                path=path,
                query=query,
                status=status,
                duration_ms=round(duration_ms, 3),
            )
        )

    def select(self, *, method: str = "*", path: str = "*", since: int = 0) -> dict[str, Any]:
        """Give the calls that match (shell wildcards; `!GET` is every other method) after number `since`."""
        found = [
            entry
            for entry in self.entries
            if entry.number > since and _matches(entry.method, method) and fnmatchcase(entry.path, path)
        ]
        return {
            "count": len(found),
            "writes": sum(entry.is_write for entry in found),
            "last": self.count,
            "requests": [
                {
                    "number": entry.number,
                    "time": entry.time.isoformat(),
                    "method": entry.method,
                    "path": entry.path,
                    "query": entry.query,
                    "status": entry.status,
                    "duration_ms": entry.duration_ms,
                }
                for entry in found
            ],
        }


def _matches(text: str, pattern: str) -> bool:
    return not fnmatchcase(text, pattern[1:]) if pattern.startswith("!") else fnmatchcase(text, pattern)
