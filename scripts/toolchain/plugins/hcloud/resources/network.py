"""hcloud.Network and hcloud.NetworkSubnet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.hcloud import lookup
from scripts.toolchain.plugins.hcloud.api import retrying
from scripts.toolchain.plugins.hcloud.errors import CloudError
from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.schema import Schema, boolean, choice, integer, labels, text

if TYPE_CHECKING:
    from collections.abc import Mapping


class Network(Resource):
    """A private network."""

    schema = Schema(
        name="Network",
        properties={
            "deleteProtection": boolean(),
            "exposeRoutesToVswitch": boolean(),
            "ipRange": text(required=True, replaces=True),
            "labels": labels(),
            "name": text(filled=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send POST /networks."""
        body = given(
            name=inputs["name"],
            ip_range=inputs["ipRange"],
            labels=inputs.get("labels"),
            expose_routes_to_vswitch=inputs.get("exposeRoutesToVswitch"),
        )
        answer = await self.api.post("/networks", body)
        return Made(object_id=str(answer["network"]["id"]))

    async def finish(self, object_id: str, inputs: Values) -> None:
        """Protect it if asked to."""
        if inputs.get("deleteProtection"):
            await self.protect(f"/networks/{object_id}", delete=True)

    async def identify(self, given: str) -> str:
        """Take a name too."""
        return await lookup.identify(self._find, given)

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /networks/{id}, then ?name=."""
        del known
        network = await self._find(object_id)
        if network is None:
            return None
        return {
            "deleteProtection": network["protection"]["delete"],
            "exposeRoutesToVswitch": network.get("expose_routes_to_vswitch", False),
            "ipRange": network["ip_range"],
            "labels": network["labels"],
            "name": network["name"],
        }

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Send PUT for each changed field."""
        del old
        fields = {"name": "name", "labels": "labels"}
        path = f"/networks/{object_id}"
        await self.put_changed(path, new=new, changed=changed, fields=fields)
        if "exposeRoutesToVswitch" in changed:
            await self.api.put(path, {"expose_routes_to_vswitch": bool(new.get("exposeRoutesToVswitch"))})
        if "deleteProtection" in changed:
            await self.protect(path, delete=bool(new.get("deleteProtection")))

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send DELETE /networks/{id}."""
        del outputs
        await self.delete_if_there(f"/networks/{object_id}")

    async def _find(self, given: str) -> Any:
        return await lookup.by_id_or_name(self.api, "/networks", "network", "networks", given)


class NetworkSubnet(Resource):
    """A range of a network that servers get addresses from; its id is `<network>-<range>`."""

    schema = Schema(
        name="NetworkSubnet",
        properties={
            "ipRange": text(required=True, replaces=True),
            "networkId": integer(required=True, replaces=True),
            "networkZone": text(required=True, replaces=True),
            "type": text(required=True, replaces=True, check=choice("cloud", "server", "vswitch")),
            "vswitchId": integer(replaces=True),
            "gateway": text(computed=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send add_subnet, again while the network is busy."""
        body = given(
            type=inputs["type"],
            ip_range=inputs["ipRange"],
            network_zone=inputs["networkZone"],
            vswitch_id=inputs.get("vswitchId"),
        )
        path = f"/networks/{inputs['networkId']}/actions/add_subnet"
        answer = await retrying(5, {"conflict"}, lambda: self.api.post(path, body))
        return Made(object_id=f"{inputs['networkId']}-{inputs['ipRange']}", actions=[answer.get("action")])

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /networks/{id} and look for the range."""
        del known
        subnet = await self._find(object_id)
        if subnet is None:
            return None
        return {
            "gateway": subnet.get("gateway"),
            "ipRange": subnet["ip_range"],
            "networkId": int(object_id.split("-", 1)[0]),
            "networkZone": subnet["network_zone"],
            "type": subnet["type"],
            "vswitchId": subnet.get("vswitch_id"),
        }

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Do nothing: every change replaces it."""

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send delete_subnet, again while the network is busy."""
        del outputs
        network, ip_range = object_id.split("-", 1)
        path = f"/networks/{network}/actions/delete_subnet"
        try:
            await retrying(50, {"conflict", "locked"}, lambda: self.api.act(path, {"ip_range": ip_range}))
        except CloudError as error:
            if error.code != "not_found" or await self._find(object_id) is not None:
                raise

    async def _find(self, object_id: str) -> Mapping[str, Any] | None:
        network_id, _, ip_range = object_id.partition("-")
        network = await self.api.find(f"/networks/{network_id}", "network")
        subnets = network["subnets"] if network else ()
        return next((subnet for subnet in subnets if subnet["ip_range"] == ip_range), None)
