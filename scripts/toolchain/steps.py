"""Steps that make something, and their run: independent ones overlap, and each says what it does and how far it is."""

from __future__ import annotations

import fcntl
import re
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.toolchain.commands import Log
from scripts.toolchain.errors import SetupError, StepsFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from scripts.toolchain.layout import Layout

HEARTBEAT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to make. `lane`: only one step of a lane runs at a time. `blocked`: why it cannot be made here."""

    name: str
    part: str
    about_s: int
    is_made: Callable[[], bool]
    make: Callable[[Log], None]
    needs: tuple[str, ...] = ()
    lane: str = ""
    blocked: str = ""

    @property
    def slug(self) -> str:
        """The step's name as a file name."""
        return re.sub(r"[^a-zA-Z0-9.]+", "-", self.name).strip("-")


def choose_next(waiting: Sequence[Step], running: Sequence[Step], unfinished: set[str]) -> Step | None:
    """Return the first waiting step whose needs are met and whose lane is free."""
    lanes = {step.lane for step in running if step.lane}
    for step in waiting:
        if step.lane not in lanes and not unfinished.intersection(step.needs):
            return step
    return None


class Run:
    """One run of steps."""

    def __init__(self, layout: Layout, steps: Sequence[Step]) -> None:
        self._layout = layout
        self._waiting = list(steps)
        self._unfinished = {step.name for step in steps}
        self._running: dict[Future[float], tuple[Step, float]] = {}
        self._failures: dict[str, str] = {}
        self._count = len(steps)

    def run(self) -> None:
        """Make all steps; one that fails takes those along that need it, and no others."""
        with ThreadPoolExecutor(max_workers=max(1, self._count)) as pool:
            while self._waiting or self._running:
                while step := choose_next(
                    self._waiting, [step for step, _ in self._running.values()], self._unfinished
                ):
                    self._waiting.remove(step)
                    self._say(f"{step.name}: started, takes about {step.about_s} s")
                    self._running[pool.submit(self._make, step)] = (step, time.monotonic())
                if not self._running:
                    break
                done, _ = wait(self._running, timeout=HEARTBEAT_S, return_when=FIRST_COMPLETED)
                for future in done:
                    self._finish(future)
                if not done:
                    self._show_progress()
        for step in self._waiting:
            self._failures[step.name] = f"left out, since it needs {' and '.join(step.needs)}"
        if self._failures:
            raise StepsFailed(self._failures)

    def _make(self, step: Step) -> float:
        began = time.monotonic()
        with self._lock(step):
            if not step.is_made():  # another run may have made it meanwhile
                log = self._log(step)
                log.clear()
                step.make(log)
        return time.monotonic() - began

    def _finish(self, future: Future[float]) -> None:
        step, _ = self._running.pop(future)
        try:
            took_s = future.result()
        except (SetupError, OSError) as error:
            self._failures[step.name] = str(error)
            self._say(f"{step.name}: failed")
            return
        self._unfinished.discard(step.name)
        self._say(f"{step.name}: done in {took_s:.0f} s")

    def _show_progress(self) -> None:
        for step, began in self._running.values():
            line = self._log(step).tail(1)[:80]
            self._say(f"{step.name}: {time.monotonic() - began:.0f} s of about {step.about_s} s  {line}".rstrip())

    def _say(self, text: str) -> None:
        finished = self._count - len(self._unfinished)
        print(f"[{finished}/{self._count}] {text}", file=sys.stderr, flush=True)

    def _log(self, step: Step) -> Log:
        return Log(path=self._layout.logs / f"{step.slug}.log")

    @contextmanager
    def _lock(self, step: Step) -> Iterator[None]:
        path: Path = self._layout.cache / "locks" / step.slug
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"{step.name}: another run makes it, waiting for that")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
