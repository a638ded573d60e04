"""The records on disk: all in memory, every call's changes written in one SQLite transaction before it is answered.

A process that is killed loses at most the call in flight. Records are found by their type and id.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from scripts.localcloud import records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Record(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> int:
        """The number that finds it."""


R = TypeVar("R", bound=Record)

KINDS: tuple[type[Record], ...] = (
    records.SshKey,
    records.Firewall,
    records.Network,
    records.PlacementGroup,
    records.PrimaryIp,
    records.Volume,
    records.Image,
    records.Server,
    records.Action,
    records.Meter,
    records.Mark,
)
NEXT_ID, CLOCK = 1, 2
"""Marks: the next id to give, the clock's offset in seconds."""
FIRST_ID = 10_000_001


class StoreFailed(OSError):
    """The state file cannot be used."""


class Store:
    """Typed records with transactions; not for several threads."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the file, or keep everything in memory when there is no path."""
        self._tables: dict[type[Record], dict[int, Record]] = {kind: {} for kind in KINDS}
        self._undo: list[tuple[type[Record], int, Record | None]] | None = None
        if path:
            path.touch(mode=0o600)  # it holds the users' data, with keys in it
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS record (kind TEXT, id INTEGER, json BLOB, PRIMARY KEY (kind, id))"
            )
            self._load()
        except (sqlite3.Error, msgspec.DecodeError, KeyError) as exc:
            raise StoreFailed(f"{path}: cannot read the local cloud's state ({exc}); `reset` makes a new one") from exc

    def get(self, kind: type[R], number: int) -> R | None:
        """Find one record."""
        found = self._tables[kind].get(number)
        return found if isinstance(found, kind) else None

    def all(self, kind: type[R]) -> tuple[R, ...]:
        """Give all records of a kind, oldest first."""
        return tuple(record for record in self._tables[kind].values() if isinstance(record, kind))

    def put(self, record: R) -> R:
        """Add or replace a record."""
        self._change(type(record), record.id, record)
        return record

    def remove(self, record: Record) -> None:
        """Remove a record; nothing happens when it is gone already."""
        self._change(type(record), record.id, None)

    def next_id(self) -> int:
        """Give a number that was never given before."""
        number = int(self.mark(NEXT_ID) or FIRST_ID)
        self.put(records.Mark(id=NEXT_ID, value=number + 1))
        return number

    def mark(self, number: int) -> float | None:
        """Give one of the cloud's own numbers."""
        found = self.get(records.Mark, number)
        return found.value if found else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all changes made inside, on disk too, or none of them."""
        self._undo = []
        try:
            yield
            self._write()
        except BaseException:
            for kind, number, before in reversed(self._undo):
                self._place(kind, number, before)
            raise
        finally:
            self._undo = None

    def clear(self) -> None:
        """Forget every record but the marks, so that no number is ever given twice."""
        for kind in KINDS:
            if kind is not records.Mark:
                for record in tuple(self._tables[kind].values()):
                    self.remove(record)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _change(self, kind: type[Record], number: int, after: Record | None) -> None:
        if self._undo is None:
            raise RuntimeError("a record may only change inside a transaction")
        self._undo.append((kind, number, self._tables[kind].get(number)))
        self._place(kind, number, after)

    def _place(self, kind: type[Record], number: int, record: Record | None) -> None:
        if record is None:
            self._tables[kind].pop(number, None)
        else:
            self._tables[kind][number] = record

    def _write(self) -> None:
        changed = dict.fromkeys((kind, number) for kind, number, _ in self._undo or ())
        if not changed:
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for kind, number in changed:
                record = self._tables[kind].get(number)
                if record is None:
                    self._db.execute("DELETE FROM record WHERE kind = ? AND id = ?", (kind.__name__, number))
                else:
                    row = (kind.__name__, number, msgspec.json.encode(record))
                    self._db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", row)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _load(self) -> None:
        kinds = {kind.__name__: kind for kind in KINDS}
        for name, number, row in self._db.execute("SELECT kind, id, json FROM record ORDER BY id"):
            self._tables[kinds[name]][number] = msgspec.json.decode(row, type=kinds[name])
