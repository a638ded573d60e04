"""Labels and label selectors: their syntax and what a selector finds. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<verb>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL = re.compile(r"(?P<key>[^\s=!]+)\s*(?P<verb>==|=|!=)\s*(?P<value>[^\s=!]*)")


class InvalidSelector(ValueError):
    """The text is no label selector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One part of a selector: `wanted` says whether the label must be there (with one of `values`, or any) or must not."""

    key: str
    wanted: bool
    values: frozenset[str] | None = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Tell whether the labels meet this requirement; a label that is absent meets `!=` and `notin`."""
        present = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return present is self.wanted


def is_key(key: str) -> bool:
    """Tell whether a label may have this key."""
    prefix, slash, name = key.rpartition("/")
    return bool(_NAME.fullmatch(name)) and (not slash or bool(_PREFIX.fullmatch(prefix)))


def is_value(value: str) -> bool:
    """Tell whether a label may have this value."""
    return not value or bool(_NAME.fullmatch(value))


def label_problems(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Say what is wrong with each label; nothing when all are well formed."""
    problems = [f"key '{key}' is not a valid label key" for key in labels if not is_key(key)]
    problems += [f"key '{key}' uses the reserved prefix hetzner.cloud/" for key in labels if _reserved(key)]
    problems += [f"value '{value}' of key '{key}' is not valid" for key, value in labels.items() if not is_value(value)]
    return tuple(problems)


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """Parse `k==v,!k2,k3 in (a,b)`; all parts must hold.

    Example:
        >>> parse_selector("env in (a,b)")[0].holds({"env": "b"})
        True

    """
    if not text.strip():
        raise InvalidSelector("label selector is empty")
    return tuple(_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", text))


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a selector finds these labels."""
    return all(requirement.holds(labels) for requirement in parse_selector(selector))


def _reserved(key: str) -> bool:
    prefix = key.rpartition("/")[0]
    return prefix == "hetzner.cloud" or prefix.endswith(".hetzner.cloud")


def _requirement(part: str) -> Requirement:
    if found := _SET.fullmatch(part):
        values = frozenset(value.strip() for value in found["values"].split(","))
        requirement = Requirement(key=found["key"], wanted=found["verb"] == "in", values=values)
    elif found := _EQUAL.fullmatch(part):
        requirement = Requirement(key=found["key"], wanted=found["verb"] != "!=", values=frozenset({found["value"]}))
    else:
        requirement = Requirement(key=part.removeprefix("!").strip(), wanted=not part.startswith("!"))
    if not is_key(requirement.key) or not all(is_value(value) for value in requirement.values or ()):
        raise InvalidSelector(f"label selector '{part}' is not valid")
    return requirement
