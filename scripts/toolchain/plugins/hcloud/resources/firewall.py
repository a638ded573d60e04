"""hcloud.Firewall and hcloud.FirewallAttachment."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud.api import begun, retrying
from scripts.toolchain.plugins.hcloud.errors import CloudError
from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.schema import (
    INTEGER,
    STRING,
    ListOf,
    Object,
    Property,
    Schema,
    array,
    choice,
    integer,
    labels,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def _check_networks(networks: list[Any]) -> str | None:
    for network in networks:
        if not isinstance(network, str):
            continue
        try:
            ipaddress.ip_network(network)
        except ValueError:
            return _network_problem(network)
    return None


def _network_problem(network: str) -> str:
    try:
        meant = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return f"{network} is no network in CIDR notation"
    return f"{network} has host bits set; the network is {meant}"


_NETWORKS = Property(type=ListOf(element=STRING), check=_check_networks)
_RULE = Object(
    properties={
        "description": text(),
        "destinationIps": _NETWORKS,
        "direction": text(required=True, check=choice("in", "out")),
        "port": text(),
        "protocol": text(required=True, check=choice("tcp", "udp", "icmp", "esp", "gre")),
        "sourceIps": _NETWORKS,
    }
)
_APPLY_TO = Object(properties={"labelSelector": text(), "server": integer()})


class Firewall(Resource):
    """Rules, and the servers that they apply to."""

    schema = Schema(
        name="Firewall",
        properties={
            "applyTos": array(_APPLY_TO, filled=True),
            "labels": labels(filled=True),
            "name": text(filled=True),
            "rules": array(_RULE),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send POST /firewalls."""
        body = given(
            name=inputs["name"],
            labels=inputs.get("labels"),
            rules=_wire_rules(inputs.get("rules", ())) or None,
            apply_to=_wire_targets(inputs.get("applyTos", ())) or None,
        )
        answer = await self.api.post("/firewalls", body)
        return Made(object_id=str(answer["firewall"]["id"]), actions=answer.get("actions") or ())

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /firewalls/{id}."""
        del known
        firewall = await self.api.find(f"/firewalls/{object_id}", "firewall")
        return None if firewall is None else firewall_outputs(firewall)

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Send PUT for name and labels, set_rules for rules, and move it to and from servers."""
        path = f"/firewalls/{object_id}"
        await self.put_changed(path, new=new, changed=changed, fields={"name": "name", "labels": "labels"})
        if "rules" in changed:
            await self.api.act(f"{path}/actions/set_rules", {"rules": _wire_rules(new.get("rules", ()))})
        if "applyTos" in changed:
            await move_firewall(
                self.api, path, before=_wire_targets(old.get("applyTos", ())), after=_wire_targets(new["applyTos"])
            )

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Take it from everything it is applied to, then delete it, again while the API still sees it in use."""
        del outputs
        path = f"/firewalls/{object_id}"
        firewall = await self.api.find(path, "firewall")
        if firewall is None:
            return
        applied = _wire_targets(firewall_outputs(firewall)["applyTos"])
        await move_firewall(self.api, path, before=applied, after=[])
        await retrying(10, {"conflict", "resource_in_use"}, lambda: self.delete_if_there(path))


class FirewallAttachment(Resource):
    """The servers of a firewall that is declared elsewhere; its id is the firewall's."""

    schema = Schema(
        name="FirewallAttachment",
        properties={
            "firewallId": integer(required=True, replaces=True),
            "labelSelectors": array(STRING),
            "serverIds": array(INTEGER),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send apply_to_resources; that it is applied already is success."""
        targets = _attached(inputs)
        if not targets:
            raise ProviderError("no resources referenced: give serverIds or labelSelectors")
        object_id = str(inputs["firewallId"])
        actions: list[dict[str, Any] | None] = []
        try:
            answer = await self.api.post(f"/firewalls/{object_id}/actions/apply_to_resources", {"apply_to": targets})
            actions = begun(answer)
        except CloudError as error:
            if error.code != "firewall_already_applied":
                raise
        return Made(object_id=object_id, actions=actions)

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /firewalls/{id}."""
        del known
        firewall = await self.api.find(f"/firewalls/{object_id}", "firewall")
        if firewall is None:
            return None
        targets = firewall_outputs(firewall)["applyTos"]
        return {
            "firewallId": int(object_id),
            "labelSelectors": [target["labelSelector"] for target in targets if "labelSelector" in target],
            "serverIds": [target["server"] for target in targets if "server" in target],
        }

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Remove what is too much, apply what is missing."""
        del changed
        await move_firewall(self.api, f"/firewalls/{object_id}", before=_attached(old), after=_attached(new))

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send remove_from_resources; that it is removed already is success."""
        await move_firewall(self.api, f"/firewalls/{object_id}", before=_attached(outputs), after=[])


async def move_firewall(api: Any, path: str, *, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Remove a firewall from what is only in `before`, then apply it to what is only in `after`."""
    less = [target for target in before if target not in after]
    more = [target for target in after if target not in before]
    if less:
        try:
            await api.act(f"{path}/actions/remove_from_resources", {"remove_from": less})
        except CloudError as error:
            if error.code != "firewall_already_removed":
                raise
    if more:
        await api.act(f"{path}/actions/apply_to_resources", {"apply_to": more})


def server_target(server_id: int) -> dict[str, Any]:
    """Name a server as what a firewall is applied to."""
    return {"type": "server", "server": {"id": server_id}}


def firewall_outputs(firewall: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a firewall as the API tells it."""
    targets = []
    for target in firewall["applied_to"]:
        if target["type"] == "server":
            targets.append({"server": target["server"]["id"]})
        else:
            targets.append({"labelSelector": target["label_selector"]["selector"]})
    return {
        "applyTos": targets,
        "labels": firewall["labels"],
        "name": firewall["name"],
        "rules": [_rule_output(rule) for rule in firewall["rules"]],
    }


def _rule_output(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": rule.get("description"),
        "destinationIps": rule.get("destination_ips") or [],
        "direction": rule["direction"],
        "port": rule.get("port"),
        "protocol": rule["protocol"],
        "sourceIps": rule.get("source_ips") or [],
    }


def _wire_rules(rules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        given(
            description=rule.get("description"),
            destination_ips=rule.get("destinationIps", []),
            direction=rule["direction"],
            port=rule.get("port") or None,
            protocol=rule["protocol"],
            source_ips=rule.get("sourceIps", []),
        )
        for rule in rules
    ]


def _wire_targets(targets: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        server_target(target["server"]) if target.get("server") else _selector_target(target["labelSelector"])
        for target in targets
    ]


def _attached(values: Values) -> list[dict[str, Any]]:
    servers = [server_target(server_id) for server_id in sorted(values.get("serverIds") or ())]
    return servers + [_selector_target(selector) for selector in sorted(values.get("labelSelectors") or ())]


def _selector_target(selector: str) -> dict[str, Any]:
    return {"type": "label_selector", "label_selector": {"selector": selector}}
