"""How a Python program is started for the engine: interpreter, arguments, environment, and what its exit means."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEFAULT_VIRTUALENV = {"uv": ".venv"}
"""Where a toolchain keeps its virtual environment when Pulumi.yaml does not say."""

EXIT_REPORTED = 32
"""Exit code of a program that has already told the user what went wrong."""


class UnusableRuntime(Exception):
    """A program cannot be run with what is there; the message is what the user reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One run of a program, as the engine asked for it."""

    executor: Path
    monitor: str
    engine: str
    project: str
    stack: str
    organization: str
    root: Path
    directory: str
    entry_point: str
    dry_run: bool
    parallel: int
    arguments: Sequence[str] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    secret_keys: Sequence[str] = ()


def find_virtualenv(root: Path, options: Mapping[str, object]) -> Path | None:
    """Return the virtual environment that the runtime options name, or None where they name none."""
    named = options.get("virtualenv") or DEFAULT_VIRTUALENV.get(str(options.get("toolchain", "")))
    return root / str(named) if named else None


def find_interpreter(root: Path, options: Mapping[str, object], *, fallback: Path) -> Path:
    """Return the Python that runs the program; `fallback` is used where the options name no virtual environment."""
    virtualenv = find_virtualenv(root, options)
    if virtualenv is None:
        return fallback
    interpreter = virtualenv / "bin" / "python"
    if not interpreter.is_file():
        raise UnusableRuntime(
            f"runtime option virtualenv: {virtualenv} is not a virtual environment; run scripts/setup python"
        )
    return interpreter


def build_command(interpreter: Path, program: Program) -> list[str]:
    """Return the command line that runs `program`."""
    flags = {
        "monitor": program.monitor,
        "engine": program.engine,
        "project": program.project,
        "root_directory": str(program.root),
        "stack": program.stack,
        "pwd": program.directory,
        "dry_run": "true" if program.dry_run else "false",
        "parallel": str(program.parallel),
        "organization": program.organization,
    }
    given = [argument for name, value in flags.items() if value for argument in (f"--{name}", value)]
    return [str(interpreter), "-u", str(program.executor), *given, program.entry_point or ".", *program.arguments]


def build_environment(
    base: Mapping[str, str], program: Program, virtualenv: Path | None, options: Mapping[str, object]
) -> dict[str, str]:
    """Return the program's environment: its configuration, its virtual environment, its runtime options."""
    environment = {name: value for name, value in base.items() if name != "PYTHONHOME"}
    environment["PULUMI_CONFIG"] = json.dumps(dict(program.config))
    environment["PULUMI_CONFIG_SECRET_KEYS"] = json.dumps(list(program.secret_keys))
    environment |= {f"PULUMI_RUNTIME_{name.upper()}": str(value) for name, value in options.items()}
    if virtualenv is not None:
        environment["VIRTUAL_ENV"] = str(virtualenv)
        environment["PATH"] = f"{virtualenv / 'bin'}:{base.get('PATH', '')}"
    return environment


def explain_exit(code: int) -> tuple[str, bool]:
    """Return the error text for the engine, and whether the program has told the user already."""
    if code == 0:
        return "", False
    if code == EXIT_REPORTED:
        return "", True
    if code < 0:
        return f"program ended by {signal.Signals(-code).name}", False
    return f"program exited with non-zero exit code: {code}", False
