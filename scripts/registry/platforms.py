"""Platforms, and when two of them are the same: containerd's rules (platforms/database.go), Windows versions included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.registry.errors import InvalidReference

if TYPE_CHECKING:
    from collections.abc import Mapping

_OS_ALIASES = {"macos": "darwin"}
# What is written → architecture, and the variant where none is given.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""), "i386": ("386", ""),
    "armhf": ("arm", "v7"), "armel": ("arm", "v6"), "arm": ("arm", "v7"),
}  # fmt: skip
_NAMES = ("os", "architecture", "variant", "os.version")
_PLAIN_VARIANTS = {("amd64", "v1"), ("arm64", "v8"), ("arm64", "8")}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """A normalized platform; two are equal if and only if an image for one replaces an image for the other."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = "/".join(filter(None, (self.os, self.architecture, self.variant)))
        return f"{name} ({self.os_version})" if self.os_version else name

    def __bool__(self) -> bool:
        return bool(self.os and self.architecture)


def normalize(
    os: str, architecture: str, variant: str = "", os_version: str = "", os_features: tuple[str, ...] = ()
) -> Platform:
    """Return the platform under its usual name; versions and features tell Windows images apart, and no others."""
    os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
    os = _OS_ALIASES.get(os, os)
    architecture, default = _ARCHITECTURES.get(architecture, (architecture, ""))
    if architecture == "arm":
        variant = f"v{variant}" if variant.isdigit() else variant or default
    elif (architecture, variant) in _PLAIN_VARIANTS:
        variant = ""
    if os != "windows":
        os_version, os_features = "", ()
    return Platform(os, architecture, variant, os_version, tuple(sorted(os_features)))


def from_json(found: Mapping[str, Any]) -> Platform:
    """Read a descriptor's `platform` or an image configuration, which use the same names (image-spec, image-index.md)."""
    features = found.get("os.features")
    os, architecture, variant, version = (str(found.get(name) or "") for name in _NAMES)
    return normalize(
        os, architecture, variant, version, tuple(map(str, features)) if isinstance(features, list) else ()
    )


def parse(text: str) -> Platform:
    """Read what a user types: linux/arm64, linux/arm/v7, arm64."""
    parts = text.strip().split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(parts):
        raise InvalidReference(f"platform {text!r}: say OS/ARCHITECTURE[/VARIANT], as in linux/arm64")
    os, architecture, variant = (*parts, "")[:3]
    return normalize(os, architecture, variant)
