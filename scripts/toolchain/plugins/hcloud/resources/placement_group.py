"""hcloud.PlacementGroup."""

from __future__ import annotations

from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.schema import INTEGER, Schema, array, labels, text


class PlacementGroup(Resource):
    """Keeps its servers on different hosts."""

    schema = Schema(
        name="PlacementGroup",
        properties={
            "labels": labels(),
            "name": text(filled=True),
            "type": text(required=True),
            "servers": array(INTEGER, computed=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send POST /placement_groups."""
        body = given(name=inputs["name"], type=inputs["type"], labels=inputs.get("labels"))
        answer = await self.api.post("/placement_groups", body)
        return Made(object_id=str(answer["placement_group"]["id"]), actions=[answer.get("action")])

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /placement_groups/{id}."""
        del known
        group = await self.api.find(f"/placement_groups/{object_id}", "placement_group")
        return None if group is None else {name: group[name] for name in ("labels", "name", "type", "servers")}

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Send PUT for the name and for the labels; nothing can change the type."""
        del old
        path = f"/placement_groups/{object_id}"
        await self.put_changed(path, new=new, changed=changed, fields={"name": "name", "labels": "labels"})

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send DELETE /placement_groups/{id}."""
        del outputs
        await self.delete_if_there(f"/placement_groups/{object_id}")
