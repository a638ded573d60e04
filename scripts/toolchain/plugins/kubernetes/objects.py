"""Kubernetes objects as plain values (pure): names, annotations, what is applied, what is recorded, what differs."""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.values import UNKNOWN

if TYPE_CHECKING:
    from scripts.toolchain.plugins.kubernetes.kinds import Kind

AUTONAMED = "pulumi.com/autonamed"
SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
PROPAGATION = "pulumi.com/deletionPropagationPolicy"
PATCH_FORCE = "pulumi.com/patchForce"
FIELD_MANAGER = "pulumi.com/patchFieldManager"
NOT_COVERED = ("pulumi.com/waitFor", "pulumi.com/replaceUnready")
PROPAGATIONS = ("foreground", "background", "orphan")

OF_THE_STATE = ("__inputs", "__fieldManager", "__initialApiVersion")
_OF_THE_SERVER = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")


def annotation(inputs: Mapping[str, Any], name: str) -> str:
    """Return an annotation's text, empty where there is none."""
    value = _mapping(_mapping(inputs.get("metadata")).get("annotations")).get(name)
    return value if isinstance(value, str) else ""


def is_autonamed(inputs: Mapping[str, Any]) -> bool:
    """Tell whether check made the name."""
    return annotation(inputs, AUTONAMED) == "true"


def complete(
    kind: Kind, new: Mapping[str, Any], *, old: Mapping[str, Any], name: str, namespace: str
) -> dict[str, Any]:
    """Fill in what a program left out: kind, version, namespace, and a name: the one of before, or else `name`."""
    filled = {**copy.deepcopy(dict(new)), "apiVersion": kind.api_version, "kind": kind.name}
    metadata = filled["metadata"] = dict(_mapping(new.get("metadata")))
    if kind.namespaced and not metadata.get("namespace"):
        metadata["namespace"] = namespace
    if not metadata.get("name"):
        kept = _mapping(old.get("metadata")).get("name") if is_autonamed(old) else None
        metadata["name"] = kept or name
        metadata["annotations"] = {**_mapping(metadata.get("annotations")), AUTONAMED: "true"}
    return filled


def problems(kind: Kind, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return what can be known to be wrong without the server, by path."""
    found = {}
    for key, wanted in (("apiVersion", kind.api_version), ("kind", kind.name)):
        if inputs.get(key, wanted) not in {wanted, UNKNOWN}:
            found[key] = f"this resource is a {kind.name} of {kind.api_version}"
    for name in NOT_COVERED:
        if annotation(inputs, name):
            found[f"metadata.annotations[{name}]"] = "not covered by this provider"
    timeout = annotation(inputs, TIMEOUT_SECONDS)
    if timeout and not timeout.isdecimal():
        found[f"metadata.annotations[{TIMEOUT_SECONDS}]"] = "expected a number of seconds"
    propagation = annotation(inputs, PROPAGATION)
    if propagation and propagation.lower() not in PROPAGATIONS:
        found[f"metadata.annotations[{PROPAGATION}]"] = f"expected one of {', '.join(PROPAGATIONS)}"
    return found


def to_apply(kind: Kind, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that is sent: the inputs without what is null, a Secret's text as data, no status."""
    body: dict[str, Any] = _without_nulls({key: value for key, value in inputs.items() if not key.startswith("__")})
    body.pop("status", None)
    is_text = isinstance(body.get("stringData"), Mapping) and isinstance(body.get("data", {}), Mapping)
    if kind.name == "Secret" and is_text:
        # The server turns text into data and the field manager would own a field that is not there.
        text = body.pop("stringData")
        body["data"] = {**body.get("data", {}), **{key: _to_data(value) for key, value in text.items()}}
    return {**body, "apiVersion": kind.api_version, "kind": kind.name}


def to_inputs(live: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that would make an object as it is: for one that is imported."""
    inputs = {key: copy.deepcopy(value) for key, value in live.items() if key not in {"status", *OF_THE_STATE}}
    metadata = inputs["metadata"] = dict(_mapping(live.get("metadata")))
    for name in _OF_THE_SERVER:
        metadata.pop(name, None)
    return inputs


def to_outputs(kind: Kind, live: Mapping[str, Any], *, field_manager: str) -> dict[str, Any]:
    """Return what the state records of an object beside its inputs."""
    metadata = {key: value for key, value in _mapping(live.get("metadata")).items() if key != "managedFields"}
    return {
        **copy.deepcopy(dict(live)),
        "metadata": metadata,
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "__fieldManager": field_manager,
        "__initialApiVersion": kind.api_version,
    }


def planned(kind: Kind, inputs: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the outputs of an object that is yet to be made or changed: what the server fills in is unknown, or as it was."""
    outputs = {**copy.deepcopy(dict(inputs)), "apiVersion": kind.api_version, "kind": kind.name}
    for path in kind.computed:
        *parents, last = path.split(".")
        place: Any = outputs
        then: Any = state
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else None
            then = _mapping(then).get(parent)
        if isinstance(place, dict):  # otherwise it is not known yet, or for the server to refuse
            if state is None:
                place.setdefault(last, UNKNOWN)
            elif last in _mapping(then):
                place.setdefault(last, _mapping(then)[last])
    return outputs


def reference(inputs: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return namespace and name."""
    metadata = _mapping(inputs.get("metadata"))
    return metadata.get("namespace"), metadata.get("name", "")


def identity(namespace: str | None, name: str) -> str:
    """Return a resource's id: namespace/name, or the name alone of what has no namespace."""
    return f"{namespace}/{name}" if namespace else name


def parse_identity(kind: Kind, text: str, namespace: str) -> tuple[str | None, str]:
    """Read a resource's id; one without a namespace means the provider's."""
    given, _, name = text.rpartition("/")
    return (given or namespace) if kind.namespaced else None, name


def changed_paths(old: Any, new: Any, *, at: str = "") -> dict[str, str]:
    """Return how two values differ: path → add, delete or update; lists of the same length are compared item by item."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, str] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            place = _join(at, key)
            if old.get(key) is None and new.get(key) is None:
                continue
            if old.get(key) is None or new.get(key) is None:
                found[place] = "add" if old.get(key) is None else "delete"
            else:
                found |= changed_paths(old[key], new[key], at=place)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return {
            path: how
            for index, (one, other) in enumerate(zip(old, new, strict=True))
            for path, how in changed_paths(one, other, at=f"{at}[{index}]").items()
        }
    return {} if old == new else {at: "update"}


def _join(path: str, key: str) -> str:
    """Write a property path as the engine reads it: a key with dots in it stands in brackets."""
    if any(sign in key for sign in './[]" '):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def _to_data(value: Any) -> Any:
    # What is no text the server refuses in its own words.
    return base64.b64encode(value.encode()).decode() if isinstance(value, str) else value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
