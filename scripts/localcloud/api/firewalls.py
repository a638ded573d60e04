"""/firewalls: rules enforced outside the machines."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scripts.localcloud.actions import Work
from scripts.localcloud.api.call import (
    Call,
    Reply,
    Routes,
    action_json,
    check_labels,
    check_name,
    created,
    listing,
    no_content,
    ok,
    timestamp,
)
from scripts.localcloud.errors import ApiError, in_use, invalid_input
from scripts.localcloud.labels import InvalidSelector, parse_selector, selects
from scripts.localcloud.records import Action, Firewall, Resource, Rule, Server, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.localcloud.cloud import Cloud

MAX_RULES = 50
MAX_NETWORKS = 100
"""Of one rule."""
MAX_EFFECTIVE = 500
"""Of one firewall: each network of each rule counts."""
MAX_PER_SERVER = 5


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /firewalls": list_firewalls,
        "POST /firewalls": create,
        "GET /firewalls/{id}": get,
        "PUT /firewalls/{id}": update,
        "DELETE /firewalls/{id}": delete,
        "POST /firewalls/{id}/actions/set_rules": set_rules,
        "POST /firewalls/{id}/actions/apply_to_resources": apply_to_resources,
        "POST /firewalls/{id}/actions/remove_from_resources": remove_from_resources,
    }


async def _push(cloud: Cloud, _: Action) -> None:
    await cloud.push_firewalls()


def work() -> dict[str, Work]:
    """Give what the actions of this resource do: the record says at once what shall be, the action brings it about."""
    push = Work(seconds=1, drive=_push, locks=False)
    return {"set_firewall_rules": push, "apply_firewall": push, "remove_firewall": push}


class RuleBody(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a body."""

    direction: Literal["in", "out"]
    protocol: Literal["tcp", "udp", "icmp", "esp", "gre"]
    port: str | None = None
    source_ips: list[str] | None = None
    destination_ips: list[str] | None = None
    description: str | None = None


class ServerRef(msgspec.Struct, frozen=True, kw_only=True):
    """A server to apply to."""

    id: int


class SelectorRef(msgspec.Struct, frozen=True, kw_only=True):
    """Labels to apply to."""

    selector: str


class TargetBody(msgspec.Struct, frozen=True, kw_only=True):
    """What to apply to."""

    type: Literal["server", "label_selector"]
    server: ServerRef | None = None
    label_selector: SelectorRef | None = None


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a creation."""

    name: str
    rules: list[RuleBody] | None = None
    apply_to: list[TargetBody] | None = None
    labels: dict[str, str] | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    name: str | None = None
    labels: dict[str, str] | None = None


class SetRules(msgspec.Struct, frozen=True, kw_only=True):
    """Body of set_rules."""

    rules: list[RuleBody]


class ApplyTo(msgspec.Struct, frozen=True, kw_only=True):
    """Body of apply_to_resources."""

    apply_to: list[TargetBody]


class RemoveFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Body of remove_from_resources."""

    remove_from: list[TargetBody]


