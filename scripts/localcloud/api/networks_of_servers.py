"""/servers/{id}/actions/attach_to_network and the like: a server's places in private networks."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from scripts.localcloud import catalog
from scripts.localcloud.actions import Work
from scripts.localcloud.api.call import Call, Reply, Routes, begun
from scripts.localcloud.errors import ApiError, invalid_input, locked, unknown_reference
from scripts.localcloud.records import Action, Attachment, Network, Resource, Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.localcloud.cloud import Cloud


def routes() -> Routes:
    """Give the calls of this part."""
    return {
        "POST /servers/{id}/actions/attach_to_network": attach,
        "POST /servers/{id}/actions/detach_from_network": detach,
        "POST /servers/{id}/actions/change_alias_ips": change_alias_ips,
    }


def work() -> dict[str, Work]:
    """Give what the actions do: tell the machine, then change the record."""
    return {
        command: Work(seconds=1, drive=_tell, settle=_settle)
        for command in ("attach_to_network", "detach_from_network", "change_alias_ips")
    }


class Attach(msgspec.Struct, frozen=True, kw_only=True):
    """Body of attach_to_network."""

    network: int
    ip: str | None = None
    alias_ips: list[str] | None = None
    ip_range: str | None = None


class Detach(msgspec.Struct, frozen=True, kw_only=True):
    """Body of detach_from_network."""

    network: int


class Aliases(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_alias_ips."""

    network: int
    alias_ips: list[str]


def attach(cloud: Cloud, call: Call) -> Reply:
    """Attach to a network, at an address that is asked for or the next free one."""
    server, body = _free(cloud, call), call.decode(Attach)
    network = cloud.store.get(Network, body.network)
    if network is None:
        raise unknown_reference("network", body.network)
    if any(place.network == network.id for place in server.private_net):
        raise ApiError("server_already_attached", f"server {server.name} is already attached to the network")
    for place in server.private_net:
        other = cloud.store.get(Network, place.network)
        if other and ipaddress.ip_network(other.ip_range).overlaps(ipaddress.ip_network(network.ip_range)):
            raise ApiError("networks_overlap", f"network {network.name} overlaps with network {other.name}")
    arguments = choose(cloud, server, network, ip=body.ip, alias_ips=body.alias_ips or (), ip_range=body.ip_range)
    return _begin(cloud, "attach_to_network", server, network.id, arguments)


def detach(cloud: Cloud, call: Call) -> Reply:
    """Take a server out of a network."""
    server, body = _free(cloud, call), call.decode(Detach)
    _place(server, body.network)
    return _begin(cloud, "detach_from_network", server, body.network, {"network": body.network})


def change_alias_ips(cloud: Cloud, call: Call) -> Reply:
    """Replace a server's further addresses in a network."""
    server, body = _free(cloud, call), call.decode(Aliases)
    place, network = _place(server, body.network), cloud.find(Network, "network", body.network)
    taken = _taken(cloud, network, but=server.id)
    subnets = [ipaddress.IPv4Network(subnet.ip_range) for subnet in network.subnets]
    for alias in body.alias_ips:
        _check_free(alias, subnets, taken | {place.ip})
    arguments = msgspec.to_builtins(replace(place, alias_ips=tuple(body.alias_ips)))
    return _begin(cloud, "change_alias_ips", server, network.id, arguments)


def choose(
    cloud: Cloud,
    server: Server,
    network: Network,
    *,
    ip: str | None = None,
    alias_ips: Sequence[str] = (),
    ip_range: str | None = None,
) -> dict[str, Any]:
    """Choose a server's place in a network: the arguments of attach_to_network."""
    zone = catalog.location_named(server.location).network_zone
    subnets = [
        ipaddress.IPv4Network(subnet.ip_range)
        for subnet in network.subnets
        if subnet.network_zone == zone and ip_range in (None, subnet.ip_range)
    ]
    if not subnets:
        raise ApiError("no_subnet_available", f"network {network.name} has no subnet in {zone} for the server")
    taken = _taken(cloud, network)
    for address in (*([ip] if ip else ()), *alias_ips):
        _check_free(address, subnets, taken)
    free = (str(host) for subnet in subnets for host in subnet.hosts() if str(host) not in taken | {*alias_ips})
    chosen = ip or next(free, None)
    if chosen is None:
        raise ApiError("no_subnet_available", f"network {network.name} has no free address for the server")
    number = server.id ^ network.id << 16
    mac = "86:00:00:" + ":".join(f"{number >> shift & 255:02x}" for shift in (16, 8, 0))
    place = Attachment(network=network.id, ip=chosen, alias_ips=tuple(alias_ips), mac_address=mac)
    arguments: dict[str, Any] = msgspec.to_builtins(place)
    return arguments


def _begin(cloud: Cloud, command: str, server: Server, network: int, arguments: dict[str, Any]) -> Reply:
    resources = Resource(type="server", id=server.id), Resource(type="network", id=network)
    return begun(cloud, cloud.actions.begin(command, *resources, **arguments))


def _free(cloud: Cloud, call: Call) -> Server:
    server = cloud.find(Server, "server", call.id())
    if cloud.actions.locks(Resource(type="server", id=server.id)):
        raise locked("server")
    return server


def _place(server: Server, network: int) -> Attachment:
    found = next((place for place in server.private_net if place.network == network), None)
    if found is None:
        raise invalid_input(("network", f"server {server.name} is not attached to network {network}"))
    return found


def _taken(cloud: Cloud, network: Network, *, but: int | None = None) -> set[str]:
    """Give the addresses that nobody may have any more: the router's, those of members and of those on their way in."""
    members = [server for server in cloud.members(network.id) if server.id != but]
    places = [place for server in members for place in server.private_net if place.network == network.id]
    taken = {str(ipaddress.IPv4Network(network.ip_range)[1])}
    taken |= {address for place in places for address in (place.ip, *place.alias_ips)}
    for action in cloud.actions.running(Resource(type="network", id=network.id)):
        if action.command == "attach_to_network":
            taken |= {action.arguments["ip"], *action.arguments["alias_ips"]}
    return taken


def _check_free(text: str, subnets: Sequence[ipaddress.IPv4Network], taken: set[str]) -> None:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as exc:
        raise invalid_input(("ip", f"'{text}' is not an IPv4 address")) from exc
    usable = any(address in subnet and address not in (subnet[0], subnet[-1]) for subnet in subnets)
    if not usable or text in taken:
        raise ApiError("ip_not_available", f"IP {text} is not available")


def _after(server: Server, action: Action) -> Server:
    kept = tuple(place for place in server.private_net if place.network != action.arguments["network"])
    if action.command == "detach_from_network":
        return replace(server, private_net=kept)
    return replace(server, private_net=(*kept, msgspec.convert(action.arguments, Attachment)))


async def _tell(cloud: Cloud, action: Action) -> None:
    server = cloud.find(Server, "server", action.resources[0].id)
    if server.status == "running" and server.id not in cloud.dead:
        await cloud.hypervisor.start(cloud.spec(_after(server, action)))


def _settle(cloud: Cloud, action: Action) -> None:
    server = cloud.find(Server, "server", action.resources[0].id)
    cloud.store.put(_after(server, action))
