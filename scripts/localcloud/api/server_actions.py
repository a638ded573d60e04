"""/servers/{id}/actions: power, rebuild, type, protection, backups, snapshots; and what each action does to the machine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scripts.localcloud import catalog
from scripts.localcloud.actions import Work
from scripts.localcloud.api import images, placement_groups, primary_ips
from scripts.localcloud.api.call import Call, Reply, Routes, action_json, begun, check_labels, created
from scripts.localcloud.api.servers import check_user_data, find_image, meter, meter_backups
from scripts.localcloud.errors import ApiError, invalid_input, locked, protected, unknown_reference, unsupported
from scripts.localcloud.records import (
    Action,
    Firewall,
    Image,
    PlacementGroup,
    PrimaryIp,
    Resource,
    Server,
    Volume,
)

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud

Status = Literal["starting", "stopping", "rebuilding", "migrating"]


def routes() -> Routes:
    """Give the calls of this part."""
    table: dict[str, Any] = {
        "poweron": partial(_power, command="start_server"),
        "poweroff": partial(_power, command="stop_server"),
        "shutdown": partial(_power, command="shutdown_server"),
        "reboot": partial(_power, command="reboot_server"),
        "reset": partial(_power, command="reset_server"),
        "rebuild": rebuild,
        "change_type": change_type,
        "change_protection": change_protection,
        "change_dns_ptr": change_dns_ptr,
        "enable_backup": partial(_backup, on=True),
        "disable_backup": partial(_backup, on=False),
        "create_image": create_image,
        "add_to_placement_group": add_to_placement_group,
        "remove_from_placement_group": remove_from_placement_group,
        "enable_rescue": partial(_missing, what="rescue system"),
        "disable_rescue": partial(_missing, what="rescue system"),
        "request_console": partial(_missing, what="console"),
        "reset_password": partial(_missing, what="guest agent that could set a password"),
        "attach_iso": partial(_missing, what="ISOs"),
        "detach_iso": partial(_missing, what="ISOs"),
    }
    calls = {f"POST /servers/{{id}}/actions/{name}": handler for name, handler in table.items()}
    return calls | {"GET /servers/{id}/metrics": partial(_missing, what="metrics")}


def work() -> dict[str, Work]:
    """Give what the actions of servers do."""
    starting, stopping = partial(_enter, status="starting"), partial(_enter, status="stopping")
    return {
        "create_server": Work(seconds=3, settle=_settle_create, undo=_look),
        "start_server": Work(seconds=2, enter=starting, drive=_start, settle=_settle_on, undo=_look),
        "stop_server": Work(seconds=1, enter=stopping, drive=_cut, settle=_settle_off, undo=_look),
        "shutdown_server": Work(seconds=1, enter=stopping, drive=_shut_down, settle=_settle_off, undo=_look),
        "reboot_server": Work(seconds=3, enter=starting, drive=_reboot, settle=_settle_on, undo=_look),
        "reset_server": Work(seconds=2, enter=starting, drive=_reset, settle=_settle_on, undo=_look),
        "rebuild_server": Work(seconds=5, enter=_enter_rebuild, drive=_rebuild, settle=_settle_on, undo=_look),
        "change_server_type": Work(
            seconds=5, enter=partial(_enter, status="migrating"), drive=_move, settle=_settle_type, undo=_look
        ),
        "create_image": Work(seconds=5, settle=_settle_image),
        "delete_server": Work(seconds=1, drive=_delete, settle=_settle_delete, undo=_look),
    }


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """Body of rebuild."""

    image: str | int
    user_data: str | None = None


class ChangeType(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_type."""

    server_type: str | int
    upgrade_disk: bool


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_protection."""

    delete: bool | None = None
    rebuild: bool | None = None


class CreateImage(msgspec.Struct, frozen=True, kw_only=True):
    """Body of create_image."""

    type: Literal["snapshot", "backup"] | None = None
    description: str | None = None
    labels: dict[str, str] | None = None


class AddToGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Body of add_to_placement_group."""

    placement_group: int


