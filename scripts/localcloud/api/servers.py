"""/servers: order, show, change, delete. What is done to a server that exists is in server_actions.py."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from scripts.localcloud import catalog
from scripts.localcloud.api import firewalls, images, networks_of_servers, placement_groups, primary_ips, volumes
from scripts.localcloud.api.call import (
    Call,
    Reply,
    Routes,
    action_json,
    check_labels,
    check_name,
    created,
    listing,
    ok,
    timestamp,
)
from scripts.localcloud.api.catalog import location_json, server_type_json
from scripts.localcloud.errors import ApiError, invalid_input, locked, protected, unknown_reference
from scripts.localcloud.records import (
    Firewall,
    Network,
    PlacementGroup,
    PrimaryIp,
    Resource,
    Server,
    SshKey,
    Target,
    Volume,
)
from scripts.localcloud.store import Record

if TYPE_CHECKING:
    from scripts.localcloud.catalog import Location, ServerType
    from scripts.localcloud.cloud import Cloud
    from scripts.localcloud.records import Action, Image

R = TypeVar("R", bound=Record)
USER_DATA_LIMIT = 32 * 1024
_HOSTNAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /servers": list_servers,
        "POST /servers": create,
        "GET /servers/{id}": get,
        "PUT /servers/{id}": update,
        "DELETE /servers/{id}": delete,
    }


class FirewallRef(msgspec.Struct, frozen=True, kw_only=True):
    """A firewall to apply from the first packet on."""

    firewall: int


class PublicNet(msgspec.Struct, frozen=True, kw_only=True):
    """Which public addresses a server gets: new ones or those it is given."""

    enable_ipv4: bool = True
    enable_ipv6: bool = True
    ipv4: int | None = None
    ipv6: int | None = None


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of an order."""

    name: str
    server_type: str | int
    image: str | int
    location: str | int | None = None
    start_after_create: bool | None = None
    ssh_keys: list[str | int] | None = None
    user_data: str | None = None
    labels: dict[str, str] | None = None
    firewalls: list[FirewallRef] | None = None
    networks: list[int] | None = None
    volumes: list[int] | None = None
    automount: bool | None = None
    placement_group: int | None = None
    public_net: PublicNet | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    name: str | None = None
    labels: dict[str, str] | None = None


def list_servers(cloud: Cloud, call: Call) -> Reply:
    """List servers."""
    return listing(call, "servers", cloud.store.all(Server), lambda server: to_json(cloud, server))


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one server."""
    return ok(server=to_json(cloud, cloud.find(Server, "server", call.id())))


def create(cloud: Cloud, call: Call) -> Reply:
    """Order a server; it is billed from now on. Actions tell how far it is, one after the other."""
    body = call.decode(Create)
    check_hostname(cloud, body.name)
    labels = check_labels(body.labels)
    check_user_data(body.user_data)
    server_type, image, location = _choice(cloud, body)
    keys = tuple(_ssh_key(cloud, name) for name in body.ssh_keys or ())
    public = body.public_net or PublicNet()
    ips = [_given_ip(cloud, kind, number, location.name) for kind, number in _given(public)]
    attached = [_attachable(cloud, number, location.name) for number in body.volumes or ()]
    group = _group(cloud, body.placement_group)
    applied = [_known(cloud, Firewall, "firewall", each.firewall).id for each in body.firewalls or ()]
    for number in body.networks or ():
        _known(cloud, Network, "network", number)
    if not (public.enable_ipv4 or public.enable_ipv6 or body.networks):
        raise invalid_input(("public_net", "a server needs at least one network"))
    cloud.check_limit("servers", Server)
    if refusal := cloud.faults.refusal(server_type.name, location.name):
        raise refusal

    server = cloud.store.put(
        Server(
            id=cloud.store.next_id(),
            name=body.name,
            status="initializing",
            server_type=server_type.name,
            location=location.name,
            image=image,
            user_data=body.user_data or "",
            ssh_keys=tuple(key.public_key for key in keys),
            disk_size=server_type.disk,
            private_net=(),
            placement_group=group,
            backups=False,
            protect_delete=False,
            protect_rebuild=False,
            labels=labels,
            created=cloud.clock.now(),
        )
    )
    meter(cloud, server)
    _give_addresses(cloud, server, public, ips)
    resource = Resource(type="server", id=server.id)
    start = body.start_after_create is not False
    action = cloud.actions.begin("create_server", resource, start=start)
    later: list[Action] = []

    def then(command: str, *resources: Resource, **arguments: Any) -> None:
        later.append(cloud.actions.begin(command, *resources, after=(later or [action])[-1], **arguments))

    for number in body.networks or ():
        place = networks_of_servers.choose(cloud, server, cloud.find(Network, "network", number))
        then("attach_to_network", resource, Resource(type="network", id=number), **place)
    for volume in attached:
        then("attach_volume", Resource(type="volume", id=volume.id), resource, server=server.id)
    if start:
        then("start_server", resource)
    later += [firewalls.apply(cloud, number, Target(server=server.id)) for number in applied]
    return created(
        server=to_json(cloud, server),
        action=action_json(cloud, action),
        next_actions=[action_json(cloud, each) for each in later],
        root_password=None,
    )


def update(cloud: Cloud, call: Call) -> Reply:
    """Change name or labels; firewalls that select by label follow."""
    server, body = cloud.find(Server, "server", call.id()), call.decode(Update)
    if body.name is not None:
        check_hostname(cloud, body.name, but=server.id)
        server = replace(server, name=body.name)
    if body.labels is not None:
        server = replace(server, labels=check_labels(body.labels))
        cloud.soon(cloud.push_firewalls)
    return ok(server=to_json(cloud, cloud.store.put(server)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Delete a server and its disk; one that is stuck in starting too."""
    server = cloud.find(Server, "server", call.id())
    resource = Resource(type="server", id=server.id)
    if server.protect_delete:
        raise protected("server", "deletion")
    if cloud.actions.locks(resource, but_stuck=True):
        raise locked("server")
    cloud.actions.abandon(resource, "the server was deleted")
    cloud.store.put(replace(server, status="deleting"))
    return ok(action=action_json(cloud, cloud.actions.begin("delete_server", resource)))


