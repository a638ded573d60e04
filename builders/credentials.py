"""The client certificates of this user: one private folder per builder, which buildx is told to read.

A renewed certificate is a new content of the same files: buildx reads them at every dial, so nothing is registered anew.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_config_path

from builders import certificates, files, turns
from builders.certificates import Leaf
from builders.errors import InvalidCertificate, InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")  # what buildx takes as the name of a builder
_FILES = ("ca.pem", "cert.pem", "key.pem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The credentials for one builder and where they lie."""

    folder: Path
    authority: str
    leaf: Leaf

    def is_of(self, authority: str) -> bool:
        """Tell whether they were given for the stack of this authority; another stack's builder may have the same name."""
        return self.authority.strip() == authority.strip()

    def days_left(self, now: datetime) -> int:
        """Count the days until the certificate ends; 0 or less when it has."""
        return certificates.days_left(certificates.expires(self.leaf.certificate), now)


def folder(builder: str) -> Path:
    """Tell where the credentials for a builder belong, whether they are there or not."""
    if not _NAME.fullmatch(builder):
        raise InvalidSetting(
            f"builder {builder!r}: a name begins with a letter and goes on with letters, digits, . _ -"
        )
    return user_config_path("slipway") / builder


def builders() -> tuple[str, ...]:
    """List the builders for which credentials are held."""
    try:
        found = (each.name for each in user_config_path("slipway").iterdir() if each.is_dir())
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))
    except FileNotFoundError:
        return ()


def write(builder: str, authority: str, leaf: Leaf) -> Path:
    """Put the credentials for a builder in place, readable for this user only."""
    target = folder(builder)
    with turns.taken("credentials"):  # of two writers the later one's are there, and not a part of each
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        _lay_out(target, authority, leaf)
    return target


def read(builder: str) -> Held | None:
    """Return what is held for a builder; None if there is nothing, or nothing that can be used."""
    place = folder(builder)
    try:
        authority, certificate, key = ((place / name).read_text() for name in _FILES)
        leaf = Leaf(certificate=certificate, key=key)
        certificates.expires(authority)
        usable = certificates.is_pair(leaf)
    except (OSError, UnicodeDecodeError, InvalidCertificate):
        return None
    return Held(folder=place, authority=authority, leaf=leaf) if usable else None


def remove(builder: str) -> None:
    """Remove the credentials for a builder; none there is no error."""
    with turns.taken("credentials"), suppress(FileNotFoundError):
        shutil.rmtree(folder(builder))


@contextmanager
def lent(authority: str, leaf: Leaf) -> Iterator[Path]:
    """Lay out credentials in a folder that only this user can read and that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as place:
        _lay_out(Path(place), authority, leaf)
        yield Path(place)


def _lay_out(place: Path, authority: str, leaf: Leaf) -> None:
    # The key goes first: a run that dies in between leaves a pair that does not match, which `read` does not take for one.
    for name, content in (("key.pem", leaf.key), ("cert.pem", leaf.certificate), ("ca.pem", authority)):
        _replace(place / name, content)


def _replace(path: Path, content: str) -> None:
    """Write a file whole, mode 0600, unless it says so already."""
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text() == content and path.stat().st_mode & 0o777 == 0o600:
            return
    files.replace(path, content)
