"""Greet a buildkitd over mutual TLS, as buildx would: does it let us in, and if not, why."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builders.errors import NodeUnreachable

if TYPE_CHECKING:
    from pathlib import Path

# An HTTP/2 client speaks first (RFC 9113, 3.4): its preface and an empty SETTINGS frame. The server answers with its own.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

_NOT_NOW = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's x509_vfy.h


def greet(endpoint: str, folder: Path, *, deadline_s: float = 5) -> datetime:
    """Greet a node's buildkitd over mutual TLS and return when its certificate ends; raise NodeUnreachable with the reason."""
    host, port = _address(endpoint)
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:
        raise NodeUnreachable("this machine's certificate is gone or damaged, connect again") from error
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=deadline_s) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            # With TLS 1.3 a refused client certificate shows only now; the reason is what can be read, though the node has hung up.
            with suppress(OSError):
                connection.sendall(_HELLO)
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
        if error.verify_code in _NOT_NOW:
            return f"its {error.verify_message}"
        return f"its certificate is not this stack's ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"it refused this machine's certificate ({(error.reason or error.strerror or str(error)).lower().replace('_', ' ')})"
    return (error.strerror or str(error)).lower()
