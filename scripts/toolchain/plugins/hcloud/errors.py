"""What the provider reports to the engine instead of a result.

ProviderError
├── InvalidConfiguration   token, endpoint, polling
├── CloudError             the API answered with an error; `code` is its own
├── CloudUnreachable       it did not answer
├── ActionFailed           what the API had begun went wrong
├── Cancelled              the engine asked to stop
└── InitializationFailed   the object exists, but what had to follow failed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ProviderError(Exception):
    """Any foreseeable failure; `str()` is the line that the engine shows."""


class InvalidConfiguration(ProviderError, ValueError):
    """The provider cannot be used as it is configured."""


class CloudError(ProviderError):
    """The API refused a request; rendered as `<message> (<code>, <correlation id>)`."""

    def __init__(self, *, code: int | str, message: str, correlation_id: str | None = None) -> None:
        detail = f"{code}, {correlation_id}" if correlation_id else f"{code}"
        super().__init__(f"{message} ({detail})")
        self.code = code


class CloudUnreachable(ProviderError, ConnectionError):
    """The API did not answer."""


class ActionFailed(ProviderError):
    """An action of the API ended in an error."""

    def __init__(self, *, command: str, code: str, message: str, action_id: int) -> None:
        super().__init__(f"action {command} failed: {message} ({code}, {action_id})")
        self.code = code


class Cancelled(ProviderError):
    """The engine asked to stop while this was under way."""


class InitializationFailed(ProviderError):
    """An object was made and must be in the state, though what had to follow failed."""

    def __init__(self, reason: str, *, object_id: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.object_id = object_id
        self.inputs = inputs
        self.outputs = outputs