def check_hostname(cloud: Cloud, name: str, *, but: int | None = None) -> None:
    """Refuse a name that is no host name or is taken."""
    if not _HOSTNAME.fullmatch(name):
        raise invalid_input(("name", "must be a valid hostname as per RFC 1123"))
    check_name("server", name, cloud.store.all(Server), but=but)


def check_user_data(user_data: str | None) -> None:
    """Refuse more than 32 KiB."""
    if len((user_data or "").encode()) > USER_DATA_LIMIT:
        raise invalid_input(("user_data", f"must not be longer than {USER_DATA_LIMIT} bytes"))


def meter(cloud: Cloud, server: Server) -> None:
    """Let the price of a server run, and that of its backups; within a transaction."""
    monthly = catalog.server_type_named(server.server_type).monthly
    cloud.open_meter("server", server.id, server.name, f"{server.server_type} at {server.location}", monthly)
    if server.backups:
        meter_backups(cloud, server)


def meter_backups(cloud: Cloud, server: Server) -> None:
    """Let the price of a server's backups run: a share of the server's own."""
    share = catalog.server_type_named(server.server_type).monthly * catalog.BACKUP_PERCENTAGE / 100
    cloud.open_meter("backup", server.id, server.name, f"backups of {server.server_type}", share)


def to_json(cloud: Cloud, server: Server) -> dict[str, Any]:
    """Write a server in wire form."""
    server_type, location = catalog.server_type_named(server.server_type), catalog.location_named(server.location)
    group = cloud.store.get(PlacementGroup, server.placement_group) if server.placement_group else None
    return {
        "id": server.id,
        "name": server.name,
        "status": server.status,
        "created": timestamp(server.created),
        "public_net": _public_json(cloud, server),
        "private_net": [
            {
                "network": place.network,
                "ip": place.ip,
                "alias_ips": list(place.alias_ips),
                "mac_address": place.mac_address,
            }
            for place in server.private_net
        ],
        "server_type": server_type_json(cloud, server_type),
        "location": location_json(location),
        "image": images.to_json(server.image),
        "iso": None,
        "rescue_enabled": False,
        "locked": cloud.actions.locks(Resource(type="server", id=server.id)),
        "backup_window": "22-02" if server.backups else None,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": (20 if location.name in catalog.EU else 1) * catalog.TB,
        "primary_disk_size": server.disk_size,
        "protection": {"delete": server.protect_delete, "rebuild": server.protect_rebuild},
        "placement_group": placement_groups.to_json(cloud, group) if group else None,
        "volumes": [volume.id for volume in cloud.store.all(Volume) if volume.server == server.id],
        "load_balancers": [],
        "labels": server.labels,
    }


