"""The gRPC door: ask a buildkitd from here, over mutual TLS, whether it serves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from builders import credentials, greeting, inventory
from builders.errors import NodeNotReady, NodeUnreachable

if TYPE_CHECKING:
    from pathlib import Path

    from builders.certificates import Leaf
    from builders.credentials import Held

_ATTEMPT_TIMEOUT_S = 5.0
_PAUSE_S = 0.25
_OPTIONS = (("grpc.enable_http_proxy", 0),)


def check(node: str, address: str, *, authority_certificate: str, client: Leaf, deadline_s: float = 30) -> None:
    """Wait until the node says that it serves; raise NodeNotReady with the last reason after the deadline."""
    endpoint = inventory.endpoint(address)
    tls = grpc.ssl_channel_credentials(authority_certificate.encode(), client.key.encode(), client.certificate.encode())
    deadline = time.monotonic() + deadline_s
    with credentials.lent(authority_certificate, client) as folder:
        while True:
            reason = _ask(endpoint, folder, tls, min(_ATTEMPT_TIMEOUT_S, max(0.5, deadline - time.monotonic())))
            if reason is None:
                return
            if time.monotonic() > deadline:
                raise NodeNotReady(
                    f"node {node}: BuildKit at {endpoint} does not serve after {deadline_s:.0f} s ({reason})",
                    hint="see that the firewall admits this machine's address to that port",
                )
            time.sleep(_PAUSE_S)


def problem(endpoint: str, held: Held, *, timeout_s: float) -> str | None:
    """Ask once, with the credentials that this machine holds; return what is wrong, None if nothing is."""
    tls = grpc.ssl_channel_credentials(held.authority.encode(), held.leaf.key.encode(), held.leaf.certificate.encode())
    return _ask(endpoint, held.folder, tls, timeout_s)


def _ask(endpoint: str, folder: Path, tls: grpc.ChannelCredentials, timeout_s: float) -> str | None:
    """Return what is wrong; None if nothing is."""
    try:
        # It tells apart what gRPC calls UNAVAILABLE and logs to stderr.
        greeting.greet(endpoint, folder, deadline_s=timeout_s)
    except NodeUnreachable as error:
        return str(error)
    with grpc.secure_channel(endpoint.removeprefix("tcp://"), tls, _OPTIONS) as channel:
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            return str(error.details()).rpartition("last error: ")[2]
    serving = response.status == health_pb2.HealthCheckResponse.SERVING
    return None if serving else f"it says {health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)}"
