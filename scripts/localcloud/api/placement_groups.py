"""/placement_groups: servers on different hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from scripts.localcloud.api.call import (
    Call,
    Reply,
    Routes,
    check_labels,
    check_name,
    created,
    listing,
    no_content,
    ok,
    timestamp,
)
from scripts.localcloud.errors import ApiError, in_use, invalid_input
from scripts.localcloud.records import PlacementGroup, Server

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud

MAX_SERVERS = 10


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /placement_groups": list_groups,
        "POST /placement_groups": create,
        "GET /placement_groups/{id}": get,
        "PUT /placement_groups/{id}": update,
        "DELETE /placement_groups/{id}": delete,
    }


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a creation."""

    name: str
    type: str
    labels: dict[str, str] | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    name: str | None = None
    labels: dict[str, str] | None = None


def list_groups(cloud: Cloud, call: Call) -> Reply:
    """List groups."""
    groups, kinds = cloud.store.all(PlacementGroup), call.all("type")
    wanted = [group for group in groups if not kinds or group.type in kinds]
    return listing(call, "placement_groups", wanted, lambda group: to_json(cloud, group))


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one group."""
    return ok(placement_group=to_json(cloud, cloud.find(PlacementGroup, "placement group", call.id())))


def create(cloud: Cloud, call: Call) -> Reply:
    """Make a group; there is only the type spread."""
    body = call.decode(Create)
    labels = check_labels(body.labels)
    if body.type != "spread":
        raise invalid_input(("type", f"'{body.type}' is not a placement group type (spread)"))
    check_name("placement group", body.name, cloud.store.all(PlacementGroup))
    cloud.check_limit("placement_groups", PlacementGroup)
    group = PlacementGroup(
        id=cloud.store.next_id(), name=body.name, type=body.type, labels=labels, created=cloud.clock.now()
    )
    return created(placement_group=to_json(cloud, cloud.store.put(group)), action=None)


def update(cloud: Cloud, call: Call) -> Reply:
    """Change name or labels."""
    group, body = cloud.find(PlacementGroup, "placement group", call.id()), call.decode(Update)
    if body.name is not None:
        check_name("placement group", body.name, cloud.store.all(PlacementGroup), but=group.id)
        group = replace(group, name=body.name)
    if body.labels is not None:
        group = replace(group, labels=check_labels(body.labels))
    return ok(placement_group=to_json(cloud, cloud.store.put(group)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Remove an empty group."""
    group = cloud.find(PlacementGroup, "placement group", call.id())
    if members(cloud, group.id):
        raise in_use(f"placement group {group.name} still has servers")
    cloud.store.remove(group)
    return no_content()


def members(cloud: Cloud, group: int) -> list[int]:
    """Give the servers of a group."""
    return [server.id for server in cloud.store.all(Server) if server.placement_group == group]


def check_room(cloud: Cloud, group: PlacementGroup) -> None:
    """Refuse the eleventh server: there are no more hosts to spread over."""
    if len(members(cloud, group.id)) >= MAX_SERVERS:
        raise ApiError("placement_error", f"placement group {group.name} is full ({MAX_SERVERS} servers)")


def to_json(cloud: Cloud, group: PlacementGroup) -> dict[str, Any]:
    """Write a group in wire form."""
    return {
        "id": group.id,
        "name": group.name,
        "type": group.type,
        "servers": members(cloud, group.id),
        "labels": group.labels,
        "created": timestamp(group.created),
    }
