"""The control port: what no real cloud offers. Faults, stock, clock, rate limit, speed, history, bill, reset."""

from __future__ import annotations

from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from scripts.localcloud import bill, catalog
from scripts.localcloud.api.gate import PREFIX, json_response, refusal
from scripts.localcloud.errors import ApiError
from scripts.localcloud.faults import ActionFault, DelayFault, ErrorFault, Fault, Stock
from scripts.localcloud.records import Mark, Meter
from scripts.localcloud.store import CLOCK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from scripts.localcloud.cloud import Cloud
    from scripts.localcloud.faults import Entry

    Answer = Callable[[Cloud, Request, bytes], Awaitable[Response]]


METHODS = ("GET", "POST", "PUT", "DELETE")
HORIZON = timedelta(days=36525)
"""How far the clock may be moved: behind the year 9999 nothing can be told, and a bill counts hours."""


def routes() -> dict[str, Answer]:
    """Give the knobs; the first line of each docstring is shown by `GET /`."""
    return {
        "GET /": show_knobs,
        "GET /faults": show_faults,
        "POST /faults": order_fault,
        "DELETE /faults": clear_faults,
        "DELETE /faults/{number:int}": clear_fault,
        "GET /stock": show_stock,
        "PUT /stock": set_stock,
        "DELETE /stock": clear_stock,
        "GET /clock": show_clock,
        "PUT /clock": set_clock,
        "GET /rate_limit": show_rate_limit,
        "PUT /rate_limit": set_rate_limit,
        "GET /speed": show_speed,
        "PUT /speed": set_speed,
        "GET /limits": show_limits,
        "PUT /limits": set_limits,
        "GET /history": show_history,
        "DELETE /history": clear_history,
        "GET /bill": show_bill,
        "POST /reset": reset,
    }


class SetClock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /clock: one of the two."""

    now: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    advance_s: float | None = None


class SetRateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /rate_limit; what is left out stays."""

    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    refill_per_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    remaining: Annotated[float, msgspec.Meta(ge=0)] | None = None


class SetSpeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /speed."""

    action_factor: Annotated[float, msgspec.Meta(ge=0)]


def make_app(cloud: Cloud) -> Starlette:
    """Serve the control port of a cloud."""
    table = [_route(cloud, key, answer) for key, answer in routes().items()]
    return Starlette(routes=table)


async def show_knobs(_: Cloud, __: Request, ___: bytes) -> Response:
    """List the knobs."""
    return _json({key: (answer.__doc__ or "").partition("\n")[0] for key, answer in routes().items()})


async def show_faults(cloud: Cloud, _: Request, __: bytes) -> Response:
    """List the faults that are ordered and how often each has struck."""
    entries = [entry for entry in cloud.faults.entries if not isinstance(entry.fault, Stock)]
    return _json({"faults": [_entry_json(entry) for entry in entries]})


async def order_fault(cloud: Cloud, _: Request, body: bytes) -> Response:
    """Order a fault of kind error, delay, action or machine."""
    fault: Fault = _decode(body, Fault)
    if problem := _never_strikes(cloud, fault):
        raise ApiError("invalid_input", problem)
    return _json({"fault": _entry_json(cloud.faults.add(fault))}, status=201)


async def clear_faults(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Take all faults back."""
    cloud.faults.entries = [entry for entry in cloud.faults.entries if isinstance(entry.fault, Stock)]
    return _json({"faults": []})


async def clear_fault(cloud: Cloud, request: Request, _: bytes) -> Response:
    """Take one fault back."""
    number = request.path_params["number"]
    if not cloud.faults.remove(number):
        raise ApiError("not_found", f"fault {number} not found")
    return _json({})


