"""A file or folder that is made once for a key, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def digest(*parts: str | bytes) -> str:
    """Return a key for what an artefact is made from; the borders between parts count."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8) + data)
    return whole.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What is made at `path`; the key lies beside it and is written last."""

    path: Path
    key: str

    @property
    def _key_file(self) -> Path:
        return self.path.with_name(f".{self.path.name}.key")

    @property
    def _unfinished(self) -> str:
        return f".{self.path.name}.unfinished-"

    def is_made(self) -> bool:
        """Tell whether it is there, made for this key."""
        try:
            return self.path.exists() and self._key_file.read_text() == self.key
        except FileNotFoundError:
            return False

    @contextmanager
    def replace(self) -> Iterator[Path]:
        """Hand out a path to make it at; it takes its place when the block ends well, and is removed otherwise."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(f"{self._unfinished}*"):
            remove(left)
        fresh = self.path.with_name(f"{self._unfinished}{os.getpid()}")
        try:
            yield fresh
            self._key_file.unlink(missing_ok=True)
            if self.path.is_dir():
                self.path.rename(self.path.with_name(f"{self._unfinished}old"))
            fresh.rename(self.path)
            self._key_file.write_text(self.key)
        finally:
            for left in self.path.parent.glob(f"{self._unfinished}*"):
                remove(left)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
