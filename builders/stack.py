"""The Pulumi door: one stack of the program in a project folder, operated through the `pulumi` command.

The command is run as it is, not through `pulumi.automation`: so its own live display reaches the terminal, a signal sent
to this process reaches the engine (the library keeps the engine's process to itself), and a verb costs no import of half
a second and no `pulumi version` and `stack history` beside the update.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from builders import diagnostics, signals
from builders.errors import API_ADVICE, InvalidSetting, StackFailed
from builders.locks import Lock, is_dead, parse_locks
from builders.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PROJECT = "slipway"
_PROJECT_FILES = ("Pulumi.yaml", "Pulumi.yml")
_CANCELLED = 8  # pulumi's exit code after a first SIGINT or SIGTERM
# What the command says, and how to cure it.
_CURES = (
    ("no stack selected", "no stack is selected", "slipway -s NAME …, or once: pulumi stack select NAME"),
    ("no stack named", "{line}", "pulumi stack ls shows which there are; pulumi stack init NAME makes one"),
    (
        "passphrase must be set",
        "the stack's passphrase is not set",
        "export PULUMI_CONFIG_PASSPHRASE_FILE=FILE (or PULUMI_CONFIG_PASSPHRASE)",
    ),
    ("incorrect passphrase", "the stack's passphrase is wrong", "correct PULUMI_CONFIG_PASSPHRASE_FILE"),
    (
        "PULUMI_ACCESS_TOKEN must be set",
        "pulumi is not logged in to a state backend",
        "pulumi login file://FOLDER (or s3://BUCKET), or export PULUMI_BACKEND_URL",
    ),
)
# What the engine and its providers say of a resource; the API's codes are in errors.API_ADVICE.
_RESOURCE_CURES = (
    (r"image \S+ for architecture \S+ not found", "correct slipway:image"),
    (
        r"\(unauthorized,|code: unauthorized\b",
        "set a token that may read and write: pulumi config set --secret hcloud:token",
    ),
    (
        r"no answer from the cluster|one of its contexts|cluster is unreachable|unreachable cluster",
        "is the API server up; else correct kubeconfig and context of slipway:registry: "
        "the engine looks with those of the last run until, once: pulumi up --run-program",
    ),
    (
        r"because it is protected",
        "set slipway:protect to false and run `slipway up` before what is protected is left out of the settings",
    ),
)


class Locked(StackFailed):
    """Somebody else works on the stack, or died while doing so; Pulumi Cloud does not say who."""

    def __init__(self, locks: tuple[Lock, ...] = ()) -> None:
        holders = ", ".join(map(str, locks))
        super().__init__(
            f"the stack is locked by {holders}" if locks else "another update of this stack is in progress",
            hint="wait for that run to end; if it is dead: pulumi cancel",
        )
        self.locks = locks

    @property
    def dead(self) -> bool:
        """Whether every holder was a process of this host that is gone."""
        return bool(self.locks) and all(is_dead(lock) for lock in self.locks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack; `name` None is the one that pulumi has selected."""

    folder: Path
    name: str | None = None
    settings: Path | None = None  # of --config-file

    def load(self, *, secrets: bool = False) -> State:
        """Read the whole state, with its secrets in plain if asked for."""
        return State.from_json(self._ask("stack", "export", *(["--show-secrets"] if secrets else [])))

    def token_and_endpoint(self, environment: Mapping[str, str]) -> tuple[str, str | None]:
        """Return how the program reaches the Hetzner API: its settings first, then the vendor's variables."""
        asked = json.loads(self._ask("config", "--json", "--show-secrets", *self._settings()))
        values = {key: entry.get("value") for key, entry in asked.items()}
        token = values.get("hcloud:token") or environment.get("HCLOUD_TOKEN", "")
        return token, values.get("hcloud:endpoint") or environment.get("HCLOUD_ENDPOINT")

    def release(self) -> None:
        """Remove the locks that are on the stack, whoever's they are."""
        self._ask("cancel", "--yes")

    def update(self) -> None:
        """Run the program and make what it declares; the engine's display goes to stderr."""
        self._operate("up", "--skip-preview")

    def destroy(self) -> None:
        """Remove everything that is not protected."""
        self._operate("destroy", "--skip-preview", "--exclude-protected")

    def refresh(self, *, run_program: bool = False) -> None:
        """Look at everything on record, and forget the operations that a killed run began.

        The engine looks with the token of the last run, unless the program is run to tell the one that is set now.
        """
        program = ["--run-program"] if run_program else []
        self._operate("refresh", "--skip-preview", "--clear-pending-creates", *program)

    def _ask(self, *arguments: str) -> str:
        command = [_pulumi(), "--non-interactive", "--cwd", str(self.folder), *arguments, *self._stack()]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=_environment()
        )
        if done.returncode:
            raise _failure(done.stderr)
        return done.stdout

    def _operate(self, *arguments: str) -> None:
        with _events() as (path, events):
            command = [
                _pulumi(), "--cwd", str(self.folder), *arguments, "--yes", "--event-log", str(path),
                *self._stack(), *self._settings(),
            ]  # fmt: skip
            code, stderr, interrupted = _run(command, {**_environment(), "PULUMI_DEBUG_COMMANDS": "true"})
        if interrupted or code == _CANCELLED:
            raise KeyboardInterrupt
        if code:
            problems = diagnostics.errors(events)
            raise StackFailed("\n".join(problems), hint=_hint(problems)) if problems else _failure(stderr)

    def _stack(self) -> list[str]:
        return ["--stack", self.name] if self.name else []

    def _settings(self) -> list[str]:
        return ["--config-file", str(self.settings)] if self.settings else []


