"""Places: where a registry's files and its process are, and how commands run there.

A place is this host or a pod. What is run is the same (commands.py), so what is proved on one holds on the other.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scripts.registry.errors import PlaceUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command came to."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Return what it printed."""
        return self.out.decode(errors="replace")

    @property
    def said(self) -> str:
        """Return the last line of what it complained about."""
        lines = self.err.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.code}"


class Place(Protocol):
    """Somewhere to run commands; PlaceUnreachable where that cannot be done or its end is not known."""

    @property
    def name(self) -> str:
        """Return what errors call it."""

    def sh(self, script: str, *arguments: str, stdin: bytes = b"", timeout_s: float = 600) -> Done:
        """Run a script with sh and wait for its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisHost:
    """Commands on this host, in `folder`."""

    folder: Path
    name: str = "this host"
    shell: Sequence[str] = ("sh",)

    def sh(self, script: str, *arguments: str, stdin: bytes = b"", timeout_s: float = 600) -> Done:
        """Run a script with sh and wait for its end."""
        try:
            done = subprocess.run(
                [*self.shell, "-c", script, "slipway", *arguments],
                cwd=self.folder, input=stdin, capture_output=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        except OSError as error:
            raise PlaceUnreachable(f"{self.folder}: no command can be run there ({error.strerror})") from error
        except subprocess.TimeoutExpired as error:
            raise PlaceUnreachable(f"{self.name}: a command did not end within {timeout_s:.0f} s") from error
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """A folder of a place."""

    place: Place
    folder: str

    @property
    def name(self) -> str:
        """Return the place's name."""
        return self.place.name

    def sh(self, script: str, *arguments: str, stdin: bytes = b"", timeout_s: float = 600) -> Done:
        """Run a script there."""
        inside = f'cd -- "$1" || exit 1\nshift\n{script}'
        return self.place.sh(inside, self.folder, *arguments, stdin=stdin, timeout_s=timeout_s)
