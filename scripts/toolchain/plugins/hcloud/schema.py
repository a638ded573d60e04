"""The table that check and diff are driven by: which properties a resource has, and how each behaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value."""

    kind: type
    """str, int or bool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """A list; where the API keeps a set, its order means nothing."""

    element: Type
    ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf:
    """Free keys."""

    element: Type


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """Fixed keys."""

    properties: Mapping[str, Property]


Type = Scalar | ListOf | MapOf | Object

STRING = Scalar(kind=str)
INTEGER = Scalar(kind=int)
BOOLEAN = Scalar(kind=bool)
LABELS = MapOf(element=STRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One property of a resource or of a nested object."""

    type: Type
    required: bool = False
    replaces: bool = False
    """A change makes a new object."""
    computed: bool = False
    """An output only; naming it as an input is refused."""
    filled: bool = False
    """The API fills it when it is left out, so leaving it out is no change."""
    default: Any = None
    """What check fills in."""
    check: Check | None = None
    """Says what is wrong with a known value, or None."""
    kept_as: Callable[[str], str] | None = None
    """How the state keeps a value that it must not hold in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """All properties of one resource."""

    name: str
    properties: Mapping[str, Property]
    strict: bool = True
    """Whether a property it does not have is refused; the vendor's newer resources drop it silently."""

    @property
    def token(self) -> str:
        """Return the resource's type as the engine names it."""
        return f"hcloud:index/{self.name[0].lower()}{self.name[1:]}:{self.name}"

    @property
    def auto_named(self) -> bool:
        """Say whether a name is made up when the program gives none."""
        return "name" in self.properties

    def inputs(self) -> Mapping[str, Property]:
        """Return what a program may set."""
        return {name: item for name, item in self.properties.items() if not item.computed}

    def keep(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs as the state's outputs hold them."""
        kept = {}
        for name, item in self.inputs().items():
            value = inputs.get(name)
            kept[name] = item.kept_as(value) if item.kept_as and isinstance(value, str) else value
        return kept


def text(**behaviour: Any) -> Property:
    """Declare a string."""
    return Property(type=STRING, **behaviour)


def integer(**behaviour: Any) -> Property:
    """Declare a whole number."""
    return Property(type=INTEGER, **behaviour)


def boolean(**behaviour: Any) -> Property:
    """Declare a truth value."""
    return Property(type=BOOLEAN, **behaviour)


def array(element: Type, *, ordered: bool = False, **behaviour: Any) -> Property:
    """Declare a list, unordered unless said otherwise."""
    return Property(type=ListOf(element=element, ordered=ordered), **behaviour)


def labels(*, filled: bool = False) -> Property:
    """Declare the labels of an object."""
    return Property(type=LABELS, filled=filled)


def choice(*allowed: str) -> Check:
    """Make a check that a value is one of a few words."""

    def check(value: Any) -> str | None:
        return None if value in allowed else f"expected one of {', '.join(allowed)}"

    return check
