"""Signals while another process does the work: it gets them, and this one goes on to the end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType


@contextmanager
def passed_on(process: subprocess.Popen[bytes], *, kind: int | None = None) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on, both as `kind` if there is one, and collect them.

    A Ctrl-C at a terminal reaches the process by itself, being in the same process group; another could end it at once.
    """
    received: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGTERM or not _at_terminal():
            process.send_signal(kind or number)

    handlers: dict[int, Any] = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int, bool]:
    """Run a command on this terminal; return its exit code as a shell tells it, and whether there was a signal."""
    with subprocess.Popen(command, env=environment) as process, passed_on(process) as received:
        code = process.wait()
    return (128 - code if code < 0 else code), bool(received)


def _at_terminal() -> bool:
    """Tell whether this process is in the foreground of a terminal, where Ctrl-C goes to the whole group."""
    try:
        with Path("/dev/tty").open() as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