def find_project(folder: Path) -> Path | None:
    """Return the folder of the Slipway project that `folder` lies in, as pulumi looks for it."""
    for each in (folder, *folder.parents):
        for name in _PROJECT_FILES:
            if (each / name).is_file():
                return each if _is_ours(each / name) else None
    return None


def _is_ours(path: Path) -> bool:
    return any(
        line.split("#")[0].split() == ["name:", PROJECT] for line in path.read_text(errors="replace").splitlines()
    )


def open_stack(folder: Path, name: str | None, settings: Path | None) -> Stack:
    """Return the stack to operate; raise StackFailed outside a Slipway project."""
    if not folder.is_dir():
        raise InvalidSetting(f"{folder}: no such folder")
    if settings and not settings.is_file():
        raise InvalidSetting(f"--config-file {settings}: no such file")
    project = find_project(folder.resolve())
    if project is None:
        raise StackFailed(
            f"{folder}: this is not in a Slipway project", hint="go to its folder, or name it: slipway -C FOLDER …"
        )
    return Stack(folder=project, name=name, settings=settings.resolve() if settings else None)


def _pulumi() -> str:
    found = shutil.which("pulumi")
    if not found:
        raise StackFailed(
            "pulumi: the command is not on PATH", hint='install it, or run: eval "$(scripts/setup --env)"'
        )
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}


def _failure(stderr: str) -> StackFailed:
    if locks := parse_locks(stderr):
        return Locked(locks)
    if "Another update is currently in progress" in stderr:  # Pulumi Cloud, with 409
        return Locked()
    lines = [
        line.removeprefix("error: ") for line in stderr.splitlines() if line.strip() and not line.startswith("warning")
    ]
    for words, message, hint in _CURES:
        if line := next((line for line in lines if words in line), None):
            return StackFailed(message.format(line=line), hint=hint)
    if not lines:
        return StackFailed("pulumi: it ended badly and said nothing")
    further = takewhile(lambda line: line[:1].isspace(), lines[1:])  # as of a file of settings that cannot be read
    return StackFailed(" ".join(["pulumi:", lines[0], *map(str.strip, further)]))


def _hint(problems: Iterable[str]) -> str | None:
    """Say what to do about the words of the engine and its providers, which hold the API's code: `… (code, id)`, `Error code: code`."""
    told = "\n".join(problems)
    cures = (*_RESOURCE_CURES, *((rf"(\(|code: ){code}\b", advice) for code, advice in API_ADVICE.items()))
    return next((advice for words, advice in cures if re.search(words, told)), None)


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str, bool]:
    """Run the engine with its display on our stderr; return its exit code, what its stderr said, and whether we were interrupted."""
    sys.stderr.flush()
    with (
        # it ends the steps under way and records them
        signals.passed_on(
            lambda: subprocess.Popen(command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, env=environment),
            kind=signal.SIGINT,
        ) as (engine, received),
    ):
        if engine.stderr is None:
            raise AssertionError
        said = bytearray()
        while chunk := os.read(engine.stderr.fileno(), 4096):
            said += chunk
            os.write(sys.stderr.fileno(), chunk)
        return engine.wait(), said.decode(errors="replace"), bool(received)


@contextmanager
def _events() -> Iterator[tuple[Path, list[str]]]:
    """Collect the engine's error events as it writes them: through a pipe, for other events hold secrets in plain."""
    errors: list[str] = []
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "events"
        os.mkfifo(path, 0o600)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(path, os.O_WRONLY)  # so that the reader sees no end before the engine has begun
        os.set_blocking(reading, True)
        reader = threading.Thread(target=_collect, args=(reading, errors), daemon=True)
        reader.start()
        try:
            yield path, errors
        finally:
            os.close(writing)
            reader.join()


def _collect(descriptor: int, errors: list[str]) -> None:
    with os.fdopen(descriptor) as events:
        errors.extend(line for line in events if '"severity":"error"' in line)
