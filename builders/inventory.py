"""The nodes of a stack, as its outputs tell them, and the bundle that a colleague is given (pure)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from builders.errors import InvalidSetting
from builders.platforms import Platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILDKIT_PORT = 1234
BUNDLE_VERSION = 1


def endpoint(address: str) -> str:
    """Return where buildx reaches the node at `address`, an IPv4 or IPv6 address."""
    return f"tcp://[{address}]:{BUILDKIT_PORT}" if ":" in address else f"tcp://{address}:{BUILDKIT_PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One buildkitd and the server under it; field names are the keys of the stack's output `nodes`."""

    name: str
    platform: str
    address: str
    endpoint: str
    host_key: str
    certificate_expires: str  # ISO 8601, UTC
    buildkit_version: str
    server_type: str
    location: str

    @classmethod
    def from_output(cls, output: Mapping[str, Any]) -> Self:
        """Read one element of the output; keys of a later version are ignored."""
        return cls(**{field.name: str(output[field.name]) for field in fields(cls)})

    def to_output(self) -> dict[str, str]:
        """Return the element of the output."""
        return asdict(self)

    @property
    def parsed_platform(self) -> Platform:
        """Return the platform as a value."""
        return parse_platform(self.platform)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a client of a node must know of it."""

    name: str
    endpoint: str
    platform: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Builders:
    """The buildx builders of a stack: each name with the nodes that it joins, one per platform."""

    builders: tuple[tuple[str, tuple[Endpoint, ...]], ...]

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read `{builder: [{name, endpoint, platform}]}`."""
        return cls(
            builders=tuple(
                (
                    builder,
                    tuple(
                        Endpoint(**{field.name: _text(node[field.name]) for field in fields(Endpoint)})
                        for node in nodes
                    ),
                )
                for builder, nodes in value.items()
            )
        )

    def to_json(self) -> dict[str, list[dict[str, str]]]:
        """Return what `from_json` reads."""
        return {builder: [asdict(node) for node in nodes] for builder, nodes in self.builders}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """All that a colleague needs to build on a stack's nodes, their private key included: hand it over in private."""

    name: str
    builders: Builders
    authority: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return f"Bundle({self.name!r})"

    def to_text(self) -> str:
        """Return the file's content."""
        return (
            json.dumps(
                {
                    "slipway-bundle": BUNDLE_VERSION,
                    "name": self.name,
                    "builders": self.builders.to_json(),
                    "authority": self.authority,
                    "certificate": self.certificate,
                    "key": self.key,
                },
                indent=1,
            )
            + "\n"
        )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a bundle; raise InvalidSetting for anything else."""
        try:
            value = json.loads(text)
            version = value["slipway-bundle"]
            if version == BUNDLE_VERSION:
                return cls(
                    name=_text(value["name"]),
                    builders=Builders.from_json(value["builders"]),
                    authority=_text(value["authority"]),
                    certificate=_text(value["certificate"]),
                    key=_text(value["key"]),
                )
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise InvalidSetting(
                "bundle: this is no file that `slipway invite` wrote", hint="ask for a new one: slipway invite NAME"
            ) from error
        raise InvalidSetting(f"bundle: version {version} is not known, update slipway")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    return value
