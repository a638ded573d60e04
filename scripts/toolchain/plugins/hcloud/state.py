"""What goes into the state besides what the API tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.hcloud.diff import same
from scripts.toolchain.plugins.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.toolchain.plugins.hcloud.schema import Schema


def planned_outputs(schema: Schema, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs of an object that is yet to be made: what the API will fill in is unknown."""
    outputs: dict[str, Any] = schema.keep(inputs)
    for name, item in schema.properties.items():
        if item.computed or (item.filled and outputs.get(name) is None):
            outputs[name] = UNKNOWN
    return outputs


def known_after(schema: Schema, *, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known after an update without asking: new inputs, and old outputs where nothing was asked for."""
    known: dict[str, Any] = schema.keep(new)
    for name, item in schema.inputs().items():
        if item.filled and known[name] is None:
            known[name] = old.get(name)
    return known


def refreshed_inputs(schema: Schema, *, old: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a program would need to describe an object as it is now.

    Inputs that still hold stay as they were written; an object that is imported gets all that say something.
    """
    properties = schema.inputs()
    if not old:
        return {name: outputs[name] for name, item in properties.items() if outputs.get(name) and not item.kept_as}
    inputs = dict(old)
    for name in old.keys() & properties.keys():
        item = properties[name]
        if item.kept_as is None and not same(item.type, outputs.get(name), old[name]):
            inputs[name] = outputs.get(name)
    return inputs
