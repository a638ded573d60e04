"""hcloud.PrimaryIp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud.api import retrying
from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.schema import Schema, boolean, integer, labels, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class PrimaryIp(Resource):
    """An address that may outlive the server it is assigned to."""

    schema = Schema(
        name="PrimaryIp",
        strict=False,
        properties={
            "assigneeId": integer(filled=True),
            "assigneeType": text(filled=True),
            "autoDelete": boolean(filled=True),
            "datacenter": text(filled=True),
            "deleteProtection": boolean(filled=True),
            "labels": labels(filled=True),
            "location": text(filled=True, replaces=True),
            "name": text(filled=True),
            "type": text(required=True, replaces=True),
            "ipAddress": text(computed=True),
            "ipNetwork": text(computed=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send POST /primary_ips."""
        body = given(
            name=inputs["name"],
            type=inputs["type"],
            location=inputs.get("location"),
            datacenter=inputs.get("datacenter"),
            labels=inputs.get("labels"),
            auto_delete=inputs.get("autoDelete"),
            assignee_id=inputs.get("assigneeId") or None,
            assignee_type=inputs.get("assigneeType"),
        )
        answer = await self.api.post("/primary_ips", body)
        return Made(object_id=str(answer["primary_ip"]["id"]), actions=[answer.get("action")])

    async def finish(self, object_id: str, inputs: Values) -> None:
        """Protect it if asked to."""
        if inputs.get("deleteProtection"):
            await self.protect(f"/primary_ips/{object_id}", delete=True)

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /primary_ips/{id}."""
        address = await self.api.find(f"/primary_ips/{object_id}", "primary_ip")
        if address is None:
            return None
        outputs = primary_ip_outputs(address)
        if outputs["assigneeType"] == "unassigned":
            # A program may say what the address is for before it is on a server; the API then says "unassigned".
            outputs["assigneeType"] = known.get("assigneeType") or "unassigned"
        return outputs

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Send PUT for each changed field, unassign and assign, protect."""
        path = f"/primary_ips/{object_id}"
        fields = {"name": "name", "autoDelete": "auto_delete", "labels": "labels"}
        await self.put_changed(path, new=new, changed=changed, fields=fields)
        if "assigneeId" in changed:
            if old.get("assigneeId"):
                await self.api.act(f"{path}/actions/unassign")
            if server_id := new.get("assigneeId"):
                await self.api.act(f"{path}/actions/assign", {"assignee_id": server_id, "assignee_type": "server"})
        if "deleteProtection" in changed:
            await self.protect(path, delete=bool(new.get("deleteProtection")))

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Take it from its server, which must be off for that, and delete it."""
        path = f"/primary_ips/{object_id}"
        if outputs.get("assigneeId"):
            await self._release(int(object_id), server_id=outputs["assigneeId"])
        codes = {"conflict", "locked", "must_be_unassigned", "resource_in_use", "primary_ip_assigned"}
        await retrying(10, codes, lambda: self.delete_if_there(path))

    async def _release(self, address_id: int, *, server_id: int) -> None:
        server = await self.api.find(f"/servers/{server_id}", "server")
        public = server["public_net"] if server else {}
        if address_id not in {(public.get(family) or {}).get("id") for family in ("ipv4", "ipv6")}:
            return
        await self.api.act(f"/servers/{server_id}/actions/poweroff")
        try:
            await self.api.act(f"/primary_ips/{address_id}/actions/unassign")
        except ProviderError:
            # The server may be on its way out and have let go of the address by itself; the DELETE tells.
            return
        await self.api.act(f"/servers/{server_id}/actions/poweron")


def primary_ip_outputs(address: Mapping[str, Any]) -> dict[str, Any]:
    """Translate an address as the API tells it: an IPv6 one is a network, whose base is the address."""
    is_network = address["type"] == "ipv6"
    return {
        "assigneeId": address.get("assignee_id") or 0,
        "assigneeType": address.get("assignee_type"),
        "autoDelete": address["auto_delete"],
        "datacenter": (address.get("datacenter") or {}).get("name"),
        "deleteProtection": address["protection"]["delete"],
        "ipAddress": address["ip"].split("/")[0],
        "ipNetwork": address["ip"] if is_network else None,
        "labels": address["labels"],
        "location": location_name(address),
        "name": address["name"],
        "type": address["type"],
    }


def location_name(payload: Mapping[str, Any]) -> str | None:
    """Return where an object is; before datacenters went away the location was inside one."""
    location = payload.get("location") or (payload.get("datacenter") or {}).get("location") or {}
    return location.get("name")
