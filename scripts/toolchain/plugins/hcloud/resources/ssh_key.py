"""hcloud.SshKey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.schema import Schema, labels, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class SshKey(Resource):
    """A public key that new servers may be given."""

    schema = Schema(
        name="SshKey",
        strict=False,
        properties={
            "labels": labels(filled=True),
            "name": text(filled=True),
            "publicKey": text(required=True, replaces=True),
            "fingerprint": text(computed=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Send POST /ssh_keys."""
        body = given(name=inputs["name"], public_key=inputs["publicKey"], labels=inputs.get("labels"))
        answer = await self.api.post("/ssh_keys", body)
        return Made(object_id=str(answer["ssh_key"]["id"]))

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /ssh_keys/{id}."""
        key = await self.api.find(f"/ssh_keys/{object_id}", "ssh_key")
        return None if key is None else {**ssh_key_outputs(key), "publicKey": _public_key(key, known)}

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Send PUT for the name and for the labels."""
        del old
        path = f"/ssh_keys/{object_id}"
        await self.put_changed(path, new=new, changed=changed, fields={"name": "name", "labels": "labels"})

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send DELETE /ssh_keys/{id}."""
        del outputs
        await self.delete_if_there(f"/ssh_keys/{object_id}")


def ssh_key_outputs(key: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a key as the API tells it."""
    return {
        "fingerprint": key["fingerprint"],
        "labels": key["labels"],
        "name": key["name"],
        "publicKey": key["public_key"],
    }


def _public_key(key: Mapping[str, Any], known: Values) -> Any:
    """Keep the program's spelling: the API drops a trailing newline, and a key that differs from it is replaced."""
    ours = known.get("publicKey")
    return ours if isinstance(ours, str) and ours.strip() == key["public_key"].strip() else key["public_key"]
