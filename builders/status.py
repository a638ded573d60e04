"""How the nodes of a stack are: asked all at once, each by the way that a build would take, with a deadline."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from builders import buildx, certificates, credentials, greeting, registration
from builders.certificates import Authority
from builders.errors import BuildxFailed, NodeUnreachable
from builders.inventory import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from builders.credentials import Held
    from builders.state import State

DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node of one builder; `error` says why it cannot be reached."""

    builder: str
    node: str
    platform: str
    endpoint: str
    reachable: bool
    buildkit: str | None
    certificate_days_left: int | None
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All nodes, and for how many days this machine may still build on each builder (None: it is not connected)."""

    nodes: tuple[NodeStatus, ...]
    connected: Mapping[str, int | None]

    def to_json(self) -> dict[str, Any]:
        """Return what `slipway status --format json` prints."""
        return {
            "nodes": [node.to_json() for node in self.nodes],
            "builders": [{"name": name, "days_left": days} for name, days in self.connected.items()],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    builder: str
    endpoint: Endpoint
    version: str | None
    folder: Path  # of the certificates to come with


def of_stack(state: State, *, now: datetime) -> Status:
    """Ask the nodes of a stack whose secrets can be read; a machine that is not connected asks with a passing certificate."""
    up = {node.name: node for node in state.nodes()}
    builders = dict(state.builders().builders)
    with ExitStack() as passing, ThreadPoolExecutor() as pool:
        connected = pool.map(lambda each: _days(each, builders[each], state, now), builders)  # beside the nodes
        asked = []
        for builder, nodes in builders.items():
            if there := [node for node in nodes if node.name in up]:
                folder = _folder(builder, state, now, passing)
                asked += [
                    _Asked(builder=builder, endpoint=node, version=up[node.name].buildkit_version, folder=folder)
                    for node in there
                ]
        return Status(nodes=_ask(asked, now), connected=dict(zip(builders, connected, strict=True)))


def of_machine(*, now: datetime) -> Status:
    """Ask the nodes of every builder that this machine is connected to; raise BuildxFailed where buildx does not tell them."""
    held = credentials.builders()
    with ThreadPoolExecutor() as pool:
        registered = dict(zip(held, pool.map(_registered, held), strict=True))
    asked = [each for found in registered.values() for each in found]
    connected = {
        builder: each.days_left(now) if found and (each := credentials.read(builder)) else None
        for builder, found in registered.items()
    }
    return Status(nodes=_ask(asked, now), connected=connected)


def _registered(builder: str) -> list[_Asked]:
    nodes = buildx.find(builder) or ()
    versions: dict[str, str | None] = {}
    with suppress(BuildxFailed):  # the nodes are asked all the same
        versions = {node.name: node.version for node in buildx.status(builder, deadline_s=DEADLINE_S)} if nodes else {}
    return [
        _Asked(
            builder=builder,
            endpoint=Endpoint(name=node.name, endpoint=node.endpoint, platform=str(node.platform)),
            version=versions.get(node.name),
            folder=credentials.folder(builder),
        )
        for node in nodes
    ]


def _folder(builder: str, state: State, now: datetime, passing: ExitStack) -> Path:
    held = _held(builder, state)
    if held and held.days_left(now) > 0:
        return held.folder
    authority = Authority(certificate=state.output("authority"), key=state.output("authorityKey"))
    leaf = certificates.issue_client(authority, "status", now=now, days=1)
    return passing.enter_context(credentials.lent(authority.certificate, leaf))


def _held(builder: str, state: State) -> Held | None:
    """Return what this machine holds for the stack's builder; None too where it is another stack's of the same name."""
    held = credentials.read(builder)
    return held if held and held.is_of(state.output("authority")) else None


def _days(builder: str, nodes: Sequence[Endpoint], state: State, now: datetime) -> int | None:
    """Tell for how many days this machine may build on these nodes; None where buildx here does not have them."""
    held = _held(builder, state)
    try:
        return held.days_left(now) if held and registration.is_registered(builder, nodes) else None
    except BuildxFailed:
        return None


def _ask(asked: list[_Asked], now: datetime) -> tuple[NodeStatus, ...]:
    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
        return tuple(pool.map(lambda each: _node(each, now), asked))


def _node(asked: _Asked, now: datetime) -> NodeStatus:
    days, error = None, None
    try:
        days = certificates.days_left(greeting.greet(asked.endpoint.endpoint, asked.folder, deadline_s=DEADLINE_S), now)
    except NodeUnreachable as failure:
        error = str(failure)
    return NodeStatus(
        builder=asked.builder,
        node=asked.endpoint.name,
        platform=asked.endpoint.platform,
        endpoint=asked.endpoint.endpoint,
        reachable=error is None,
        buildkit=asked.version,
        certificate_days_left=days,
        error=error,
    )
