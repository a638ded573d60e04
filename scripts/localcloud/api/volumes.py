"""/volumes: block storage, on record and on the bill."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from scripts.localcloud.errors import ApiError, in_use, invalid_input, locked, protected, unknown_reference
from scripts.localcloud.records import Action, Resource, Server, Volume

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud

Size = Annotated[int, msgspec.Meta(ge=10, le=10240)]


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /volumes": list_volumes,
        "POST /volumes": create,
        "GET /volumes/{id}": get,
        "PUT /volumes/{id}": update,
        "DELETE /volumes/{id}": delete,
        "POST /volumes/{id}/actions/attach": attach,
        "POST /volumes/{id}/actions/detach": detach,
        "POST /volumes/{id}/actions/resize": resize,
        "POST /volumes/{id}/actions/change_protection": change_protection,
    }


def work() -> dict[str, Work]:
    """Give what the actions of this resource do: change the record, no machine."""
    return {
        "create_volume": Work(seconds=1, settle=_settle_create),
        "attach_volume": Work(seconds=1, settle=_settle_attach),
        "detach_volume": Work(seconds=1, settle=_settle_detach),
        "resize_volume": Work(seconds=1, settle=_settle_resize),
    }


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a creation."""

    name: str
    size: Size
    location: str | int | None = None
    server: int | None = None
    format: Literal["ext4", "xfs"] | None = None
    automount: bool | None = None
    labels: dict[str, str] | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    name: str | None = None
    labels: dict[str, str] | None = None


class Attach(msgspec.Struct, frozen=True, kw_only=True):
    """Body of attach."""

    server: int
    automount: bool | None = None


class Resize(msgspec.Struct, frozen=True, kw_only=True):
    """Body of resize."""

    size: Size


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_protection."""

    delete: bool | None = None


def list_volumes(cloud: Cloud, call: Call) -> Reply:
    """List volumes."""
    return listing(call, "volumes", cloud.store.all(Volume), to_json)


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one volume."""
    return ok(volume=to_json(_find(cloud, call)))


def create(cloud: Cloud, call: Call) -> Reply:
    """Make a volume at a location, or where a server is and attached to it."""
    body = call.decode(Create)
    labels = check_labels(body.labels)
    check_name("volume", body.name, cloud.store.all(Volume))
    if (body.location is None) == (body.server is None):
        raise invalid_input(*((field, "either location or server is required") for field in ("location", "server")))
    if body.automount and body.server is None:
        raise invalid_input(("automount", "needs a server"))
    server = _server(cloud, body.server) if body.server is not None else None
    location = catalog.find_location(server.location if server else body.location or "")
    if location is None:
        raise unknown_reference("location", body.location)
    cloud.check_limit("volumes", Volume)
    volume = Volume(
        id=cloud.store.next_id(),
        name=body.name,
        size=body.size,
        location=location.name,
        server=None,
        format=body.format,
        status="creating",
        protected=False,
        labels=labels,
        created=cloud.clock.now(),
    )
    cloud.store.put(volume)
    _meter(cloud, volume)
    action = cloud.actions.begin("create_volume", *_resources(volume, None))
    later = []
    if server:
        resources = _resources(volume, server.id)
        later = [cloud.actions.begin("attach_volume", *resources, after=action, server=server.id)]
    return created(
        volume=to_json(volume),
        action=action_json(cloud, action),
        next_actions=[action_json(cloud, each) for each in later],
    )


