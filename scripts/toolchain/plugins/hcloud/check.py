"""Check: coerce a program's inputs to the schema, fill in defaults, make a name."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.hcloud.schema import ListOf, MapOf, Object, Property, Scalar, Schema, Type
from scripts.toolchain.plugins.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULTS = "__defaults"
"""The input that names which other inputs check filled in, as the vendor's provider writes it."""

_NAMES = {str: "a string", int: "an integer", bool: "a boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is wrong with one input."""

    path: str
    reason: str


def check_inputs(
    schema: Schema,
    *,
    logical_name: str,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any],
    seed: bytes = b"",
) -> tuple[dict[str, Any], tuple[Failure, ...]]:
    """Return the inputs that the engine shall use from now on, and everything that is wrong with them."""
    failures: list[Failure] = []
    known = {name: value for name, value in new.items() if name not in {DEFAULTS, "id"}}
    checked = _check_object(schema.inputs(), known, path="", failures=failures, strict=schema.strict)
    defaults: list[str] = []
    if schema.auto_named and "name" not in checked:
        checked["name"] = _kept_name(old or {}) or auto_name(logical_name, seed)
        defaults.append("name")
    checked[DEFAULTS] = defaults
    return checked, tuple(failures)


def auto_name(logical_name: str, seed: bytes) -> str:
    """Make a name that no earlier object has; the same seed gives the same name, so that up keeps what preview showed."""
    digits = hashlib.sha256(seed).hexdigest()[:7] if seed else secrets.token_hex(4)[:7]
    return f"{logical_name}-{digits}"


def _kept_name(old: Mapping[str, Any]) -> str | None:
    name = old.get("name")
    return name if isinstance(name, str) and "name" in old.get(DEFAULTS, ()) else None


def _check_object(
    properties: Mapping[str, Property],
    values: Mapping[str, Any],
    *,
    path: str,
    failures: list[Failure],
    strict: bool = True,
) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name in properties:
            checked[name] = _check_property(properties[name], value, path=f"{path}{name}", failures=failures)
        elif strict and name != DEFAULTS:
            failures.append(Failure(path=f"{path}{name}", reason="Invalid or unknown key"))
    for name, item in properties.items():
        if name in checked:
            continue
        if item.required:
            failures.append(Failure(path=f"{path}{name}", reason=f"Missing required argument: {name}"))
        elif item.default is not None:
            checked[name] = list(item.default) if isinstance(item.default, tuple) else item.default
    return checked


def _check_property(item: Property, value: Any, *, path: str, failures: list[Failure]) -> Any:
    before = len(failures)
    coerced = _check_type(item.type, value, path=path, failures=failures)
    if item.check is None or coerced is UNKNOWN or len(failures) > before:
        return coerced
    problem = item.check(coerced)
    if problem is not None:
        failures.append(Failure(path=path, reason=problem))
    return coerced


def _check_type(kind: Type, value: Any, *, path: str, failures: list[Failure]) -> Any:
    if value is UNKNOWN:
        return value
    match kind:
        case Scalar():
            return _coerce(kind, value, path=path, failures=failures)
        case ListOf() if isinstance(value, list):
            return [
                _check_type(kind.element, item, path=f"{path}[{index}]", failures=failures)
                for index, item in enumerate(value)
            ]
        case MapOf() if isinstance(value, Mapping):
            return {
                key: _check_type(kind.element, item, path=f"{path}.{key}", failures=failures)
                for key, item in value.items()
                if key != DEFAULTS
            }
        case Object() if isinstance(value, Mapping):
            return _check_object(kind.properties, value, path=f"{path}.", failures=failures)
        case _:
            expected = "a list" if isinstance(kind, ListOf) else "an object"
            failures.append(Failure(path=path, reason=f"expected {expected}, got {_describe(value)}"))
            return value


def _coerce(kind: Scalar, value: Any, *, path: str, failures: list[Failure]) -> Any:
    """Convert between the scalars as Terraform does: "12" → 12, "true" → true, 2 → "2"."""
    if type(value) is kind.kind:
        return value
    if kind.kind is str and isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind.kind is int and isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    if kind.kind is bool and value in ("true", "false"):
        return value == "true"
    # The value itself stays out of the message: it may be a secret.
    failures.append(Failure(path=path, reason=f"expected {_NAMES[kind.kind]}, got {_describe(value)}"))
    return value


def _describe(value: Any) -> str:
    names: Sequence[tuple[type, str]] = (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a fraction"),
        (str, "a string that is none"),
        (list, "a list"),
        (Mapping, "an object"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "nothing")
