"""Platforms of images and builders, in the words of OCI (linux/arm64) and of Hetzner (arm, x86)."""

from __future__ import annotations

from dataclasses import dataclass

from builders.errors import InvalidSetting

_ALIASES = {"aarch64": "arm64", "x86_64": "amd64", "x86-64": "amd64"}
_CLOUD_ARCHITECTURES = {"amd64": "x86", "arm64": "arm"}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system and an architecture that a builder runs natively."""

    os: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"

    @property
    def cloud_architecture(self) -> str:
        """Hetzner's word for it, as in `server_types[].architecture`."""
        return _CLOUD_ARCHITECTURES[self.architecture]


def parse_platform(text: str) -> Platform:
    """Read `linux/arm64`, `arm64`, `linux/arm64/v8`, `aarch64` …; raise InvalidSetting for what Hetzner cannot run."""
    os, _, rest = text.strip().lower().rpartition("/") if text.count("/") < 2 else text.strip().lower().partition("/")
    if text.count("/") == 2:
        rest = rest.removesuffix("/v8") if rest.startswith("arm64/") else rest.removesuffix("/v1")
    architecture = _ALIASES.get(rest, rest)
    if (os or "linux") != "linux" or architecture not in _CLOUD_ARCHITECTURES:
        raise InvalidSetting(f"platform {text!r}: no Hetzner server runs it natively, use linux/amd64 or linux/arm64")
    return Platform("linux", architecture)