def list_firewalls(cloud: Cloud, call: Call) -> Reply:
    """List firewalls."""
    return listing(call, "firewalls", cloud.store.all(Firewall), lambda firewall: to_json(cloud, firewall))


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one firewall."""
    return ok(firewall=to_json(cloud, cloud.find(Firewall, "firewall", call.id())))


def create(cloud: Cloud, call: Call) -> Reply:
    """Make a firewall and apply it."""
    body = call.decode(Create)
    labels, rules = check_labels(body.labels), _rules(body.rules or ())
    check_name("firewall", body.name, cloud.store.all(Firewall))
    cloud.check_limit("firewalls", Firewall)
    firewall = Firewall(
        id=cloud.store.next_id(),
        name=body.name,
        rules=rules,
        applied_to=(),
        labels=labels,
        created=cloud.clock.now(),
    )
    cloud.store.put(firewall)
    resource = Resource(type="firewall", id=firewall.id)
    actions = [cloud.actions.begin("set_firewall_rules", resource)] if rules else []
    actions += [apply(cloud, firewall.id, _target(cloud, target)) for target in body.apply_to or ()]
    firewall = cloud.find(Firewall, "firewall", firewall.id)
    return created(firewall=to_json(cloud, firewall), actions=[action_json(cloud, action) for action in actions])


def update(cloud: Cloud, call: Call) -> Reply:
    """Change name or labels."""
    firewall, body = cloud.find(Firewall, "firewall", call.id()), call.decode(Update)
    if body.name is not None:
        check_name("firewall", body.name, cloud.store.all(Firewall), but=firewall.id)
        firewall = replace(firewall, name=body.name)
    if body.labels is not None:
        firewall = replace(firewall, labels=check_labels(body.labels))
    return ok(firewall=to_json(cloud, cloud.store.put(firewall)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Remove a firewall that is applied to nothing."""
    firewall = cloud.find(Firewall, "firewall", call.id())
    if firewall.applied_to:
        raise in_use(f"firewall {firewall.name} is still in use")
    cloud.store.remove(firewall)
    return no_content()


def set_rules(cloud: Cloud, call: Call) -> Reply:
    """Replace all rules."""
    firewall, body = cloud.find(Firewall, "firewall", call.id()), call.decode(SetRules)
    cloud.store.put(replace(firewall, rules=_rules(body.rules)))
    resources = [Resource(type="firewall", id=firewall.id)]
    resources += [Resource(type="server", id=server) for server in sorted(cloud.targets(firewall))]
    action = cloud.actions.begin("set_firewall_rules", *resources)
    return created(actions=[action_json(cloud, action)])


def apply_to_resources(cloud: Cloud, call: Call) -> Reply:
    """Apply to more servers or labels."""
    firewall, body = cloud.find(Firewall, "firewall", call.id()), call.decode(ApplyTo)
    actions = [apply(cloud, firewall.id, _target(cloud, target)) for target in body.apply_to]
    return created(actions=[action_json(cloud, action) for action in actions])


def remove_from_resources(cloud: Cloud, call: Call) -> Reply:
    """Take it off servers or labels; what it is not applied to is passed over."""
    number, body = call.id(), call.decode(RemoveFrom)
    cloud.find(Firewall, "firewall", number)
    actions = [_remove(cloud, number, _target(cloud, target)) for target in body.remove_from]
    return created(actions=[action_json(cloud, action) for action in actions])


def apply(cloud: Cloud, number: int, target: Target) -> Action:
    """Apply a firewall to one target; within a call's transaction."""
    firewall = cloud.find(Firewall, "firewall", number)
    if target in firewall.applied_to:
        raise ApiError("firewall_already_applied", f"firewall {firewall.name} was already applied on the resource")
    if target.server is not None:
        if len(cloud.firewalls(target.server)) >= MAX_PER_SERVER:
            raise ApiError("resource_limit_exceeded", f"a server takes at most {MAX_PER_SERVER} firewalls")
        if not cloud.addresses(target.server):
            raise ApiError("private_net_only_server", "the server has no public interface")
    cloud.store.put(replace(firewall, applied_to=(*firewall.applied_to, target)))
    return cloud.actions.begin("apply_firewall", *_resources(number, target))


def _remove(cloud: Cloud, number: int, target: Target) -> Action:
    firewall = cloud.find(Firewall, "firewall", number)
    if target not in firewall.applied_to and target.server in cloud.targets(firewall):
        raise ApiError(
            "firewall_managed_by_label_selector",
            f"firewall {firewall.name} is applied to the server by a label selector",
        )
    kept = tuple(each for each in firewall.applied_to if each != target)
    cloud.store.put(replace(firewall, applied_to=kept))
    return cloud.actions.begin("remove_firewall", *_resources(number, target))


