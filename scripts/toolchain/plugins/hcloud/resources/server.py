"""hcloud.Server: its properties, and how it comes and goes; server_changes.py is what can be changed in place."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud import lookup
from scripts.toolchain.plugins.hcloud.api import begun
from scripts.toolchain.plugins.hcloud.resources import server_changes as changes
from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource, Values, given
from scripts.toolchain.plugins.hcloud.resources.primary_ip import location_name
from scripts.toolchain.plugins.hcloud.resources.server_network import attachment_outputs
from scripts.toolchain.plugins.hcloud.schema import (
    INTEGER,
    STRING,
    Object,
    Property,
    Schema,
    array,
    boolean,
    integer,
    labels,
    text,
)
from scripts.toolchain.plugins.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHUTDOWN_TRIES = 5
_SHUTDOWN_PAUSE_S = 6.0


def user_data_digest(user_data: str) -> str:
    """Return what the state keeps of user data: base64 of its SHA-1, as the vendor's provider does."""
    return base64.b64encode(hashlib.sha1(user_data.encode(), usedforsecurity=False).digest()).decode()


def _check_image(image: Any) -> str | None:
    return None if image else "must have more than 0 characters; is it the name or id of an image?"


def _check_ssh_keys(ssh_keys: list[Any]) -> str | None:
    return "an SSH key is given by its name or id, which is not empty" if "" in ssh_keys else None


def _check_networks(networks: list[Any]) -> str | None:
    known = [network.get("networkId") for network in networks if network is not UNKNOWN]
    ids = [network_id for network_id in known if isinstance(network_id, int)]
    twice = next((network_id for network_id in ids if ids.count(network_id) > 1), None)
    return f"server is only allowed to be attached to each network once: {twice}" if twice else None


_NETWORK = Object(
    properties={
        # Always sent: without it the API's empty list would be a difference for ever.
        "aliasIps": array(STRING, default=()),
        "ip": text(filled=True),
        "macAddress": text(filled=True),
        "networkId": integer(filled=True),
        "subnetId": text(),
    }
)
_PUBLIC_NET = Object(
    properties={
        "ipv4": integer(filled=True),
        "ipv4Enabled": boolean(default=True),
        "ipv6": integer(filled=True),
        "ipv6Enabled": boolean(default=True),
    }
)