def rebuild(cloud: Cloud, call: Call) -> Reply:
    """Wipe the disk and begin anew from an image, with new user data where given."""
    server, body = _free(cloud, call), call.decode(Rebuild)
    if server.protect_rebuild:
        raise protected("server", "rebuild")
    check_user_data(body.user_data)
    image = find_image(cloud, body.image, catalog.server_type_named(server.server_type))
    arguments = {"image": msgspec.to_builtins(image), "user_data": body.user_data}
    action = cloud.actions.begin("rebuild_server", _resource(server), **arguments)
    return created(action=action_json(cloud, action), root_password=None)


def change_type(cloud: Cloud, call: Call) -> Reply:
    """Move a server that is off to another type of its architecture and start it there; the disk only ever grows."""
    server, body = _free(cloud, call), call.decode(ChangeType)
    wanted = catalog.find_server_type(body.server_type)
    if wanted is None:
        raise unknown_reference("server type", body.server_type)
    present = catalog.server_type_named(server.server_type)
    if wanted.architecture != present.architecture or wanted == present:
        raise ApiError("invalid_server_type", f"server type {wanted.name} does not fit a server of type {present.name}")
    if wanted.disk < server.disk_size:
        raise ApiError("invalid_server_type", f"the disk of server type {wanted.name} is too small")
    if server.location not in wanted.locations:
        raise ApiError("invalid_input", "unsupported location for server type", details={})
    if server.status != "off":
        raise ApiError("server_not_stopped", "the server must be powered off")
    if refusal := cloud.faults.refusal(wanted.name, server.location):
        raise refusal
    disk = wanted.disk if body.upgrade_disk else server.disk_size
    action = cloud.actions.begin("change_server_type", _resource(server), server_type=wanted.name, disk=disk)
    return begun(cloud, action)


def change_protection(cloud: Cloud, call: Call) -> Reply:
    """Protect against deletion and rebuild, both or neither, as the vendor has it."""
    server, body = _find(cloud, call), call.decode(Protection)
    delete = server.protect_delete if body.delete is None else body.delete
    both = server.protect_rebuild if body.rebuild is None else body.rebuild
    if delete != both:
        raise invalid_input(("delete", "must equal rebuild"), ("rebuild", "must equal delete"))
    cloud.store.put(replace(server, protect_delete=delete, protect_rebuild=both))
    return created(action=action_json(cloud, cloud.actions.at_once("change_protection", _resource(server))))


def change_dns_ptr(cloud: Cloud, call: Call) -> Reply:
    """Set or drop the reverse name of one of a server's addresses."""
    ips, body = cloud.addresses(_find(cloud, call).id).values(), call.decode(primary_ips.DnsPtr)
    found = next((ip for ip in ips if primary_ips.covers(ip, body.ip)), None)
    if found is None:
        raise invalid_input(("ip", f"'{body.ip}' does not belong to the server"))
    return primary_ips.change_dns_ptr(cloud, replace(call, path={"id": str(found.id)}))


def create_image(cloud: Cloud, call: Call) -> Reply:
    """Put a snapshot on record and on the bill; its disk is not kept (README, limitations)."""
    server, body = _free(cloud, call), call.decode(CreateImage)
    if body.type == "backup":
        raise unsupported("backups that could be made by hand")
    labels = check_labels(body.labels)
    cloud.check_limit("snapshots", Image)
    image = cloud.store.put(
        replace(
            server.image,
            id=cloud.store.next_id(),
            type="snapshot",
            name=None,
            description=body.description or f"snapshot of {server.name}",
            disk_size=server.disk_size,
            image_size=None,
            status="creating",
            created=cloud.clock.now(),
            created_from=server.id,
            created_from_name=server.name,
            deprecated=None,
            protected=False,
            labels=labels,
        )
    )
    resources = _resource(server), Resource(type="image", id=image.id)
    action = cloud.actions.begin("create_image", *resources, image=image.id)
    return created(image=images.to_json(image), action=action_json(cloud, action))


