"""The provider's own configuration: five keys, checked without a call."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scripts.toolchain.plugins.errors import InvalidConfiguration
from scripts.toolchain.plugins.hcloud.check import Failure
from scripts.toolchain.plugins.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = ("endpoint", "endpointHetzner", "pollFunction", "pollInterval", "token")
_ENGINE_KEYS = frozenset({"version", "pluginDownloadURL", "__internal", "__defaults"})
_TOKEN_LENGTH = 64
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Where the API is, as whom, and how actions are polled."""

    token: str
    endpoint: str = "https://api.hetzner.cloud/v1"
    poll_function: Literal["constant", "exponential"] = "exponential"
    poll_interval_s: float = 0.5

    def __repr__(self) -> str:
        return f"Configuration(endpoint={self.endpoint!r}, token=[secret])"


def check_configuration(inputs: Mapping[str, Any]) -> tuple[Failure, ...]:
    """Return what is wrong with the configuration as the engine hands it over."""
    failures = []
    for name, value in inputs.items():
        if name in _ENGINE_KEYS or value is UNKNOWN:
            continue
        problem = _problem(name, value)
        if problem is not None:
            failures.append(Failure(path=name, reason=problem))
    return tuple(failures)


def load_configuration(inputs: Mapping[str, Any], environment: Mapping[str, str]) -> Configuration:
    """Join configuration and environment; the configuration wins."""
    values = {
        "token": environment.get("HCLOUD_TOKEN"),
        "endpoint": environment.get("HCLOUD_ENDPOINT"),
        **{name: value for name, value in inputs.items() if name in KEYS and value != ""},
    }
    values = {name: value for name, value in values.items() if value}
    if "token" not in values:
        raise InvalidConfiguration(
            "no Hetzner Cloud API token: run `pulumi config set --secret hcloud:token TOKEN` or set HCLOUD_TOKEN"
        )
    for name, value in values.items():
        problem = _problem(name, value)
        if problem is not None:
            raise InvalidConfiguration(f"hcloud:{name}: {problem}")
    known = {"token": values["token"]}
    if "endpoint" in values:
        known["endpoint"] = values["endpoint"].rstrip("/")
    if "pollFunction" in values:
        known["poll_function"] = values["pollFunction"]
    if "pollInterval" in values:
        known["poll_interval_s"] = parse_duration(values["pollInterval"])
    return Configuration(**known)


def parse_duration(text: str) -> float:
    """Read a duration as Go writes it, "500ms" or "1m30s", in seconds."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _problem(name: str, value: Any) -> str | None:
    if name not in KEYS:
        return f"Invalid or unknown key; the keys are {', '.join(KEYS)}"
    if not isinstance(value, str):
        return "expected a string"
    match name:
        case "token" if len(value) != _TOKEN_LENGTH:
            return "entered token is invalid (must be exactly 64 characters long)"
        case "token" if not value.isascii() or not value.isprintable():
            return "entered token is invalid (holds a character that no token has)"
        case "endpoint" | "endpointHetzner" if not value.startswith(("http://", "https://")):
            return "expected an address like https://api.hetzner.cloud/v1"
        case "pollFunction" if value not in {"constant", "exponential"}:
            return "expected one of constant, exponential"
        case "pollInterval":
            try:
                parse_duration(value)
            except ValueError:
                return 'expected a duration like "500ms"'
    return None
