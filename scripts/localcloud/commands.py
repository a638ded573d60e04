"""Run the host's own tools (ip, nft, …); a failure carries what the tool said."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class CommandFailed(Exception):
    """A tool refused; `str(exc)` is one line: the command and its last words."""


def run(*argv: str, stdin: str = "", check: bool = True) -> str:
    """Run one command to its end and return what it printed; with `check` a non-zero exit raises `CommandFailed`."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CommandFailed(f"{argv[0]}: not found on PATH (run scripts/setup)") from None
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise CommandFailed(f"{' '.join(argv)}: {'; '.join(words[-2:]) or f'exit {done.returncode}'}")
    return done.stdout


def ip(lines: Sequence[str], *, namespace: str | None = None, force: bool = False) -> None:
    """Carry out `ip` commands as one batch inside a namespace; with `force` those that fail are passed over."""
    options = [*(["-n", namespace] if namespace else []), *(["-force"] if force else [])]
    run("ip", *options, "-batch", "-", stdin="\n".join(lines) + "\n", check=not force)


def nft(script: str, *, namespace: str) -> None:
    """Apply a ruleset as one transaction inside a network namespace."""
    run("nsenter", f"--net=/run/netns/{namespace}", "nft", "-f", "-", stdin=script)
