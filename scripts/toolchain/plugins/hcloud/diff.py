"""Diff: a program's inputs against the outputs in the state, so that drift shows after a refresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scripts.toolchain.plugins.hcloud.schema import ListOf, MapOf, Object, Property, Schema, Type
from scripts.toolchain.plugins.values import UNKNOWN, has_unknown

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One property that is not as the program wants it."""

    kind: Literal["add", "delete", "update"]
    replaces: bool
    hashed: bool
    """The state holds a digest of the value, so it cannot be shown beside the new one."""


def plan_changes(
    schema: Schema, *, outputs: Mapping[str, Any], inputs: Mapping[str, Any], ignored: Collection[str] = ()
) -> dict[str, Change]:
    """Return the changes by property, in the order of the schema."""
    changes = {}
    for name, item in schema.inputs().items():
        old, new = outputs.get(name), inputs.get(name)
        if name in ignored or _same_property(item, old, new):
            continue
        kind: Literal["add", "delete", "update"] = "delete" if new is None else "add" if old is None else "update"
        changes[name] = Change(kind=kind, replaces=item.replaces, hashed=item.kept_as is not None)
    return changes


def same(kind: Type, old: Any, new: Any) -> bool:
    """Compare two known values; nothing, false, zero and empty are the same thing to the API."""
    if not old and not new:
        return True
    match kind:
        case ListOf():
            return _same_list(kind, old or [], new or [])
        case MapOf():
            return bool((old or {}) == (new or {}))
        case Object() if isinstance(old, Mapping) and isinstance(new, Mapping):
            return all(
                _same_property(item, old.get(name), new.get(name))
                for name, item in kind.properties.items()
                if not item.computed
            )
        case _:
            return bool(old == new)


def _same_property(item: Property, old: Any, new: Any) -> bool:
    if new is None and item.filled:
        return True
    if new is UNKNOWN or has_unknown(new):
        return False
    if item.kept_as is not None and isinstance(new, str):
        # Old inputs take this way too when the program ignores changes.
        return old in {new, item.kept_as(new)}
    return same(item.type, old, new)


def _same_list(kind: ListOf, old: list[Any], new: list[Any]) -> bool:
    if len(old) != len(new):
        return False
    if kind.ordered:
        return all(same(kind.element, one, other) for one, other in zip(old, new, strict=True))
    left = list(old)
    for wanted in new:
        match = next((index for index, item in enumerate(left) if same(kind.element, item, wanted)), None)
        if match is None:
            return False
        del left[match]
    return True
