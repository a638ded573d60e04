"""/networks: private networks and their subnets."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scripts.localcloud.actions import Work
from scripts.localcloud.api.call import (
    Call,
    Reply,
    Routes,
    action_json,
    begun,
    check_labels,
    check_name,
    created,
    listing,
    no_content,
    ok,
    timestamp,
)
from scripts.localcloud.catalog import NETWORK_ZONES
from scripts.localcloud.errors import ApiError, in_use, invalid_input, protected
from scripts.localcloud.records import Action, Network, Resource, Route, Subnet

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud

PRIVATE = tuple(ipaddress.IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
SMALLEST, SUBNET_SMALLEST, AUTOMATIC = 24, 30, 24
"""Prefix lengths: the smallest network, the smallest subnet, a subnet whose range was left out."""
MAX_ROUTES = 100


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /networks": list_networks,
        "POST /networks": create,
        "GET /networks/{id}": get,
        "PUT /networks/{id}": update,
        "DELETE /networks/{id}": delete,
        "POST /networks/{id}/actions/add_subnet": add_subnet,
        "POST /networks/{id}/actions/delete_subnet": delete_subnet,
        "POST /networks/{id}/actions/add_route": add_route,
        "POST /networks/{id}/actions/delete_route": delete_route,
        "POST /networks/{id}/actions/change_ip_range": change_ip_range,
        "POST /networks/{id}/actions/change_protection": change_protection,
    }


def work() -> dict[str, Work]:
    """Give what the actions of this resource do: change the record, no machine."""
    return {
        "add_subnet": Work(seconds=1, settle=_settle_add_subnet),
        "delete_subnet": Work(seconds=1, settle=_settle_delete_subnet),
        "add_route": Work(seconds=1, settle=_settle_add_route),
        "delete_route": Work(seconds=1, settle=_settle_delete_route),
        "change_ip_range": Work(seconds=1, settle=_settle_ip_range),
    }


class SubnetBody(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet of a body."""

    type: Literal["cloud", "server", "vswitch"]
    network_zone: str
    ip_range: str | None = None
    vswitch_id: int | None = None


class RouteBody(msgspec.Struct, frozen=True, kw_only=True):
    """A route of a body."""

    destination: str
    gateway: str


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a creation."""

    name: str
    ip_range: str
    subnets: list[SubnetBody] | None = None
    routes: list[RouteBody] | None = None
    expose_routes_to_vswitch: bool | None = None
    labels: dict[str, str] | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    name: str | None = None
    expose_routes_to_vswitch: bool | None = None
    labels: dict[str, str] | None = None


class RangeBody(msgspec.Struct, frozen=True, kw_only=True):
    """Body of delete_subnet and change_ip_range."""

    ip_range: str


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_protection."""

    delete: bool | None = None


def list_networks(cloud: Cloud, call: Call) -> Reply:
    """List networks."""
    return listing(call, "networks", cloud.store.all(Network), lambda network: to_json(cloud, network))


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one network."""
    return ok(network=to_json(cloud, _find(cloud, call)))


def create(cloud: Cloud, call: Call) -> Reply:
    """Make a network, with subnets and routes where asked."""
    body = call.decode(Create)
    labels, ip_range = check_labels(body.labels), _private(body.ip_range)
    check_name("network", body.name, cloud.store.all(Network))
    cloud.check_limit("networks", Network)
    network = Network(
        id=cloud.store.next_id(),
        name=body.name,
        ip_range=str(ip_range),
        subnets=(),
        routes=(),
        expose_routes_to_vswitch=bool(body.expose_routes_to_vswitch),
        protected=False,
        labels=labels,
        created=cloud.clock.now(),
    )
    for subnet in body.subnets or ():
        network = replace(network, subnets=(*network.subnets, _subnet(network, subnet)))
    for route in body.routes or ():
        network = replace(network, routes=(*network.routes, _route(network, route)))
    return created(network=to_json(cloud, cloud.store.put(network)))


def update(cloud: Cloud, call: Call) -> Reply:
    """Change name, labels or exposure."""
    network, body = _find(cloud, call), call.decode(Update)
    if body.name is not None:
        check_name("network", body.name, cloud.store.all(Network), but=network.id)
        network = replace(network, name=body.name)
    if body.labels is not None:
        network = replace(network, labels=check_labels(body.labels))
    if body.expose_routes_to_vswitch is not None:
        network = replace(network, expose_routes_to_vswitch=body.expose_routes_to_vswitch)
    return ok(network=to_json(cloud, cloud.store.put(network)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Remove a network; servers in it are detached beside the call."""
    network = _free(cloud, call)
    if network.protected:
        raise protected("network", "deletion")
    for server in cloud.members(network.id):
        resources = Resource(type="server", id=server.id), _resource(network)
        cloud.actions.begin("detach_from_network", *resources, network=network.id)
    cloud.store.remove(network)
    return no_content()


