"""The Hetzner Cloud API: the table of all calls, and the one place where HTTP meets them.

A handler is a plain function of the cloud and the call, run in one transaction: it is answered when its changes are on
disk, and an error leaves nothing changed. What takes time it begins as an action.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from scripts.localcloud.api import (
    actions,
    catalog,
    firewalls,
    images,
    networks,
    networks_of_servers,
    placement_groups,
    primary_ips,
    server_actions,
    servers,
    ssh_keys,
    volumes,
)
from scripts.localcloud.api.call import Call
from scripts.localcloud.api.gate import PREFIX, Gate, json_response, refusal
from scripts.localcloud.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from scripts.localcloud.actions import Work
    from scripts.localcloud.api.call import Handler, Routes
    from scripts.localcloud.cloud import Cloud

log = logging.getLogger(__name__)


def routes() -> Routes:
    """Give every call of the API; in the same place a fixed word comes before `{id}`."""
    table = {
        **ssh_keys.routes(),
        **firewalls.routes(),
        **networks.routes(),
        **placement_groups.routes(),
        **primary_ips.routes(),
        **volumes.routes(),
        **images.routes(),
        **servers.routes(),
        **server_actions.routes(),
        **networks_of_servers.routes(),
        **actions.routes(),
        **catalog.routes(),
    }
    return dict(sorted(table.items(), key=lambda entry: entry[0].partition(" ")[2].replace("{", "~")))


def work() -> dict[str, Work]:
    """Give what every action does."""
    return {
        **firewalls.work(),
        **networks.work(),
        **primary_ips.work(),
        **volumes.work(),
        **server_actions.work(),
        **networks_of_servers.work(),
    }


def make_app(cloud: Cloud) -> Starlette:
    """Serve the API of a cloud."""
    handlers: dict[str, dict[str, Handler]] = {}
    for key, handler in routes().items():
        method, path = key.split(" ")
        handlers.setdefault(path, {})[method] = handler
    table = [
        Route(PREFIX + path, _endpoint(cloud, by_method), methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        for path, by_method in handlers.items()
    ]
    unknown = Route("/{path:path}", _unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    return Starlette(routes=[*table, unknown], middleware=[Middleware(Gate, cloud=cloud)])


def _endpoint(cloud: Cloud, by_method: dict[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        handler = by_method.get(request.method)
        if handler is None:
            return refusal(ApiError("method_not_allowed", f"method {request.method} is not allowed here"))
        try:
            query = request.query_params.multi_items()
            call = Call(path=request.path_params, query=query, body=await request.body())
            return _carry_out(cloud, handler, call)
        except ApiError as exc:
            return refusal(exc)
        except Exception:
            log.exception("%s %s", request.method, request.url.path)
            return refusal(ApiError("server_error", "the local cloud failed; its log says why"))

    return endpoint


def _carry_out(cloud: Cloud, handler: Handler, call: Call) -> Response:
    try:
        with cloud.store.transaction():
            reply = handler(cloud, call)
    except BaseException:
        cloud.actions.drop()
        raise
    cloud.actions.launch()
    return json_response(reply.status, reply.body)


async def _unknown(request: Request) -> Response:
    return refusal(ApiError("not_found", f"no such call: {request.method} {request.url.path}"))