def update(cloud: Cloud, call: Call) -> Reply:
    """Change name or labels."""
    volume, body = _find(cloud, call), call.decode(Update)
    if body.name is not None:
        check_name("volume", body.name, cloud.store.all(Volume), but=volume.id)
        volume = replace(volume, name=body.name)
    if body.labels is not None:
        volume = replace(volume, labels=check_labels(body.labels))
    return ok(volume=to_json(cloud.store.put(volume)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Remove a volume that is not attached, with all that is on it."""
    volume = _free(cloud, call)
    if volume.protected:
        raise protected("volume", "deletion")
    if volume.server is not None:
        raise in_use(f"volume {volume.name} is still attached to a server")
    cloud.store.remove(volume)
    cloud.close_meters(volume.id)
    return no_content()


def attach(cloud: Cloud, call: Call) -> Reply:
    """Attach to a server at the same location."""
    volume, body = _free(cloud, call), call.decode(Attach)
    server = _server(cloud, body.server)
    check_attachable(volume, server.location)
    if cloud.actions.locks(Resource(type="server", id=server.id)):
        raise locked("server")
    action = cloud.actions.begin("attach_volume", *_resources(volume, server.id), server=server.id)
    return begun(cloud, action)


def detach(cloud: Cloud, call: Call) -> Reply:
    """Detach from its server."""
    volume = _free(cloud, call)
    if volume.server is None:
        raise invalid_input(("volume", "is not attached to a server"))
    return begun(cloud, cloud.actions.begin("detach_volume", *_resources(volume, volume.server)))


def resize(cloud: Cloud, call: Call) -> Reply:
    """Enlarge a volume; it can never shrink."""
    volume, body = _free(cloud, call), call.decode(Resize)
    if body.size <= volume.size:
        raise invalid_input(("size", f"must be greater than the present size ({volume.size})"))
    return begun(cloud, cloud.actions.begin("resize_volume", *_resources(volume, None), size=body.size))


def change_protection(cloud: Cloud, call: Call) -> Reply:
    """Protect against deletion, or no longer."""
    volume, body = _find(cloud, call), call.decode(Protection)
    if body.delete is not None:
        cloud.store.put(replace(volume, protected=body.delete))
    return created(action=action_json(cloud, cloud.actions.at_once("change_protection", *_resources(volume, None))))


def check_attachable(volume: Volume, location: str) -> None:
    """Refuse to attach what is attached already or is elsewhere."""
    if volume.server is not None:
        raise ApiError("volume_already_attached", f"volume {volume.name} is already attached to a server")
    if volume.location != location:
        raise invalid_input(("server", "volume and server must be in the same location"))


def to_json(volume: Volume) -> dict[str, Any]:
    """Write a volume in wire form."""
    return {
        "id": volume.id,
        "name": volume.name,
        "size": volume.size,
        "server": volume.server,
        "location": location_json(catalog.location_named(volume.location)),
        "linux_device": f"/dev/disk/by-id/scsi-0HC_Volume_{volume.id}",
        "format": volume.format,
        "status": volume.status,
        "protection": {"delete": volume.protected},
        "labels": volume.labels,
        "created": timestamp(volume.created),
    }


def _find(cloud: Cloud, call: Call) -> Volume:
    return cloud.find(Volume, "volume", call.id())


def _free(cloud: Cloud, call: Call) -> Volume:
    volume = _find(cloud, call)
    if any(cloud.actions.locks(resource) for resource in _resources(volume, volume.server)):
        raise locked("volume")
    return volume


def _server(cloud: Cloud, number: int) -> Server:
    server = cloud.store.get(Server, number)
    if server is None:
        raise unknown_reference("server", number)
    return server


def _resources(volume: Volume, server: int | None) -> list[Resource]:
    servers = [Resource(type="server", id=server)] if server is not None else []
    return [Resource(type="volume", id=volume.id), *servers]


def _meter(cloud: Cloud, volume: Volume) -> None:
    monthly = volume.size * catalog.VOLUME_GB_MONTHLY
    cloud.open_meter("volume", volume.id, volume.name, f"{volume.size} GB at {volume.location}", monthly)


def _of(cloud: Cloud, action: Action) -> Volume:
    return cloud.find(Volume, "volume", action.resources[0].id)


def _settle_create(cloud: Cloud, action: Action) -> None:
    cloud.store.put(replace(_of(cloud, action), status="available"))


def _settle_attach(cloud: Cloud, action: Action) -> None:
    cloud.store.put(replace(_of(cloud, action), server=action.arguments["server"]))


def _settle_detach(cloud: Cloud, action: Action) -> None:
    cloud.store.put(replace(_of(cloud, action), server=None))


def _settle_resize(cloud: Cloud, action: Action) -> None:
    volume = cloud.store.put(replace(_of(cloud, action), size=action.arguments["size"]))
    cloud.close_meters(volume.id)
    _meter(cloud, volume)
