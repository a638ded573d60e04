"""/primary_ips: public addresses that may outlive their server."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scripts.localcloud import catalog
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
from scripts.localcloud.api.catalog import location_json
from scripts.localcloud.errors import ApiError, invalid_input, locked, protected, unknown_reference
from scripts.localcloud.records import Action, PrimaryIp, Resource, Server

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /primary_ips": list_ips,
        "POST /primary_ips": create,
        "GET /primary_ips/{id}": get,
        "PUT /primary_ips/{id}": update,
        "DELETE /primary_ips/{id}": delete,
        "POST /primary_ips/{id}/actions/assign": assign,
        "POST /primary_ips/{id}/actions/unassign": unassign,
        "POST /primary_ips/{id}/actions/change_dns_ptr": change_dns_ptr,
        "POST /primary_ips/{id}/actions/change_protection": change_protection,
    }


def work() -> dict[str, Work]:
    """Give what the actions of this resource do; a machine learns of it at its next start."""
    return {
        "assign_primary_ip": Work(seconds=1, settle=_settle_assign),
        "unassign_primary_ip": Work(seconds=1, settle=_settle_unassign),
    }


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a creation."""

    name: str
    type: Literal["ipv4", "ipv6"]
    location: str | int | None = None
    assignee_type: Literal["server", "unassigned"] | None = None
    assignee_id: int | None = None
    auto_delete: bool | None = None
    labels: dict[str, str] | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    name: str | None = None
    auto_delete: bool | None = None
    labels: dict[str, str] | None = None


class Assign(msgspec.Struct, frozen=True, kw_only=True):
    """Body of assign."""

    assignee_id: int
    assignee_type: Literal["server"]


