"""The process: API, control port and metadata in one event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from scripts.localcloud import api, control, metadata
from scripts.localcloud.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from scripts.localcloud.hypervisor import Hypervisor
    from scripts.localcloud.records import Server
    from scripts.localcloud.settings import Settings


class PortTaken(OSError):
    """A port that the server needs is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a local cloud is found and how it lets a client in."""

    endpoint: str
    control: str
    token: str


def run(settings: Settings, hypervisor: Hypervisor, metadata_socket: socket.socket | None = None) -> None:
    """Serve until SIGTERM or SIGINT; machines run on. `PortTaken` and `StoreFailed` say in a line why it cannot."""
    asyncio.run(_serve(settings, hypervisor, metadata_socket))


@contextmanager
def background(settings: Settings, hypervisor: Hypervisor) -> Iterator[Address]:
    """Serve from a thread of this process, for tests; port 0 takes any free port."""
    started = threading.Event()
    loop: asyncio.AbstractEventLoop | None = None
    found: Address | None = None
    quit_: Callable[[], None] | None = None
    failure: BaseException | None = None

    def on_ready(address: Address, stop: Callable[[], None]) -> None:
        nonlocal loop, found, quit_
        loop, found, quit_ = asyncio.get_running_loop(), address, stop
        started.set()

    def serve() -> None:
        nonlocal failure
        try:
            asyncio.run(_serve(settings, hypervisor, None, on_ready))
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that waits
            failure = exc
        finally:
            started.set()

    thread = threading.Thread(target=serve, name="localcloud", daemon=True)
    thread.start()
    started.wait()
    if found is None or loop is None or quit_ is None:
        raise failure or RuntimeError("the local cloud did not start")
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(quit_)
        thread.join()
    if failure:
        raise failure


async def _serve(
    settings: Settings,
    hypervisor: Hypervisor,
    metadata_socket: socket.socket | None,
    on_ready: Callable[[Address, Callable[[], None]], None] | None = None,
) -> None:
    api_socket = _listen(settings.host, settings.port, "--port")
    control_socket = _listen(settings.host, settings.control_port, "--control-port")
    cloud = Cloud(settings, hypervisor, api.work())
    servers = [
        (_Server(_config(api.make_app(cloud))), api_socket),
        (_Server(_config(control.make_app(cloud))), control_socket),
    ]
    if metadata_socket:
        servers.append((_Server(_config(metadata_app(cloud))), metadata_socket))

    def quit_() -> None:
        for server, _ in servers:
            server.should_exit = True

    if on_ready is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, quit_)
    await cloud.open()
    tasks = [asyncio.create_task(server.serve(sockets=[listening])) for server, listening in servers]
    if on_ready:
        host = settings.host
        address = Address(
            endpoint=f"http://{host}:{api_socket.getsockname()[1]}/v1",
            control=f"http://{host}:{control_socket.getsockname()[1]}",
            token=settings.tokens[0],
        )
        on_ready(address, quit_)
    try:
        await asyncio.gather(*tasks)
    finally:
        await cloud.close()


def metadata_app(cloud: Cloud) -> Starlette:
    """Serve what a server is told about itself; who asks is told by the address it asks from."""

    async def user_data(request: Request) -> Response:
        server = _asking(cloud, request)
        return PlainTextResponse(server.user_data) if server else _no_server()

    async def values(request: Request) -> Response:
        server = _asking(cloud, request)
        if server is None:
            return _no_server()
        text = metadata.tree(cloud, server).get(request.path_params.get("path", "").strip("/"))
        return PlainTextResponse("not found\n", status_code=404) if text is None else PlainTextResponse(text)

    return Starlette(
        routes=[
            Route("/hetzner/v1/userdata", user_data),
            Route("/hetzner/v1/metadata", values),
            Route("/hetzner/v1/metadata/{path:path}", values),
        ]
    )


def _asking(cloud: Cloud, request: Request) -> Server | None:
    return metadata.find_server(cloud, request.client.host) if request.client else None


def _no_server() -> Response:
    return PlainTextResponse("no server has this address\n", status_code=404)


class _Server(uvicorn.Server):
    """Leaves signals to us: several servers share the loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
    )


def _listen(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named asyncio switches Nagle off; without, every answer would wait 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as exc:
        listening.close()
        raise PortTaken(f"{host}:{port}: cannot listen ({exc.strerror}); choose another with {option}") from exc
    return listening
