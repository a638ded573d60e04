"""hcloud.Volume and hcloud.VolumeAttachment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.toolchain.plugins.hcloud.api import begun, retrying
from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.resources.primary_ip import location_name
from scripts.toolchain.plugins.hcloud.schema import Schema, boolean, integer, labels, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Volume(Resource):
    """A disk of its own."""

    schema = Schema(
        name="Volume",
        properties={
            "automount": boolean(),
            "deleteProtection": boolean(),
            "format": text(),
            "labels": labels(),
            "location": text(filled=True, replaces=True),
            "name": text(filled=True),
            "serverId": integer(filled=True),
            "size": integer(required=True),
            "linuxDevice": text(computed=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send POST /volumes."""
        body = given(
            name=inputs["name"],
            size=inputs["size"],
            location=inputs.get("location"),
            server=inputs.get("serverId"),
            format=inputs.get("format"),
            automount=inputs.get("automount"),
            labels=inputs.get("labels"),
        )
        answer = await self.api.post("/volumes", body)
        return Made(object_id=str(answer["volume"]["id"]), actions=begun(answer))

    async def finish(self, object_id: str, inputs: Values) -> None:
        """Protect it if asked to."""
        if inputs.get("deleteProtection"):
            await self.protect(f"/volumes/{object_id}", delete=True)

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /volumes/{id}."""
        volume = await self.api.find(f"/volumes/{object_id}", "volume")
        if volume is None:
            return None
        kept = {name: known.get(name) for name in ("automount", "format")}
        return kept | volume_outputs(volume)

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Send PUT for name and labels; move, resize and protect it."""
        path = f"/volumes/{object_id}"
        await self.put_changed(path, new=new, changed=changed, fields={"name": "name", "labels": "labels"})
        if "serverId" in changed:
            if old.get("serverId"):
                await detach(self, object_id)
            if new.get("serverId"):
                await attach(self, object_id, given(server=new["serverId"], automount=new.get("automount")))
        if "size" in changed:
            await self.api.act(f"{path}/actions/resize", {"size": new["size"]})
        if "deleteProtection" in changed:
            await self.protect(path, delete=bool(new.get("deleteProtection")))

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Detach and delete it."""
        del outputs
        path = f"/volumes/{object_id}"
        volume = await self.api.find(path, "volume")
        if volume is None:
            return
        if volume.get("server"):
            await detach(self, object_id)
        await retrying(5, {"conflict", "locked"}, lambda: self.delete_if_there(path))


class VolumeAttachment(Resource):
    """A volume on a server; its id is the volume's."""

    schema = Schema(
        name="VolumeAttachment",
        properties={
            "automount": boolean(filled=True),
            "serverId": integer(required=True, replaces=True),
            "volumeId": integer(required=True, replaces=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send attach, again while the server is locked."""
        body = given(server=inputs["serverId"], automount=inputs.get("automount"))
        path = f"/volumes/{inputs['volumeId']}/actions/attach"
        answer = await retrying(5, {"locked"}, lambda: self.api.post(path, body))
        return Made(object_id=str(inputs["volumeId"]), actions=begun(answer))

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET for the volume and for the server that it is on."""
        volume = await self.api.find(f"/volumes/{object_id}", "volume")
        if volume is None or not volume.get("server"):
            return None
        if await self.api.find(f"/servers/{known.get('serverId') or volume['server']}", "server") is None:
            return None
        return {"automount": known.get("automount"), "serverId": volume["server"], "volumeId": int(object_id)}

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Do nothing: automount is only for the moment of attaching."""

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send detach unless the volume is on no server."""
        del outputs
        volume = await self.api.find(f"/volumes/{object_id}", "volume")
        if volume is not None and volume.get("server"):
            await detach(self, object_id)


async def attach(resource: Resource, volume_id: str, body: dict[str, Any]) -> None:
    """Put a volume on a server, again while the server is locked."""
    await retrying(5, {"conflict", "locked"}, lambda: resource.api.act(f"/volumes/{volume_id}/actions/attach", body))


async def detach(resource: Resource, volume_id: str) -> None:
    """Take a volume off its server, again while the server is locked."""
    await retrying(5, {"conflict", "locked"}, lambda: resource.api.act(f"/volumes/{volume_id}/actions/detach"))


def volume_outputs(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a volume as the API tells it."""
    return {
        "deleteProtection": volume["protection"]["delete"],
        "labels": volume["labels"],
        "linuxDevice": volume["linux_device"],
        "location": location_name(volume),
        "name": volume["name"],
        "serverId": volume.get("server") or 0,
        "size": volume["size"],
    }