class DnsPtr(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_dns_ptr."""

    ip: str
    dns_ptr: str | None


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_protection."""

    delete: bool | None = None


def list_ips(cloud: Cloud, call: Call) -> Reply:
    """List addresses, by name or address where asked."""
    ips, address = cloud.store.all(PrimaryIp), call.first("ip")
    wanted = [ip for ip in ips if address in (None, ip.ip, ip.ip.partition("/")[0])]
    return listing(call, "primary_ips", wanted, to_json, ("id", "name", "created"))


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one address."""
    return ok(primary_ip=to_json(_find(cloud, call)))


def create(cloud: Cloud, call: Call) -> Reply:
    """Take an address; it is billed from now on, used or not."""
    body = call.decode(Create)
    labels = check_labels(body.labels)
    check_name("primary IP", body.name, cloud.store.all(PrimaryIp))
    server = _assignee(cloud, body)
    if server:
        _check_assignable(cloud, server, body.type)
    if body.location is None and server is None:
        problem = "either assignee_id or location must be provided"
        raise invalid_input(("assignee_id", problem), ("location", problem))
    location = catalog.find_location(body.location) if body.location is not None else None
    if body.location is not None and location is None:
        raise unknown_reference("location", body.location)
    if location and server and server.location != location.name:
        raise ApiError("primary_ip_datacenter_mismatch", "the primary IP and the server are in different locations")
    place = location.name if location else server.location if server else ""
    ip = take(cloud, body.type, place, name=body.name, auto_delete=bool(body.auto_delete))
    ip = cloud.store.put(replace(ip, labels=labels))
    action = None
    if server:
        action = cloud.actions.begin("assign_primary_ip", *_resources(ip, server.id), server=server.id)
    return created(primary_ip=to_json(ip), action=action_json(cloud, action) if action else None)


def update(cloud: Cloud, call: Call) -> Reply:
    """Change name, labels or whether it goes with its server."""
    ip, body = _find(cloud, call), call.decode(Update)
    if body.name is not None:
        check_name("primary IP", body.name, cloud.store.all(PrimaryIp), but=ip.id)
        ip = replace(ip, name=body.name)
    if body.labels is not None:
        ip = replace(ip, labels=check_labels(body.labels))
    if body.auto_delete is not None:
        ip = replace(ip, auto_delete=body.auto_delete)
    return ok(primary_ip=to_json(cloud.store.put(ip)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Give an address back; since 2026-05-01 it must have been taken off its server before."""
    ip = _find(cloud, call)
    if ip.protected:
        raise protected("primary IP", "deletion")
    if ip.server is not None:
        raise ApiError("must_be_unassigned", f"primary IP {ip.name} must be unassigned before it can be deleted")
    release(cloud, _free(cloud, call))
    return no_content()


def assign(cloud: Cloud, call: Call) -> Reply:
    """Assign to a server that is off and has no address of the type."""
    ip, body = _free(cloud, call), call.decode(Assign)
    server = _server(cloud, body.assignee_id)
    if ip.server is not None:
        raise ApiError("primary_ip_already_assigned", f"primary IP {ip.name} is already assigned to a server")
    if ip.location != server.location:
        raise ApiError("primary_ip_datacenter_mismatch", "the primary IP and the server are in different locations")
    _check_assignable(cloud, server, ip.type)
    return begun(cloud, cloud.actions.begin("assign_primary_ip", *_resources(ip, server.id), server=server.id))


def unassign(cloud: Cloud, call: Call) -> Reply:
    """Take it off a server that is off."""
    ip = _free(cloud, call)
    if ip.server is None:
        raise ApiError("primary_ip_not_assigned", f"primary IP {ip.name} is not assigned")
    _check_off(cloud, _server(cloud, ip.server))
    return begun(cloud, cloud.actions.begin("unassign_primary_ip", *_resources(ip, ip.server)))


def change_dns_ptr(cloud: Cloud, call: Call) -> Reply:
    """Set or drop the reverse name of an address."""
    ip, body = _find(cloud, call), call.decode(DnsPtr)
    if not covers(ip, body.ip):
        raise invalid_input(("ip", f"'{body.ip}' does not belong to the primary IP"))
    names = {address: name for address, name in ip.dns_ptr.items() if address != body.ip}
    cloud.store.put(replace(ip, dns_ptr=names | ({body.ip: body.dns_ptr} if body.dns_ptr else {})))
    return created(action=action_json(cloud, cloud.actions.at_once("change_dns_ptr", *_resources(ip, ip.server))))


def change_protection(cloud: Cloud, call: Call) -> Reply:
    """Protect against deletion, or no longer."""
    ip, body = _find(cloud, call), call.decode(Protection)
    if body.delete is not None:
        cloud.store.put(replace(ip, protected=body.delete))
    return created(action=action_json(cloud, cloud.actions.at_once("change_protection", *_resources(ip, None))))


def take(
    cloud: Cloud, kind: Literal["ipv4", "ipv6"], location: str, *, name: str | None = None, auto_delete: bool
) -> PrimaryIp:
    """Take an unassigned address; within a transaction. IPv6 is free, IPv4 is not."""
    cloud.check_limit("primary_ips", PrimaryIp)
    number = cloud.store.next_id()
    ip = PrimaryIp(
        id=number,
        name=name or f"primary_ip-{number}",
        type=kind,
        ip=cloud.new_address(kind),
        location=location,
        server=None,
        auto_delete=auto_delete,
        protected=False,
        dns_ptr={},
        labels={},
        created=cloud.clock.now(),
    )
    monthly = catalog.PRIMARY_IPV4_MONTHLY if kind == "ipv4" else Decimal(0)
    cloud.open_meter("primary_ip", ip.id, ip.name, f"{kind} {ip.ip}", monthly)
    return cloud.store.put(ip)


def release(cloud: Cloud, ip: PrimaryIp) -> None:
    """Give an address back; within a transaction."""
    cloud.store.remove(ip)
    cloud.close_meters(ip.id)


def covers(ip: PrimaryIp, address: str) -> bool:
    """Tell whether an address belongs to a primary IP."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(ip.ip)
    except ValueError:
        return False


def to_json(ip: PrimaryIp) -> dict[str, Any]:
    """Write an address in wire form."""
    return {
        "id": ip.id,
        "name": ip.name,
        "type": ip.type,
        "ip": ip.ip,
        "location": location_json(catalog.location_named(ip.location)),
        "assignee_id": ip.server,
        "assignee_type": "unassigned" if ip.server is None else "server",
        "auto_delete": ip.auto_delete,
        "blocked": False,
        "protection": {"delete": ip.protected},
        "dns_ptr": dns_json(ip),
        "labels": ip.labels,
        "created": timestamp(ip.created),
    }


def dns_json(ip: PrimaryIp) -> list[dict[str, str]]:
    """Write reverse names in wire form; an IPv4 address always has one."""
    if ip.type == "ipv4" and not ip.dns_ptr:
        turned = ".".join(reversed(ip.ip.split(".")))
        return [{"ip": ip.ip, "dns_ptr": f"static.{turned}.clients.your-server.de"}]
    return [{"ip": address, "dns_ptr": name} for address, name in ip.dns_ptr.items()]


def _find(cloud: Cloud, call: Call) -> PrimaryIp:
    return cloud.find(PrimaryIp, "primary IP", call.id())


def _free(cloud: Cloud, call: Call) -> PrimaryIp:
    ip = _find(cloud, call)
    if any(cloud.actions.locks(resource) for resource in _resources(ip, ip.server)):
        raise locked("primary IP")
    return ip


def _server(cloud: Cloud, number: int) -> Server:
    server = cloud.store.get(Server, number)
    if server is None:
        raise unknown_reference("server", number)
    return server


def _assignee(cloud: Cloud, body: Create) -> Server | None:
    if body.assignee_id is None:
        return None
    if body.assignee_type != "server":
        raise invalid_input(("assignee_type", "must be 'server' when assignee_id is given"))
    return _server(cloud, body.assignee_id)


def _check_off(cloud: Cloud, server: Server) -> None:
    if cloud.actions.locks(Resource(type="server", id=server.id)):
        raise locked("server")
    if server.status != "off":
        raise ApiError("server_not_stopped", "the server must be powered off")


def _check_assignable(cloud: Cloud, server: Server, kind: str) -> None:
    _check_off(cloud, server)
    if kind in cloud.addresses(server.id):
        raise ApiError(f"server_has_{kind}", f"the server already has an {kind} address")


def _resources(ip: PrimaryIp, server: int | None) -> list[Resource]:
    servers = [Resource(type="server", id=server)] if server is not None else []
    return [Resource(type="primary_ip", id=ip.id), *servers]


def _settle_assign(cloud: Cloud, action: Action) -> None:
    ip = cloud.find(PrimaryIp, "primary IP", action.resources[0].id)
    cloud.store.put(replace(ip, server=action.arguments["server"]))


def _settle_unassign(cloud: Cloud, action: Action) -> None:
    ip = cloud.find(PrimaryIp, "primary IP", action.resources[0].id)
    cloud.store.put(replace(ip, server=None))
