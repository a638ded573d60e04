"""How the nodes of a stack are: asked all at once, each by the way that a build would take, with a deadline."""

from __future__ import annotations

import socket
import ssl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builders import buildx, certificates, credentials
from builders.certificates import Authority
from builders.errors import BuildxFailed, NodeUnreachable
from builders.inventory import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builders.state import State

DEADLINE_S = 5.0
# An HTTP/2 client speaks first (RFC 9113, 3.4): its preface and an empty SETTINGS frame. The server answers with its own.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


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
    builders = [(builder, [node for node in nodes if node.name in up]) for builder, nodes in state.builders().builders]
    with ExitStack() as passing:
        asked = [
            _Asked(
                builder=builder,
                endpoint=node,
                version=up[node.name].buildkit_version,
                folder=_folder(builder, state, now, passing),
            )
            for builder, nodes in builders
            for node in nodes
        ]
        return Status(nodes=_ask(asked, now), connected={builder: _days(builder, now) for builder, _ in builders})


def of_machine(*, now: datetime) -> Status:
    """Ask the nodes of every builder that this machine is connected to."""
    with ThreadPoolExecutor() as pool:
        asked = [each for found in pool.map(_registered, credentials.builders()) for each in found]
    return Status(nodes=_ask(asked, now), connected={name: _days(name, now) for name in credentials.builders()})


def _registered(builder: str) -> list[_Asked]:
    try:
        nodes = buildx.find(builder) or ()
        versions = {node.name: node.version for node in buildx.status(builder, deadline_s=DEADLINE_S)} if nodes else {}
    except BuildxFailed:
        return []
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
    held = credentials.read(builder)
    if held and held.days_left(now) >= 0:
        return held.folder
    authority = Authority(certificate=state.output("authority"), key=state.output("authorityKey"))
    leaf = certificates.issue_client(authority, "status", now=now, days=1)
    folder = Path(passing.enter_context(tempfile.TemporaryDirectory(prefix="slipway-")))
    for name, content in (("ca.pem", authority.certificate), ("cert.pem", leaf.certificate), ("key.pem", leaf.key)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(content)
    return folder


def _days(builder: str, now: datetime) -> int | None:
    held = credentials.read(builder)
    return held.days_left(now) if held else None


def _ask(asked: list[_Asked], now: datetime) -> tuple[NodeStatus, ...]:
    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
        return tuple(pool.map(lambda each: _node(each, now), asked))


def _node(asked: _Asked, now: datetime) -> NodeStatus:
    days, error = None, None
    try:
        days = (probe(asked.endpoint.endpoint, asked.folder) - now).days
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


def probe(endpoint: str, folder: Path, *, deadline_s: float = DEADLINE_S) -> datetime:
    """Greet a node's buildkitd over mutual TLS and return when its certificate ends; raise NodeUnreachable with the reason."""
    host, port = _address(endpoint)
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), timeout=deadline_s) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            connection.sendall(_HELLO)
            # With TLS 1.3 a refused client certificate shows only here.
            if not connection.recv(9):
                raise NodeUnreachable("it closed the connection at once")
            ends = ssl.cert_time_to_seconds(str((connection.getpeercert() or {})["notAfter"]))
            return datetime.fromtimestamp(ends, UTC)
    except (OSError, ssl.SSLError) as error:
        raise NodeUnreachable(_reason(error)) from error


def _address(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or 0


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not this stack's ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"it refused this machine's certificate ({(error.reason or 'TLS').lower().replace('_', ' ')})"
    return (error.strerror or str(error)).lower()