def add_to_placement_group(cloud: Cloud, call: Call) -> Reply:
    """Add a server that is off to a group."""
    server, body = _free(cloud, call), call.decode(AddToGroup)
    group = cloud.store.get(PlacementGroup, body.placement_group)
    if group is None:
        raise unknown_reference("placement group", body.placement_group)
    if server.placement_group is not None:
        raise ApiError("already_in_placement_group", f"server {server.name} is in a placement group already")
    if server.status != "off":
        raise ApiError("server_not_stopped", "the server must be powered off")
    placement_groups.check_room(cloud, group)
    cloud.store.put(replace(server, placement_group=group.id))
    return created(action=action_json(cloud, cloud.actions.at_once("add_to_placement_group", _resource(server))))


def remove_from_placement_group(cloud: Cloud, call: Call) -> Reply:
    """Take a server out of its group."""
    server = _free(cloud, call)
    if server.placement_group is None:
        raise invalid_input(("placement_group", f"server {server.name} is in no placement group"))
    cloud.store.put(replace(server, placement_group=None))
    return created(action=action_json(cloud, cloud.actions.at_once("remove_from_placement_group", _resource(server))))


def _power(cloud: Cloud, call: Call, *, command: str) -> Reply:
    server = _free(cloud, call)
    if command in ("reboot_server", "shutdown_server") and server.status == "off":
        raise ApiError("invalid_input", f"server {server.name} is off", details={"fields": []})
    return begun(cloud, cloud.actions.begin(command, _resource(server)))


def _backup(cloud: Cloud, call: Call, *, on: bool) -> Reply:
    server = _free(cloud, call)
    if server.backups is not on:
        server = cloud.store.put(replace(server, backups=on))
        if on:
            meter_backups(cloud, server)
        else:
            cloud.close_meters(server.id, kind="backup")
    command = "enable_backup" if on else "disable_backup"
    return created(action=action_json(cloud, cloud.actions.at_once(command, _resource(server))))


def _missing(cloud: Cloud, call: Call, *, what: str) -> Reply:
    _find(cloud, call)
    raise unsupported(what)


def _find(cloud: Cloud, call: Call) -> Server:
    return cloud.find(Server, "server", call.id())


def _free(cloud: Cloud, call: Call) -> Server:
    server = _find(cloud, call)
    if server.status == "deleting" or cloud.actions.locks(_resource(server)):
        raise locked("server")
    return server


def _resource(server: Server) -> Resource:
    return Resource(type="server", id=server.id)


# What the actions do.


def _of(cloud: Cloud, action: Action) -> Server:
    return cloud.find(Server, "server", action.resources[0].id)


def _enter(cloud: Cloud, action: Action, *, status: Status) -> None:
    cloud.store.put(replace(_of(cloud, action), status=status))


def _enter_rebuild(cloud: Cloud, action: Action) -> None:
    server = _of(cloud, action)
    user_data = action.arguments["user_data"]
    cloud.store.put(
        replace(
            server,
            status="rebuilding",
            image=msgspec.convert(action.arguments["image"], Image),
            user_data=server.user_data if user_data is None else user_data,
        )
    )


async def _boots(cloud: Cloud, action: Action) -> bool:
    """Heed the faults that keep a machine from booting."""
    server = _of(cloud, action)
    cloud.dead.discard(server.id)
    fault = cloud.faults.machine(server.name)
    if fault == "stuck":
        cloud.actions.stuck.add(action.id)
        await asyncio.Event().wait()
    if fault == "dead":
        cloud.dead.add(server.id)
        await cloud.hypervisor.stop(server.id, graceful=False)
    return fault is None


async def _start(cloud: Cloud, action: Action) -> None:
    spec = cloud.spec(_of(cloud, action))
    if await _boots(cloud, action):
        await cloud.push_firewall(spec.id)
        await cloud.hypervisor.start(spec)


async def _cut(cloud: Cloud, action: Action) -> None:
    cloud.dead.discard(action.resources[0].id)
    await cloud.hypervisor.stop(action.resources[0].id, graceful=False)


