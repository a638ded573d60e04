"""A way to a registry on loopback that counts requests and bytes, and can be long, cut or changed.

It works on the bytes of plain HTTP/1.1 without pipelining, as all registry clients speak it: what a client sends after it
had an answer is a request.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_HEAD = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (\S+) HTTP/1\.1\r\n")
_CHUNK_BYTES = 1 << 16


class Cut(Exception):
    """Raised by a hook: break the connection, and let the request not through."""


@dataclass
class Proxy:
    """A listening port on loopback. `round_trip_s` is added to every exchange and to every new connection.

    `before` sees each request's first bytes before they go on and returns what goes on instead; `after` is called when the
    request has been answered and before the client has the answer. Both are told its number, from 1. Either may raise Cut.
    """

    target: str
    round_trip_s: float = 0.0
    before: Callable[[int, bytes], bytes] = lambda _n, head: head
    after: Callable[[int, bytes], None] = lambda _n, _head: None
    requests: list[str] = field(default_factory=list)
    up_bytes: int = 0
    down_bytes: int = 0

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def reset(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self.requests.clear()
            self.up_bytes = self.down_bytes = 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        host, port = self.target.split(":")
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            client.close()
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        later: queue.Queue[tuple[float, bytes] | None] = queue.Queue()
        under_way: list[tuple[int, bytes]] = []
        threading.Thread(target=self._deliver, args=(later, server, client), daemon=True).start()
        threading.Thread(target=self._answer, args=(server, client, under_way), daemon=True).start()
        opened = time.monotonic() + self.round_trip_s  # a handshake takes a round trip too
        try:
            while data := client.recv(_CHUNK_BYTES):
                found = _HEAD.match(data)
                if found:
                    with self._lock:
                        self.requests.append(f"{found[1].decode()} {found[2].decode()}")
                        number = len(self.requests)
                    under_way.append((number, data))
                    data = self.before(number, data)
                with self._lock:
                    self.up_bytes += len(data)
                later.put((max(time.monotonic(), opened) + self.round_trip_s, data))
                opened = 0.0
        except (OSError, Cut):
            _close(client, server)
        later.put(None)

    @staticmethod
    def _deliver(later: queue.Queue[tuple[float, bytes] | None], server: socket.socket, client: socket.socket) -> None:
        """Pass on what the client says, each part at its time."""
        try:
            while (part := later.get()) is not None:
                if (wait_s := part[0] - time.monotonic()) > 0:
                    time.sleep(wait_s)
                server.sendall(part[1])
            server.shutdown(socket.SHUT_WR)
        except OSError:
            _close(client, server)

    def _answer(self, server: socket.socket, client: socket.socket, under_way: list[tuple[int, bytes]]) -> None:
        try:
            while data := server.recv(_CHUNK_BYTES):
                while under_way:
                    self.after(*under_way.pop(0))
                with self._lock:
                    self.down_bytes += len(data)
                client.sendall(data)
        except (OSError, Cut):
            pass
        _close(client, server)


def _close(*sockets: Any) -> None:
    for each in sockets:
        try:
            cast("socket.socket", each).shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
        finally:
            each.close()
