"""What the provider reports of the Hetzner API instead of a result.

ProviderError
├── CloudError             the API answered with an error; `code` is its own
├── CloudUnreachable       it did not answer
└── ActionFailed           what the API had begun went wrong
"""

from __future__ import annotations

from scripts.toolchain.plugins.errors import ProviderError


class CloudError(ProviderError):
    """The API refused a request; rendered as `<message> (<code>, <correlation id>)`."""

    def __init__(self, *, code: str, message: str, correlation_id: str | None = None) -> None:
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
