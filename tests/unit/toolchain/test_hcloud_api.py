"""The door to the API, over a socket."""

from __future__ import annotations

import asyncio
import http.server
import threading

import pytest

from scripts.toolchain.plugins.hcloud.api import Api
from scripts.toolchain.plugins.hcloud.configuration import Configuration
from scripts.toolchain.plugins.hcloud.errors import CloudUnreachable


@pytest.fixture(name="website")
def _website():
    """Serve pages where somebody expects an API: one that is there, and one that is not."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = b"<html>Welcome</html>"
            self.send_response(200 if self.path.startswith("/welcome") else 404)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("path", "status"), [("/welcome", "200 OK"), ("/v1", "404 Not Found")])
def test_what_is_not_the_api_is_told_by_its_address(website, path, status):
    """A page for an answer is no missing object, which would be dropped from the state, and says where to look."""
    api = Api(Configuration(token="t" * 64, endpoint=website + path))

    with pytest.raises(CloudUnreachable) as told:
        asyncio.run(api.find("/servers/1", "server"))

    assert str(told.value) == (
        f"{website}{path}: no answer of the Hetzner Cloud API ({status}); check hcloud:endpoint and the network"
    )
