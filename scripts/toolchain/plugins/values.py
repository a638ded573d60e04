"""Pulumi's property values ⇄ plain Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime.rpc import UNKNOWN as _WIRE_UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable


class Unknown:
    """The value of an output that is not known before the resource exists."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, _memo: object) -> Unknown:
        return self


UNKNOWN: Final = Unknown()


def has_unknown(value: Any) -> bool:
    """Say whether a value is, or contains, one that is not known yet."""
    if isinstance(value, Mapping):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return value is UNKNOWN


def to_python(value: PropertyValue) -> Any:
    """Unwrap a property value; whole numbers become int, for the wire only knows floats."""
    raw = value.value
    if isinstance(raw, Mapping):
        return {key: to_python(item) for key, item in raw.items()}
    if isinstance(raw, str):
        # The experimental package knows the marker of an unknown value neither on the way in nor out.
        return UNKNOWN if raw == _WIRE_UNKNOWN else raw
    if isinstance(raw, Sequence):
        return [to_python(item) for item in raw if isinstance(item, PropertyValue)]
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    return raw


def to_property(value: Any) -> PropertyValue:
    """Wrap a Python value; what is None inside a mapping is left out, and what is wrapped already stays as it is."""
    if isinstance(value, PropertyValue):
        return value
    if value is UNKNOWN:
        return PropertyValue(_WIRE_UNKNOWN)
    if isinstance(value, Mapping):
        return PropertyValue(to_properties(value))
    if isinstance(value, (list, tuple)):
        return PropertyValue([to_property(item) for item in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return PropertyValue(float(value))
    return PropertyValue(value)


def to_properties(values: Mapping[str, Any], *, secret: Iterable[str] = ()) -> dict[str, PropertyValue]:
    """Wrap a mapping of properties, marking those named in `secret` beside what is marked already."""
    marked = frozenset(secret)
    wrapped = {name: to_property(value) for name, value in values.items() if value is not None}
    return {name: value.with_secret(is_secret=value.is_secret or name in marked) for name, value in wrapped.items()}


def from_properties(values: Mapping[str, PropertyValue]) -> dict[str, Any]:
    """Unwrap a mapping of properties; a null property is one that was left out."""
    return {name: plain for name, value in values.items() if (plain := to_python(value)) is not None}
