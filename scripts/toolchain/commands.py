"""Runs the commands of a step, with all output in the step's log."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.toolchain.errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LAST_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The log file of one step."""

    path: Path

    def run(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> None:
        """Run `command` to its end; raises CommandFailed with the last lines of its output."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as log:
            print(f"$ {shlex.join(map(str, command))}", file=log, flush=True)
            done = subprocess.run(
                list(map(str, command)),
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                input=stdin,
                text=True,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise CommandFailed(
                command=str(command[0]), code=done.returncode, last_lines=self.tail(LAST_LINES), log=str(self.path)
            )

    def clear(self) -> None:
        """Forget an earlier run."""
        self.path.unlink(missing_ok=True)

    def tail(self, lines: int) -> str:
        """Return the last lines of output."""
        try:
            return "\n".join(self.path.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def read_output(command: Sequence[str | Path], *, cwd: Path | None = None) -> str | None:
    """Return what `command` prints, or None where it fails or does not exist."""
    try:
        done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