def add_subnet(cloud: Cloud, call: Call) -> Reply:
    """Add a subnet; the range is chosen when it is left out."""
    network = _free(cloud, call)
    subnet = _subnet(network, call.decode(SubnetBody))
    return begun(cloud, cloud.actions.begin("add_subnet", _resource(network), **msgspec.to_builtins(subnet)))


def delete_subnet(cloud: Cloud, call: Call) -> Reply:
    """Remove a subnet that no server is in."""
    network, body = _free(cloud, call), call.decode(RangeBody)
    if body.ip_range not in [subnet.ip_range for subnet in network.subnets]:
        raise invalid_input(("ip_range", f"subnet {body.ip_range} is not in network {network.name}"))
    inside = ipaddress.ip_network(body.ip_range)
    places = [place for server in cloud.members(network.id) for place in server.private_net]
    if any(place.network == network.id and ipaddress.ip_address(place.ip) in inside for place in places):
        raise in_use(f"subnet {body.ip_range} still has servers attached")
    return begun(cloud, cloud.actions.begin("delete_subnet", _resource(network), ip_range=body.ip_range))


def add_route(cloud: Cloud, call: Call) -> Reply:
    """Add a route."""
    network = _free(cloud, call)
    route = _route(network, call.decode(RouteBody))
    return begun(cloud, cloud.actions.begin("add_route", _resource(network), **msgspec.to_builtins(route)))


def delete_route(cloud: Cloud, call: Call) -> Reply:
    """Remove a route."""
    network, body = _free(cloud, call), call.decode(RouteBody)
    if Route(destination=body.destination, gateway=body.gateway) not in network.routes:
        raise invalid_input(("destination", f"route to {body.destination} is not in network {network.name}"))
    return begun(cloud, cloud.actions.begin("delete_route", _resource(network), **msgspec.to_builtins(body)))


def change_ip_range(cloud: Cloud, call: Call) -> Reply:
    """Enlarge a network; it can never shrink."""
    network, body = _free(cloud, call), call.decode(RangeBody)
    if not ipaddress.IPv4Network(network.ip_range).subnet_of(_private(body.ip_range)):
        raise invalid_input(("ip_range", f"must contain the present range {network.ip_range}"))
    return begun(cloud, cloud.actions.begin("change_ip_range", _resource(network), ip_range=body.ip_range))


def change_protection(cloud: Cloud, call: Call) -> Reply:
    """Protect against deletion, or no longer."""
    network, body = _find(cloud, call), call.decode(Protection)
    if body.delete is not None:
        cloud.store.put(replace(network, protected=body.delete))
    return created(action=action_json(cloud, cloud.actions.at_once("change_protection", _resource(network))))


def to_json(cloud: Cloud, network: Network) -> dict[str, Any]:
    """Write a network in wire form."""
    return {
        "id": network.id,
        "name": network.name,
        "ip_range": network.ip_range,
        "subnets": [
            {
                "type": subnet.type,
                "ip_range": subnet.ip_range,
                "network_zone": subnet.network_zone,
                "gateway": gateway(network),
                "vswitch_id": subnet.vswitch_id,
            }
            for subnet in network.subnets
        ],
        "routes": [{"destination": route.destination, "gateway": route.gateway} for route in network.routes],
        "servers": [server.id for server in cloud.members(network.id)],
        "load_balancers": [],
        "expose_routes_to_vswitch": network.expose_routes_to_vswitch,
        "protection": {"delete": network.protected},
        "labels": network.labels,
        "created": timestamp(network.created),
    }


def gateway(network: Network) -> str:
    """Give the first address of a network: the router's."""
    return str(ipaddress.IPv4Network(network.ip_range)[1])


def _find(cloud: Cloud, call: Call) -> Network:
    return cloud.find(Network, "network", call.id())


