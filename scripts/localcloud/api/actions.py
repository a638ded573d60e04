"""/actions: what is under way, for all resources or for one kind or one resource."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scripts.localcloud.api.call import Call, Reply, Routes, action_json, ok, page_of
from scripts.localcloud.errors import gone, invalid_input, not_found
from scripts.localcloud.records import Action, Resource

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud

ANNOUNCEMENT = "https://docs.hetzner.cloud/changelog#2023-07-20-actions-list-endpoint-is-deprecated"
KINDS = {
    "firewalls": "firewall",
    "images": "image",
    "networks": "network",
    "primary_ips": "primary_ip",
    "servers": "server",
    "volumes": "volume",
}
SORTABLE = ("id", "command", "status", "started", "finished")


def routes() -> Routes:
    """Give the calls of this resource."""
    table: dict[str, object] = {"GET /actions": list_actions, "GET /actions/{action}": get}
    for path, kind in KINDS.items():
        table[f"GET /{path}/actions"] = partial(list_of_kind, kind=kind)
        table[f"GET /{path}/actions/{{action}}"] = partial(get, kind=kind)
        table[f"GET /{path}/{{id}}/actions"] = partial(list_of_kind, kind=kind)
        table[f"GET /{path}/{{id}}/actions/{{action}}"] = partial(get, kind=kind)
    return table  # type: ignore[return-value] # partial keeps the signature


def list_actions(cloud: Cloud, call: Call) -> Reply:
    """List the actions that are asked for by id; the list of all was removed by the vendor."""
    ids = call.all("id")
    if not ids:
        raise gone("listing all actions", ANNOUNCEMENT)
    if wrong := [number for number in ids if not number.isdecimal()]:
        raise invalid_input(("id", f"'{wrong[0]}' is not a number"))
    numbers = {int(number) for number in ids}
    return _listing(cloud, call, [action for action in cloud.store.all(Action) if action.id in numbers])


def list_of_kind(cloud: Cloud, call: Call, *, kind: str) -> Reply:
    """List the actions of one kind of resource, or of one resource."""
    number = call.id() if "id" in call.path else None
    found = [action for action in cloud.store.all(Action) if _concerns(action, kind, number)]
    return _listing(cloud, call, found)


def get(cloud: Cloud, call: Call, *, kind: str | None = None) -> Reply:
    """Show one action."""
    action = cloud.find(Action, "action", call.id("action"))
    if kind and not _concerns(action, kind, call.id() if "id" in call.path else None):
        raise not_found("action", action.id)
    return ok(action=action_json(cloud, action))


def _listing(cloud: Cloud, call: Call, actions: list[Action]) -> Reply:
    status = call.all("status")
    wanted = [action for action in actions if not status or action.status in status]
    return page_of(call, "actions", wanted, lambda action: action_json(cloud, action), SORTABLE)


def _concerns(action: Action, kind: str, number: int | None) -> bool:
    if number is not None:
        return Resource(type=kind, id=number) in action.resources
    return any(resource.type == kind for resource in action.resources)