def _public_json(cloud: Cloud, server: Server) -> dict[str, Any]:
    ips = cloud.addresses(server.id)
    ipv4, ipv6 = ips.get("ipv4"), ips.get("ipv6")
    status = cloud.firewall_status(server.id)
    names = primary_ips.dns_json(ipv4) if ipv4 else []
    return {
        "ipv4": {"id": ipv4.id, "ip": ipv4.ip, "blocked": False, "dns_ptr": names[0]["dns_ptr"]} if ipv4 else None,
        "ipv6": {"id": ipv6.id, "ip": ipv6.ip, "blocked": False, "dns_ptr": primary_ips.dns_json(ipv6)}
        if ipv6
        else None,
        "floating_ips": [],
        "firewalls": [{"id": firewall.id, "status": status} for firewall in cloud.firewalls(server.id)],
    }


def _choice(cloud: Cloud, body: Create) -> tuple[ServerType, Image, Location]:
    server_type = catalog.find_server_type(body.server_type)
    if server_type is None:
        raise unknown_reference("server type", body.server_type)
    location = catalog.find_location(body.location if body.location is not None else server_type.locations[0])
    if location is None:
        raise unknown_reference("location", body.location)
    if location.name not in server_type.locations:
        raise ApiError("invalid_input", "unsupported location for server type", details={})
    return server_type, find_image(cloud, body.image, server_type), location


def find_image(cloud: Cloud, name: str | int, server_type: ServerType) -> Image:
    """Find an image that fits a server type, or refuse."""
    image = images.find(cloud, name, server_type.architecture)
    if image is None:
        raise unknown_reference("image", name)
    if image.architecture != server_type.architecture:
        raise invalid_input(("image", f"is for {image.architecture}, the server type is {server_type.architecture}"))
    if image.disk_size > server_type.disk:
        raise invalid_input(("image", "image disk is bigger than server type disk"))
    if image.status != "available":
        raise invalid_input(("image", "is not available yet"))
    return image


def _ssh_key(cloud: Cloud, name: str | int) -> SshKey:
    found = next((key for key in cloud.store.all(SshKey) if str(name) in (str(key.id), key.name)), None)
    if found is None:
        raise unknown_reference("SSH key", name)
    return found


def _given(public: PublicNet) -> list[tuple[str, int]]:
    given = [("ipv4", public.enable_ipv4, public.ipv4), ("ipv6", public.enable_ipv6, public.ipv6)]
    if problems := [(f"public_net.{kind}", f"needs enable_{kind}") for kind, on, number in given if number and not on]:
        raise invalid_input(*problems)
    return [(kind, number) for kind, _, number in given if number is not None]


def _given_ip(cloud: Cloud, kind: str, number: int, location: str) -> PrimaryIp:
    ip = _known(cloud, PrimaryIp, "primary IP", number)
    if ip.type != kind:
        raise ApiError("primary_ip_version_mismatch", f"primary IP {ip.name} is an {ip.type}")
    if ip.location != location:
        raise ApiError("primary_ip_datacenter_mismatch", "the primary IP and the server are in different locations")
    if ip.server is not None or cloud.actions.locks(Resource(type="primary_ip", id=ip.id)):
        raise ApiError("primary_ip_assigned", f"primary IP {ip.name} is already assigned")
    return ip


def _give_addresses(cloud: Cloud, server: Server, public: PublicNet, given: list[PrimaryIp]) -> None:
    ips = list(given)
    if public.enable_ipv4 and public.ipv4 is None:
        ips.append(primary_ips.take(cloud, "ipv4", server.location, auto_delete=True))
    if public.enable_ipv6 and public.ipv6 is None:
        ips.append(primary_ips.take(cloud, "ipv6", server.location, auto_delete=True))
    for ip in ips:
        cloud.store.put(replace(ip, server=server.id))


def _attachable(cloud: Cloud, number: int, location: str) -> Volume:
    volume = _known(cloud, Volume, "volume", number)
    if cloud.actions.locks(Resource(type="volume", id=volume.id)):
        raise locked("volume")
    volumes.check_attachable(volume, location)
    return volume


def _group(cloud: Cloud, number: int | None) -> int | None:
    if number is None:
        return None
    group = _known(cloud, PlacementGroup, "placement group", number)
    placement_groups.check_room(cloud, group)
    return group.id


def _known(cloud: Cloud, kind: type[R], noun: str, number: int) -> R:
    found = cloud.store.get(kind, number)
    if found is None:
        raise unknown_reference(noun, number)
    return found
