"""The errors of setting up.

SetupError
├── CommandFailed    a command that a step ran
└── StepsFailed      the steps of one run that failed
"""

from __future__ import annotations


class SetupError(Exception):
    """Setting up failed; the message is what the user reads."""


class CommandFailed(SetupError):
    """A command ended with a failure."""

    def __init__(self, *, command: str, code: int, last_lines: str, log: str) -> None:
        super().__init__(f"{command} failed (exit {code}), all of its output is in {log}:\n{last_lines}".rstrip(":\n"))


class StepsFailed(SetupError):
    """One or more steps failed; what others made stays made."""

    def __init__(self, failures: dict[str, str]) -> None:
        super().__init__("\n".join(f"{name}: {reason}" for name, reason in failures.items()))
