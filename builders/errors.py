"""What can go wrong while builders are operated; every message names the thing, what happened and what to do.

BuilderError
├── InvalidSetting (ValueError)      a setting of the stack, an argument, a bundle
├── CloudRefused                     the Hetzner API said no
│   ├── TokenRejected
│   └── OutOfStock
├── CloudUnreachable                 it did not answer
├── NodeUnreachable                  no SSH connection
├── LoginRefused                     it does not accept the stack's SSH key
├── HostKeyMismatch                  the machine shows a key that is not on record
├── RemoteCommandFailed              a command on the node ended badly
├── NodeNotReady                     a wait had its deadline
├── TransferRefused                  wrong digest, disk full
├── InvalidCertificate (ValueError)  a certificate, key or request that cannot be used
├── BuildxFailed                     the buildx command ended badly
├── ProgramTooLarge                  the one-file program does not fit into a ConfigMap
├── NoBuilder                        a wanted platform has no healthy node
└── StackFailed                      the Pulumi engine ended badly
"""

from __future__ import annotations

# The Hetzner API's codes, and what to do about each.
API_ADVICE = {
    "uniqueness_error": (
        "what holds the name is not this stack's: another stack of this name uses the Hetzner project, or its state was lost; "
        "choose another stack name, or remove it by hand"
    ),
    "resource_limit_exceeded": "ask Hetzner for a higher limit of the project, or lower the count in slipway:builders",
    "rate_limit_exceeded": "wait a minute: the project has 3600 calls an hour, for all tools together",
    "protected": "somebody protects it from deletion in the Hetzner project: take that off there, then run this again",
}


class BuilderError(Exception):
    """Any foreseeable failure; `str()` is the one line for the user, `hint` the next thing to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidSetting(BuilderError, ValueError):
    """A setting that cannot be used; all of a program's are collected and raised once, a line each."""


class CloudRefused(BuilderError):
    """The Hetzner API answered with an error; `code` is the API's own."""

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class TokenRejected(CloudRefused):
    """The token is unknown to the API, or may not do this."""


class OutOfStock(CloudRefused):
    """No rung of a builder's ladder can be had now."""


class CloudUnreachable(BuilderError, ConnectionError):
    """The Hetzner API did not answer."""


class NodeUnreachable(BuilderError, ConnectionError):
    """No SSH connection within its deadline."""


class LoginRefused(BuilderError, PermissionError):
    """The machine answered SSH but does not accept the key."""


class HostKeyMismatch(BuilderError):
    """The machine at the node's address shows a host key that is not on record; contact is refused."""


class RemoteCommandFailed(BuilderError):
    """A command on the node ended with `exit_status`; `stdout` and `stderr` are what it said."""

    def __init__(
        self, message: str, *, exit_status: int, stdout: str = "", stderr: str, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status
        self.stdout = stdout
        self.stderr = stderr


class NodeNotReady(BuilderError, TimeoutError):
    """One of the waits for a builder passed its deadline."""


class TransferRefused(BuilderError):
    """A file did not reach the node whole."""


class InvalidCertificate(BuilderError, ValueError):
    """A certificate, a key or a signing request that cannot be read or must not be used."""


class BuildxFailed(BuilderError):
    """The buildx command is missing or ended badly."""


class ProgramTooLarge(BuilderError):
    """The one-file program has grown beyond what a cluster takes."""


class NoBuilder(BuilderError):
    """A wanted platform has no healthy node, and is not emulated."""


class StackFailed(BuilderError):
    """The Pulumi engine ended badly, or the stack has not what was asked of it."""