class Server(Resource):
    """A machine. Its delete does not take "not found" for done: refresh first."""

    schema = Schema(
        name="Server",
        properties={
            "allowDeprecatedImages": boolean(),
            "backups": boolean(),
            "datacenter": text(filled=True, replaces=True),
            "deleteProtection": boolean(),
            "firewallIds": array(INTEGER, filled=True),
            "ignoreRemoteFirewallIds": boolean(),
            "image": text(filled=True, replaces=True, check=_check_image),
            "iso": text(),
            "keepDisk": boolean(),
            "labels": labels(),
            "location": text(filled=True, replaces=True),
            "name": text(filled=True),
            "networks": array(_NETWORK, check=_check_networks),
            "placementGroupId": integer(),
            "publicNets": array(_PUBLIC_NET),
            "rebuildProtection": boolean(),
            "rescue": text(),
            "serverType": text(required=True),
            "shutdownBeforeDeletion": boolean(),
            "sshKeys": array(STRING, ordered=True, replaces=True, check=_check_ssh_keys),
            "userData": Property(type=STRING, replaces=True, kept_as=user_data_digest),
            "backupWindow": text(computed=True),
            "ipv4Address": text(computed=True),
            "ipv6Address": text(computed=True),
            "ipv6Network": text(computed=True),
            "primaryDiskSize": integer(computed=True),
            "status": text(computed=True),
        },
    )

    async def create(self, inputs: Values) -> Made:
        """Look up what is given by name, then send POST /servers."""
        (server_type, image), ssh_keys, group = await asyncio.gather(
            self._type_and_image(inputs),
            lookup.ssh_key_ids(self.api, inputs.get("sshKeys", ())),
            lookup.placement_group(self.api, inputs.get("placementGroupId")),
        )
        public_net = changes.wire_public_net(inputs.get("publicNets"))
        body = given(
            name=inputs["name"],
            server_type=server_type["name"],
            image=image["id"],
            location=inputs.get("location"),
            datacenter=inputs.get("datacenter"),
            ssh_keys=ssh_keys or None,
            user_data=inputs.get("userData") or None,
            labels=inputs.get("labels") or None,
            firewalls=[{"firewall": firewall} for firewall in inputs.get("firewallIds", ())] or None,
            placement_group=group,
            public_net=public_net,
            start_after_create=False if _starts_late(inputs) else None,
        )
        answer = await self.api.post("/servers", body)
        return Made(object_id=str(answer["server"]["id"]), actions=begun(answer))

    async def finish(self, object_id: str, inputs: Values) -> None:
        """Attach networks, then power on a server that waited for them; backups, ISO, rescue system and protection."""
        for network in inputs.get("networks", ()):
            await changes.attach(self.api, object_id, network)
        path = f"/servers/{object_id}"
        if _starts_late(inputs):
            await self.api.act(f"{path}/actions/poweron")
        if inputs.get("backups"):
            await self.api.act(f"{path}/actions/enable_backup")
        if inputs.get("iso"):
            await changes.set_iso(self.api, path, attached=False, iso=inputs["iso"])
        if inputs.get("rescue"):
            keys = await lookup.ssh_key_ids(self.api, inputs.get("sshKeys", ()))
            await changes.set_rescue(self.api, path, enabled=False, rescue=inputs["rescue"], ssh_keys=keys)
        if inputs.get("deleteProtection") or inputs.get("rebuildProtection"):
            await changes.set_protection(self, path, inputs)

    async def identify(self, given: str) -> str:
        """Take a name too."""
        return await lookup.identify(self._find, given)

    async def read(self, object_id: str, known: Values) -> Values | None:
        """Send GET /servers/{id}, then ?name=."""
        server = await self._find(object_id)
        if server is None:
            return None
        outputs = server_outputs(server)
        # The API does not tell these, or not in the program's words.
        for name in (
            "allowDeprecatedImages",
            "ignoreRemoteFirewallIds",
            "iso",
            "keepDisk",
            "publicNets",
            "rescue",
            "shutdownBeforeDeletion",
            "sshKeys",
            "userData",
        ):
            outputs[name] = known.get(name)
        if known.get("image") == str((server.get("image") or {}).get("id")):
            outputs["image"] = known["image"]
        # Networks may be attached by ServerNetwork instead: they are this resource's only if it has them already.
        outputs["networks"] = _networks(server, known["networks"]) if known.get("networks") else None
        if known.get("ignoreRemoteFirewallIds") and known.get("firewallIds") is not None:
            outputs["firewallIds"] = known["firewallIds"]
        return outputs

    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Carry out each change with its own request."""
        await changes.apply(self, object_id, old=old, new=new, changed=changed)

    async def delete(self, object_id: str, outputs: Values) -> None:
        """Send DELETE /servers/{id}, after a shutdown if asked to, and wait for its action."""
        path = f"/servers/{object_id}"
        if outputs.get("shutdownBeforeDeletion"):
            await self._shut_down(path)
        await self.api.actions.wait([(await self.api.delete(path)).get("action")])

    async def _find(self, given: str) -> Any:
        return await lookup.by_id_or_name(self.api, "/servers", "server", "servers", given)

    async def _type_and_image(self, inputs: Values) -> tuple[dict[str, Any], dict[str, Any]]:
        server_type = await lookup.server_type(self.api, inputs["serverType"])
        if not inputs.get("image"):
            raise ProviderError("image is required to create a server")
        image = await lookup.image(
            self.api,
            inputs["image"],
            server_type["architecture"],
            allow_deprecated=bool(inputs.get("allowDeprecatedImages")),
        )
        return server_type, image

    async def _shut_down(self, path: str) -> None:
        await self.api.act(f"{path}/actions/shutdown")
        for attempt in range(_SHUTDOWN_TRIES):
            server = await self.api.find(path, "server")
            if server is None or server["status"] == "off":
                return
            if attempt < _SHUTDOWN_TRIES - 1:
                await asyncio.sleep(_SHUTDOWN_PAUSE_S)


def server_outputs(server: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a server as the API tells it."""
    public = server["public_net"]
    ipv4, ipv6 = public.get("ipv4") or {}, public.get("ipv6") or {}
    image = server.get("image")
    return {
        "backupWindow": server.get("backup_window") or "",
        "backups": bool(server.get("backup_window")),
        "datacenter": (server.get("datacenter") or {}).get("name"),
        "deleteProtection": server["protection"]["delete"],
        "firewallIds": [firewall["id"] for firewall in public.get("firewalls") or ()],
        "image": (image["name"] or str(image["id"])) if image else None,
        "ipv4Address": ipv4.get("ip"),
        # The API gives a network; the server's own address is its first.
        "ipv6Address": f"{ipv6['ip'].split('/')[0]}1" if ipv6.get("ip") else None,
        "ipv6Network": ipv6.get("ip"),
        "labels": server["labels"],
        "location": location_name(server),
        "name": server["name"],
        "placementGroupId": (server.get("placement_group") or {}).get("id"),
        "primaryDiskSize": server.get("primary_disk_size"),
        "rebuildProtection": server["protection"]["rebuild"],
        "serverType": server["server_type"]["name"],
        "status": server["status"],
    }


def _networks(server: Mapping[str, Any], known: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    subnets = {network.get("networkId"): network.get("subnetId") for network in known}
    found = [attachment_outputs(item) for item in server.get("private_net") or ()]
    return [{**item, "subnetId": subnets.get(item["networkId"])} for item in found]


def _starts_late(inputs: Values) -> bool:
    """Say whether a server has no public address: it must not boot before its networks are attached."""
    public_net = changes.wire_public_net(inputs.get("publicNets"))
    enabled = public_net is None or public_net["enable_ipv4"] or public_net["enable_ipv6"]
    return not enabled and bool(inputs.get("networks"))
