"""A host that tells who comes to it, and that tries to come back: GET /seen and GET /back?host=ADDRESS."""

from __future__ import annotations

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Witness(BaseHTTPRequestHandler):
    """Answers on every address of its host."""

    def do_GET(self) -> None:
        """Tell the caller's address, or whether a host can be reached from here."""
        asked = urlsplit(self.path)
        body = self.client_address[0].removeprefix("::ffff:")
        if asked.path == "/back":
            body = _try(parse_qs(asked.query)["host"][0].strip("[]"))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def _try(host: str) -> str:
    try:
        socket.create_connection((host, 8000), timeout=1.5).close()
    except OSError:
        return "closed"
    return "open"


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


_Server(("::", int(sys.argv[1])), Witness).serve_forever()
