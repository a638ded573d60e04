"""What the provider reports of a cluster instead of a result.

ProviderError
├── Refused               the API server answered with an error; `code` is the HTTP status, `reason` its own word
│   ├── FieldConflict     another field manager holds a field
│   └── UnknownKind       the server has no such kind
├── ClusterUnreachable    it did not answer, or nobody knows yet where it is
└── NotReady              the object is there and does not become what it should
"""

from __future__ import annotations

from scripts.toolchain.plugins.errors import ProviderError


class Refused(ProviderError):
    """The API server refused a request; rendered as `<message> (<reason>)`."""

    def __init__(self, message: str, *, code: int, reason: str) -> None:
        super().__init__(f"{message} ({reason})" if reason else message)
        self.code = code
        self.reason = reason


class FieldConflict(Refused):
    """Another field manager has set a field to another value."""


class UnknownKind(Refused):
    """The server does not serve the kind in that group and version."""


class ClusterUnreachable(ProviderError, ConnectionError):
    """The API server did not answer."""


class NotReady(ProviderError):
    """An object was applied and does not become ready."""
