"""What a stack's exported state tells (pure): resources, outputs, unfinished operations, and what is not in it.

The export is read once per verb; whatever a verb wants to know of the stack is asked here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from builders.errors import StackFailed
from builders.inventory import Builders, Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from builders.hetzner import Kept

ID_LABEL = "slipway-id"
# Type tokens of the provider; the keys are the kinds of hetzner.Kept.
_TYPES = {
    "server": "hcloud:index/server:Server",
    "primary_ip": "hcloud:index/primaryIp:PrimaryIp",
    "firewall": "hcloud:index/firewall:Firewall",
    "ssh_key": "hcloud:index/sshKey:SshKey",
}
_KINDS = {token: kind for kind, token in _TYPES.items()}
_AUTHORITY = "pulumi-python:dynamic/slipway:Authority"
_DEPLOYMENT = "kubernetes:apps/v1:Deployment"
_BUILDX = "pulumi-python:dynamic/slipway:BuildxBuilder"
# In the outputs after an update of a part (pulumi up --target): what depends on a resource that was not made.
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_SIGNATURE = "4dabf18193072939515e22adb298388d"  # marks a special value in an export, here a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource on record; secrets in its properties are None unless the export showed them."""

    type: str
    name: str
    id: str
    protect: bool
    inputs: Mapping[str, Any] = field(repr=False)
    outputs: Mapping[str, Any] = field(repr=False)

    @property
    def kind(self) -> str | None:
        """The kind of hetzner.Kept, None for what is not in the Hetzner project."""
        return _KINDS.get(self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A stack's state at one moment."""

    resources: tuple[Resource, ...]
    pending: tuple[Resource, ...]  # of operations that were begun and never ended
    outputs: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `pulumi stack export` prints."""
        deployment = json.loads(text).get("deployment") or {}
        resources = tuple(_resource(each) for each in deployment.get("resources") or ())
        stack = next((each for each in resources if each.type == "pulumi:pulumi:Stack"), None)
        return cls(
            resources=resources,
            pending=tuple(_resource(each["resource"]) for each in deployment.get("pending_operations") or ()),
            outputs=stack.outputs if stack else {},
        )

    @property
    def identities(self) -> frozenset[str]:
        """The ids that mark this stack's resources in the Hetzner project: its authority's, and what its resources bear."""
        labels = (each.inputs.get("labels") for each in (*self.resources, *self.pending))
        borne = {found.get(ID_LABEL) for found in labels if isinstance(found, dict)}
        own = {each.outputs.get("identity") for each in self.resources if each.type == _AUTHORITY}
        return frozenset(identity for identity in borne | own if identity)

    @property
    def identity(self) -> str | None:
        """The stack's own id, None before its first `up` has ended."""
        found = self.outputs.get("id")
        return found if isinstance(found, str) else None

    @property
    def servers(self) -> frozenset[str]:
        """The ids of the servers on record."""
        return frozenset(each.id for each in self.resources if each.kind == "server")

    def in_cloud(self) -> tuple[Resource, ...]:
        """Return the resources that are in the Hetzner project."""
        return tuple(each for each in self.resources if each.kind)

    def orphans(self, existing: Iterable[Kept]) -> tuple[Kept, ...]:
        """Return what bears this stack's id but is not in the state, in the order in which it can be removed."""
        known = {(each.kind, each.id) for each in self.resources}
        orphans = [
            each
            for each in existing
            if each.labels.get(ID_LABEL) in self.identities and (each.kind, str(each.id)) not in known
        ]
        return tuple(sorted(orphans, key=lambda each: (list(_TYPES).index(each.kind), each.name)))

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes whose servers are there; the outputs alone may be those of a stack that was taken down."""
        return tuple(
            node
            for node in (Node.from_output(each) for each in self.outputs.get("nodes") or ())
            if node.address in self._addresses()
        )

    def builders(self) -> Builders:
        """Return the buildx builders with the endpoints that colleagues are given, whether servers are there or not."""
        told = self.outputs.get("builders") or {}
        return Builders.from_json({builder: nodes for builder, nodes in told.items() if nodes})

    def registered(self) -> tuple[str, ...]:
        """Return the names of the buildx builders that runs of this stack registered, finished or not."""
        names = [each.inputs.get("builder") for each in (*self.resources, *self.pending) if each.type == _BUILDX]
        return tuple(sorted({name for name in names if name} | {name for name, _ in self.builders().builders}))

    @property
    def registry(self) -> tuple[str, bool] | None:
        """The host of the registry that is on record on a cluster, and whether it is protected; None where there is none."""
        found = next((each for each in self.resources if each.type == _DEPLOYMENT), None)
        return (str(self.outputs.get("registry") or found.name), found.protect) if found else None

    @property
    def authority(self) -> str | None:
        """The certificate of the stack's authority, None before it has one."""
        found = (each.outputs.get("certificate") for each in self.resources if each.type == _AUTHORITY)
        return next((each for each in found if each), None)

    def output(self, name: str) -> str:
        """Return a text output; raise StackFailed where the stack has never come so far as to have it."""
        value = self.outputs.get(name)
        if not isinstance(value, str):
            raise StackFailed(f"the stack has no output {name!r} yet", hint="bring it up first: slipway up")
        return value

    def _addresses(self) -> set[str]:
        return set(_server_addresses(self.resources))


def _server_addresses(resources: Iterable[Resource]) -> Iterator[str]:
    for each in resources:
        if each.kind == "server":
            yield from (each.outputs[key] for key in ("ipv4Address", "ipv6Address") if each.outputs.get(key))


def _resource(record: Mapping[str, Any]) -> Resource:
    return Resource(
        type=record["type"],
        name=record["urn"].rpartition("::")[2],
        id=record.get("id", ""),
        protect=bool(record.get("protect")),
        inputs=_plain(record.get("inputs") or {}),
        outputs=_plain(record.get("outputs") or {}),
    )


def _plain(value: Any) -> Any:
    """Replace secrets by their plain values where the export shows them, by None where it does not; leave out what is unknown."""
    if isinstance(value, dict):
        if _SIGNATURE in value:
            return _plain(json.loads(value["plaintext"])) if "plaintext" in value else None
        return {key: _plain(each) for key, each in value.items() if each != _UNKNOWN}
    return [_plain(each) for each in value if each != _UNKNOWN] if isinstance(value, list) else value
