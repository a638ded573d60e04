"""What the protocol and the HTTP door say to each other: requests and responses as values."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read by dataclass tools at run time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to the registry; `path` is as in /v2/app/manifests/latest."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the registry answered; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
