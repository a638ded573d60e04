"""Signals while another process does the work: it gets them, and this one goes on to the end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType


@contextmanager
def passed_on(
    start: Callable[[], subprocess.Popen[bytes]], *, kind: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Start a process and wait for its end; pass the signals that end this one on, all as `kind` if there is one, and collect them.

    A Ctrl-C at a terminal reaches the process by itself, being in the same process group; another could end it at once.
    """
    process: subprocess.Popen[bytes] | None = None
    received: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process and (number == signal.SIGTERM or not _at_terminal()):
            process.send_signal(kind or number)

    with _handled_by(pass_on):
        process = start()
        with process:
            for number in received:  # while it was started
                process.send_signal(kind or number)
            yield process, received


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int, bool]:
    """Run a command on this terminal; return its exit code as a shell tells it, and whether there was a signal."""
    with passed_on(lambda: subprocess.Popen(command, env=environment)) as (process, received):
        code = process.wait()
    return (128 - code if code < 0 else code), bool(received)


@contextmanager
def interrupting() -> Iterator[None]:
    """Have whatever ends this process be an interrupt, as Ctrl-C is, so that what was begun is undone."""
    with _handled_by(signal.default_int_handler):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle the signals that end a process, but for the one that nohup has made it ignore."""
    ending = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        ending.append(signal.SIGHUP)
    before: dict[int, Any] = {each: signal.signal(each, handler) for each in ending}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _at_terminal() -> bool:
    """Tell whether this process is in the foreground of a terminal, where Ctrl-C goes to the whole group."""
    try:
        with Path("/dev/tty").open() as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
