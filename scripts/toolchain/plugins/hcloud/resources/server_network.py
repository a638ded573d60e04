"""hcloud.ServerNetwork."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud.api import retrying
from scripts.toolchain.plugins.hcloud.errors import CloudError
from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.schema import STRING, Schema, array, integer, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from scripts.toolchain.plugins.hcloud.api import Api

BUSY = frozenset({"conflict", "locked", "service_error"})


class ServerNetwork(Resource):
    """A server in a network; its id is `<server>-<network>`."""

    schema = Schema(
        name="ServerNetwork",
        properties={
            "aliasIps": array(STRING, filled=True),
            "ip": text(filled=True, replaces=True),
            "networkId": integer(filled=True, replaces=True),
            "serverId": integer(required=True, replaces=True),
            "subnetId": text(replaces=True),
            "macAddress": text(computed=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send attach_to_network, again while the server is busy or the network has no subnet yet."""
        network_id, ip_range = _network(inputs)
        body = given(
            network=network_id, ip_range=ip_range, ip=inputs.get("ip"), alias_ips=inputs.get("aliasIps") or None
        )
        action = await attach_to_network(self.api, inputs["serverId"], body)
        return Made(object_id=f"{inputs['serverId']}-{network_id}", actions=[action])

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /servers/{id} and look for the network."""
        server_id, network_id = _parse_id(object_id)
        server = await self.api.find(f"/servers/{server_id}", "server")
        attachments = server["private_net"] if server else ()
        found = next((item for item in attachments if item["network"] == network_id), None)
        if found is None:
            return None
        return {**attachment_outputs(found), "serverId": server_id, "subnetId": known.get("subnetId")}

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Send change_alias_ips; every other change replaces it."""
        del old
        server_id, network_id = _parse_id(object_id)
        if "aliasIps" in changed:
            await change_alias_ips(self.api, server_id, network_id, new["aliasIps"])

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send detach_from_network; that it is not attached is success."""
        del outputs
        server_id, network_id = _parse_id(object_id)
        try:
            await detach_from_network(self.api, server_id, network_id)
        except CloudError as error:
            if error.code != "not_found":
                raise


async def attach_to_network(api: Api, server_id: int, body: dict[str, Any]) -> dict[str, Any] | None:
    """Begin to attach a server to a network; no action when it is attached already."""
    path = f"/servers/{server_id}/actions/attach_to_network"
    try:
        answer = await retrying(5, BUSY | {"no_subnet_available"}, lambda: api.post(path, body))
    except CloudError as error:
        if error.code != "server_already_attached":
            raise
        return None
    return answer.get("action")


async def detach_from_network(api: Api, server_id: int, network_id: int) -> None:
    """Take a server out of a network."""
    path = f"/servers/{server_id}/actions/detach_from_network"
    await retrying(5, BUSY, lambda: api.act(path, {"network": network_id}))


async def change_alias_ips(api: Api, server_id: int, network_id: int, alias_ips: list[str]) -> None:
    """Give a server these alias addresses in a network, and no others."""
    path = f"/servers/{server_id}/actions/change_alias_ips"
    await retrying(5, BUSY, lambda: api.act(path, {"network": network_id, "alias_ips": alias_ips}))


def attachment_outputs(attachment: Mapping[str, Any]) -> dict[str, Any]:
    """Translate one private network of a server."""
    return {
        "aliasIps": attachment.get("alias_ips") or [],
        "ip": attachment["ip"],
        "macAddress": attachment.get("mac_address"),
        "networkId": attachment["network"],
    }


def _parse_id(text: str) -> tuple[int, int]:
    server, _, network = text.partition("-")
    if not (server.isdigit() and network.isdigit()):
        raise ProviderError(f"{text!r}: expected the id <server>-<network>")
    return int(server), int(network)


def _network(inputs: Values) -> tuple[int, str | None]:
    """Return the network, and the range of it that a subnet's id names."""
    subnet = inputs.get("subnetId")
    if not subnet:
        if not inputs.get("networkId"):
            raise ProviderError("give networkId or subnetId")
        return inputs["networkId"], None
    network, _, ip_range = subnet.partition("-")
    if not network.isdigit() or not ip_range:
        raise ProviderError(f"subnetId {subnet!r}: expected <network>-<range>")
    if inputs.get("networkId") not in (None, int(network)):
        raise ProviderError(f"networkId {inputs['networkId']} and subnetId {subnet!r} are of different networks")
    return int(network), ip_range
