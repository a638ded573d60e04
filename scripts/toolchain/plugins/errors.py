"""What a provider reports to the engine instead of a result; each provider has leaves of its own beside these.

ProviderError
├── InvalidConfiguration   the provider cannot be used as it is configured
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


class Cancelled(ProviderError):
    """The engine asked to stop while this was under way."""


class InitializationFailed(ProviderError):
    """An object is there and must be in the state, though what had to follow failed."""

    def __init__(self, reason: str, *, object_id: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.object_id = object_id
        self.inputs = inputs
        self.outputs = outputs