async def show_stock(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Show what is ordered of the stock, and the hint per type and location."""
    entries = [entry for entry in cloud.faults.entries if isinstance(entry.fault, Stock)]
    hints = {
        each.name: {location: cloud.faults.available(each.name, location) for location in each.locations}
        for each in catalog.SERVER_TYPES
    }
    return _json({"stock": [_entry_json(entry) for entry in entries], "available": hints})


async def set_stock(cloud: Cloud, _: Request, body: bytes) -> Response:
    """Set what is in stock: the hint (`available`) and what an order gets (`order`), each on its own."""
    stock: Stock = _decode(body, Stock)
    offers = [(each.name, location) for each in catalog.SERVER_TYPES for location in each.locations]
    if not any(fnmatchcase(name, stock.server_type) and fnmatchcase(place, stock.location) for name, place in offers):
        raise ApiError("invalid_input", f"no server type '{stock.server_type}' is offered at '{stock.location}'")
    if stock.available is None and stock.order is None:
        raise ApiError("invalid_input", "give available, order or both")
    return _json({"stock": _entry_json(cloud.faults.add(stock))})


async def clear_stock(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Put everything back in stock."""
    cloud.faults.entries = [entry for entry in cloud.faults.entries if not isinstance(entry.fault, Stock)]
    return _json({"stock": []})


async def show_clock(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Show the cloud's time."""
    return _json({"now": cloud.clock.now().isoformat(), "offset_s": cloud.clock.offset.total_seconds()})


async def set_clock(cloud: Cloud, request: Request, body: bytes) -> Response:
    """Set the cloud's time (`now`) or move it on (`advance_s`); timestamps and the bill follow."""
    wanted = _decode(body, SetClock)
    if (wanted.now is None) == (wanted.advance_s is None):
        raise ApiError("invalid_input", "give either now or advance_s")
    try:
        moment = wanted.now or cloud.clock.now() + timedelta(seconds=wanted.advance_s or 0)
        is_near = abs(moment - cloud.clock.host()) < HORIZON
    except OverflowError:
        is_near = False
    if not is_near:
        raise ApiError("invalid_input", "the cloud's time may be a century away from the host's, and no more")
    cloud.clock.set(moment)
    with cloud.store.transaction():
        cloud.store.put(Mark(id=CLOCK, value=cloud.clock.offset.total_seconds()))
    return await show_clock(cloud, request, body)


async def show_rate_limit(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Show the rate limit and what is left of it."""
    cloud.rate_limit.refill(cloud.clock.now().timestamp())
    limit = cloud.rate_limit
    return _json({"limit": limit.limit, "refill_per_s": limit.refill_per_s, "remaining": limit.left})


async def set_rate_limit(cloud: Cloud, request: Request, body: bytes) -> Response:
    """Set the rate limit, how fast it refills, or what is left of it."""
    wanted = _decode(body, SetRateLimit)
    cloud.rate_limit.refill(cloud.clock.now().timestamp())
    if wanted.limit is not None:
        cloud.rate_limit.limit = cloud.rate_limit.left = wanted.limit
    if wanted.refill_per_s is not None:
        cloud.rate_limit.refill_per_s = wanted.refill_per_s
    if wanted.remaining is not None:
        cloud.rate_limit.left = wanted.remaining
    return await show_rate_limit(cloud, request, body)


async def show_speed(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Show how long actions take, as a factor."""
    return _json({"action_factor": cloud.actions.factor})


async def set_speed(cloud: Cloud, request: Request, body: bytes) -> Response:
    """Set how long actions take: 1 is like the vendor, 0 as fast as the machines are."""
    cloud.actions.factor = _decode(body, SetSpeed).action_factor
    return await show_speed(cloud, request, body)


async def show_limits(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Show how many resources the project may have."""
    return _json(cloud.limits)


async def set_limits(cloud: Cloud, _: Request, body: bytes) -> Response:
    """Set how many resources the project may have, by kind."""
    wanted = _decode(body, dict[str, Annotated[int, msgspec.Meta(ge=0)]])
    if unknown := [name for name in wanted if name not in cloud.limits]:
        raise ApiError("invalid_input", f"no limit is called '{unknown[0]}' (one of {', '.join(cloud.limits)})")
    cloud.limits |= wanted
    return _json(cloud.limits)


async def show_history(cloud: Cloud, request: Request, _: bytes) -> Response:
    """Show the calls to the API: `?method=!GET&path=/servers*&since=12`; counted, and how many were writes."""
    query = request.query_params
    since = query.get("since", "0")
    if not since.isdecimal():
        raise ApiError("invalid_input", f"since: '{since}' is not a number")
    return _json(cloud.history.select(method=query.get("method", "*"), path=query.get("path", "*"), since=int(since)))


async def clear_history(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Forget the calls so far."""
    cloud.history.entries.clear()
    return _json({})


async def show_bill(cloud: Cloud, request: Request, _: bytes) -> Response:
    """Show the bill until now, as text or with `?format=json` (or `Accept: application/json`)."""
    made = bill.make_bill(cloud.store.all(Meter), cloud.clock.now())
    wants_json = "application/json" in request.headers.get("accept", "")
    if request.query_params.get("format", "json" if wants_json else "text") == "json":
        return _json(bill.to_json(made))
    return PlainTextResponse(bill.to_text(made))


async def reset(cloud: Cloud, _: Request, __: bytes) -> Response:
    """Delete every machine, record, fault and the history, and set clock, limits and speed back."""
    await cloud.reset()
    return _json({})


def _route(cloud: Cloud, key: str, answer: Answer) -> Route:
    method, path = key.split(" ")

    async def endpoint(request: Request) -> Response:
        try:
            return await answer(cloud, request, await request.body())
        except ApiError as exc:
            return refusal(exc)

    return Route(path, endpoint, methods=[method])


def _decode(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.DecodeError as exc:
        raise ApiError("invalid_input", str(exc)) from exc


def _never_strikes(cloud: Cloud, fault: Fault) -> str | None:
    """Say what is wrong with a pattern that nothing can match."""
    if isinstance(fault, ActionFault) and not any(fnmatchcase(each, fault.command) for each in cloud.actions.work):
        return f"no action is called '{fault.command}' (one of {', '.join(cloud.actions.work)})"
    if isinstance(fault, ErrorFault | DelayFault):
        if not any(fnmatchcase(method, fault.method) for method in METHODS):
            return f"no call has the method '{fault.method}' (one of {', '.join(METHODS)})"
        if not fault.path.startswith(("/", "*", "?", "[")) or fault.path.startswith(f"{PREFIX}/"):
            return f"no call has the path '{fault.path}' (such as /servers*, without {PREFIX})"
    return None


def _entry_json(entry: Entry) -> dict[str, Any]:
    builtins = msgspec.to_builtins(entry.fault)
    return {**builtins, "number": entry.number, "left": entry.left, "struck": entry.struck}


def _json(body: dict[str, Any], *, status: int = 200) -> Response:
    return json_response(status, body)