def _resources(firewall: int, target: Target) -> list[Resource]:
    servers = [Resource(type="server", id=target.server)] if target.server is not None else []
    return [Resource(type="firewall", id=firewall), *servers]


def _target(cloud: Cloud, body: TargetBody) -> Target:
    if body.type == "server" and body.server:
        if cloud.store.get(Server, body.server.id) is None:
            raise ApiError("firewall_resource_not_found", f"server {body.server.id} not found")
        return Target(server=body.server.id)
    if body.type == "label_selector" and body.label_selector:
        try:
            parse_selector(body.label_selector.selector)
        except InvalidSelector as exc:
            raise invalid_input(("label_selector", str(exc))) from exc
        return Target(selector=body.label_selector.selector)
    raise invalid_input((body.type, "Missing data for required field."))


def _rules(bodies: Sequence[RuleBody]) -> tuple[Rule, ...]:
    if len(bodies) > MAX_RULES:
        raise invalid_input(("rules", f"a firewall takes at most {MAX_RULES} rules"))
    problems = [
        (f"rules[{number}].{field}", message)
        for number, body in enumerate(bodies)
        for field, message in _rule_problems(body)
    ]
    if problems:
        raise invalid_input(*problems)
    if sum(len(body.source_ips or ()) + len(body.destination_ips or ()) for body in bodies) > MAX_EFFECTIVE:
        raise ApiError("resource_limit_exceeded", f"firewall limit exceeded ({MAX_EFFECTIVE} effective rules)")
    return tuple(
        Rule(
            direction=body.direction,
            protocol=body.protocol,
            port=body.port,
            source_ips=tuple(body.source_ips or ()),
            destination_ips=tuple(body.destination_ips or ()),
            description=body.description,
        )
        for body in bodies
    )


def _rule_problems(body: RuleBody) -> list[tuple[str, str]]:
    here, there = ("source_ips", "destination_ips") if body.direction == "in" else ("destination_ips", "source_ips")
    networks = getattr(body, here) or []
    problems = [] if networks else [(here, f"is required for direction {body.direction}")]
    if getattr(body, there):
        problems.append((there, f"must be empty for direction {body.direction}"))
    if len(networks) > MAX_NETWORKS:
        problems.append((here, f"value required to be smaller ({MAX_NETWORKS} networks at most)"))
    problems += [(here, f"'{network}' is not a valid CIDR") for network in networks if not _is_network(network)]
    if body.protocol in ("tcp", "udp"):
        if not _is_port(body.port):
            problems.append(("port", "must be a port, a range of ports or 'any'"))
    elif body.port is not None:
        problems.append(("port", f"must be empty for protocol {body.protocol}"))
    return problems


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "/" in text


def _is_port(text: str | None) -> bool:
    if text == "any":
        return True
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text or "")
    return found is not None and 1 <= int(found[1]) <= int(found[2] or found[1]) <= 65535


def to_json(cloud: Cloud, firewall: Firewall) -> dict[str, Any]:
    """Write a firewall in wire form."""
    return {
        "id": firewall.id,
        "name": firewall.name,
        "labels": firewall.labels,
        "created": timestamp(firewall.created),
        "rules": [
            {
                "direction": rule.direction,
                "protocol": rule.protocol,
                "port": rule.port,
                "source_ips": list(rule.source_ips),
                "destination_ips": list(rule.destination_ips),
                "description": rule.description,
            }
            for rule in firewall.rules
        ],
        "applied_to": [_target_json(cloud, target) for target in firewall.applied_to],
    }


def _target_json(cloud: Cloud, target: Target) -> dict[str, Any]:
    if target.selector is None:
        return {"type": "server", "server": {"id": target.server}}
    servers = [server.id for server in cloud.store.all(Server) if selects(target.selector, server.labels)]
    return {
        "type": "label_selector",
        "label_selector": {"selector": target.selector},
        "applied_to_resources": [{"type": "server", "server": {"id": server}} for server in servers],
    }