def _free(cloud: Cloud, call: Call) -> Network:
    network = _find(cloud, call)
    if cloud.actions.locks(_resource(network)):
        # Not "locked", as with servers: a client repeats what finds a network in change.
        raise ApiError("conflict", f"network {network.name} is being changed")
    return network


def _resource(network: Network) -> Resource:
    return Resource(type="network", id=network.id)


def _private(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as exc:
        raise invalid_input(("ip_range", f"'{text}' is not a valid IPv4 range in CIDR notation")) from exc
    if network.prefixlen > SMALLEST or not any(network.subnet_of(each) for each in PRIVATE):
        raise invalid_input(("ip_range", f"'{text}' is not within a private range or smaller than a /{SMALLEST}"))
    return network


def _subnet(network: Network, body: SubnetBody) -> Subnet:
    if body.network_zone not in NETWORK_ZONES:
        raise invalid_input(("network_zone", f"network zone '{body.network_zone}' not found"))
    if (body.type == "vswitch") != (body.vswitch_id is not None):
        raise invalid_input(("vswitch_id", "is required for type vswitch, and only for it"))
    whole, taken = ipaddress.IPv4Network(network.ip_range), [ipaddress.IPv4Network(s.ip_range) for s in network.subnets]
    if body.ip_range is None:
        new = next((each for each in whole.subnets(new_prefix=AUTOMATIC) if not any(map(each.overlaps, taken))), None)
        if new is None:
            raise invalid_input(("ip_range", "the network has no room left"))
    else:
        try:
            new = ipaddress.IPv4Network(body.ip_range)
        except ValueError as exc:
            raise invalid_input(("ip_range", f"'{body.ip_range}' is not a valid IPv4 range")) from exc
    if not new.subnet_of(whole) or new.prefixlen > SUBNET_SMALLEST:
        raise invalid_input(("ip_range", f"{new} is not within {whole} or smaller than a /{SUBNET_SMALLEST}"))
    if any(map(new.overlaps, taken)):
        raise invalid_input(("ip_range", f"{new} overlaps with another subnet"))
    kind = "cloud" if body.type == "server" else body.type
    return Subnet(type=kind, ip_range=str(new), network_zone=body.network_zone, vswitch_id=body.vswitch_id)


def _route(network: Network, body: RouteBody) -> Route:
    try:
        destination, via = ipaddress.IPv4Network(body.destination), ipaddress.IPv4Address(body.gateway)
    except ValueError as exc:
        raise invalid_input(("destination", str(exc))) from exc
    whole = ipaddress.IPv4Network(network.ip_range)
    if via not in whole or str(via) == gateway(network):
        raise invalid_input(("gateway", f"{via} is not an address of {whole} that a server can have"))
    if any(route.destination == str(destination) for route in network.routes) or len(network.routes) >= MAX_ROUTES:
        raise invalid_input(("destination", f"there is a route to {destination}, or there are {MAX_ROUTES} already"))
    return Route(destination=str(destination), gateway=str(via))


def _of(cloud: Cloud, action: Action) -> Network:
    return cloud.find(Network, "network", action.resources[0].id)


def _settle_add_subnet(cloud: Cloud, action: Action) -> None:
    network, subnet = _of(cloud, action), msgspec.convert(action.arguments, Subnet)
    kept = tuple(each for each in network.subnets if each != subnet)
    cloud.store.put(replace(network, subnets=(*kept, subnet)))


def _settle_delete_subnet(cloud: Cloud, action: Action) -> None:
    network = _of(cloud, action)
    kept = tuple(each for each in network.subnets if each.ip_range != action.arguments["ip_range"])
    cloud.store.put(replace(network, subnets=kept))


def _settle_add_route(cloud: Cloud, action: Action) -> None:
    network, route = _of(cloud, action), msgspec.convert(action.arguments, Route)
    kept = tuple(each for each in network.routes if each != route)
    cloud.store.put(replace(network, routes=(*kept, route)))


def _settle_delete_route(cloud: Cloud, action: Action) -> None:
    network, route = _of(cloud, action), msgspec.convert(action.arguments, Route)
    cloud.store.put(replace(network, routes=tuple(each for each in network.routes if each != route)))


def _settle_ip_range(cloud: Cloud, action: Action) -> None:
    cloud.store.put(replace(_of(cloud, action), ip_range=action.arguments["ip_range"]))