async def _shut_down(cloud: Cloud, action: Action) -> None:
    cloud.dead.discard(action.resources[0].id)
    await cloud.hypervisor.stop(action.resources[0].id, graceful=True)


async def _reboot(cloud: Cloud, action: Action) -> None:
    if await _boots(cloud, action):
        await cloud.hypervisor.stop(action.resources[0].id, graceful=True)
        await cloud.hypervisor.start(cloud.spec(_of(cloud, action)))


async def _reset(cloud: Cloud, action: Action) -> None:
    if await _boots(cloud, action):
        spec = cloud.spec(_of(cloud, action))
        if await cloud.hypervisor.running(spec.id):
            await cloud.hypervisor.reset(spec.id)
        else:
            await cloud.hypervisor.start(spec)


async def _rebuild(cloud: Cloud, action: Action) -> None:
    spec = cloud.spec(_of(cloud, action))
    if await _boots(cloud, action):
        await cloud.push_firewall(spec.id)
        await cloud.hypervisor.rebuild(spec)


async def _move(cloud: Cloud, action: Action) -> None:
    spec = cloud.spec(_moved(cloud, action))
    if await _boots(cloud, action):
        await cloud.push_firewall(spec.id)
        await cloud.hypervisor.start(spec)


async def _delete(cloud: Cloud, action: Action) -> None:
    await cloud.hypervisor.delete(action.resources[0].id)


async def _look(cloud: Cloud, action: Action) -> None:
    """After a failure: the status is what the machine says."""
    server = cloud.store.get(Server, action.resources[0].id)
    if server:
        running = await cloud.hypervisor.running(server.id)
        with cloud.store.transaction():
            cloud.store.put(replace(server, status="running" if running else "off"))


def _settle_create(cloud: Cloud, action: Action) -> None:
    if not action.arguments["start"]:
        cloud.store.put(replace(_of(cloud, action), status="off"))


def _settle_on(cloud: Cloud, action: Action) -> None:
    cloud.store.put(replace(_of(cloud, action), status="running"))


def _settle_off(cloud: Cloud, action: Action) -> None:
    cloud.store.put(replace(_of(cloud, action), status="off"))


def _moved(cloud: Cloud, action: Action) -> Server:
    server_type, disk = action.arguments["server_type"], action.arguments["disk"]
    return replace(_of(cloud, action), status="running", server_type=server_type, disk_size=disk)


def _settle_type(cloud: Cloud, action: Action) -> None:
    server = cloud.store.put(_moved(cloud, action))
    cloud.close_meters(server.id)
    meter(cloud, server)


def _settle_image(cloud: Cloud, action: Action) -> None:
    image = cloud.store.get(Image, action.arguments["image"])
    if image and image.status == "creating":
        size = round(image.disk_size / 20, 2)
        cloud.store.put(replace(image, status="available", image_size=size))
        monthly = catalog.IMAGE_GB_MONTHLY * Decimal(str(size))
        cloud.open_meter("image", image.id, image.description, f"snapshot of {size} GB", monthly)


def _settle_delete(cloud: Cloud, action: Action) -> None:
    server = cloud.store.get(Server, action.resources[0].id)
    if server is None:
        return
    for volume in cloud.store.all(Volume):
        if volume.server == server.id:
            cloud.store.put(replace(volume, server=None))
    for ip in cloud.store.all(PrimaryIp):
        if ip.server == server.id and ip.auto_delete:
            primary_ips.release(cloud, ip)
        elif ip.server == server.id:
            cloud.store.put(replace(ip, server=None))
    for firewall in cloud.store.all(Firewall):
        kept = tuple(target for target in firewall.applied_to if target.server != server.id)
        if kept != firewall.applied_to:
            cloud.store.put(replace(firewall, applied_to=kept))
    cloud.close_meters(server.id, at=action.started)
    cloud.store.remove(server)
    cloud.dead.discard(server.id)
    cloud.forget_firewall(server.id)
