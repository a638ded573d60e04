"""The gRPC door: ask a buildkitd from here, over mutual TLS, whether it serves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from builders.errors import NodeNotReady

if TYPE_CHECKING:
    from builders.certificates import Leaf

_ATTEMPT_TIMEOUT_S = 5.0
_PAUSE_S = 0.25
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.initial_reconnect_backoff_ms", 250))


def check(
    node: str, address: str, *, authority_certificate: str, client: Leaf, port: int = 1234, deadline_s: float = 30
) -> None:
    """Wait until the node says that it serves; raise NodeNotReady with its last answer after the deadline."""
    credentials = grpc.ssl_channel_credentials(
        authority_certificate.encode(), client.key.encode(), client.certificate.encode()
    )
    target = f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"
    deadline = time.monotonic() + deadline_s
    with grpc.secure_channel(target, credentials, _OPTIONS) as channel:
        while True:
            answer = _ask(channel, min(_ATTEMPT_TIMEOUT_S, max(0.5, deadline - time.monotonic())))
            if answer is None:
                return
            if time.monotonic() > deadline:
                raise NodeNotReady(
                    f"node {node}: BuildKit at {address} port {port} does not serve after {deadline_s:.0f} s ({answer})",
                    hint="see that the firewall admits this machine's address to that port",
                )
            time.sleep(_PAUSE_S)


def _ask(channel: grpc.Channel, timeout_s: float) -> str | None:
    """Return what is wrong; None if nothing is."""
    try:
        response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except grpc.RpcError as error:
        return str(error.details()).rpartition("last error: ")[2]
    serving = response.status == health_pb2.HealthCheckResponse.SERVING
    return None if serving else f"it says {health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)}"
