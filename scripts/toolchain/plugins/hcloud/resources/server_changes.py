"""What can be changed about a server in place, a request or a few for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud import lookup
from scripts.toolchain.plugins.hcloud.resources.base import Resource, Values, given
from scripts.toolchain.plugins.hcloud.resources.firewall import move_firewall, server_target
from scripts.toolchain.plugins.hcloud.resources.server_network import (
    attach_to_network,
    change_alias_ips,
    detach_from_network,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scripts.toolchain.plugins.hcloud.api import Api


async def apply(resource: Resource, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
    """Carry out the changes, in the vendor's order."""
    api, path = resource.api, f"/servers/{object_id}"
    server = (await api.get(path))["server"]
    await resource.put_changed(path, new=new, changed=changed, fields={"name": "name", "labels": "labels"})
    if "serverType" in changed:
        await _change_type(api, path, server, new)
    if "backups" in changed and bool(server.get("backup_window")) != bool(new.get("backups")):
        await api.act(f"{path}/actions/{'enable' if new.get('backups') else 'disable'}_backup")
    if "iso" in changed:
        await set_iso(api, path, attached=bool(server.get("iso")), iso=new.get("iso"))
    if "rescue" in changed:
        keys = await lookup.ssh_key_ids(api, new.get("sshKeys", ()))
        await set_rescue(api, path, enabled=bool(server.get("rescue_enabled")), rescue=new.get("rescue"), ssh_keys=keys)
    if "networks" in changed:
        await _set_networks(api, object_id, server, new.get("networks") or ())
    if "firewallIds" in changed:
        await _set_firewalls(api, server, new["firewallIds"])
    if "publicNets" in changed:
        await _set_public_net(api, path, server, old=old.get("publicNets"), new=new.get("publicNets"))
    if "placementGroupId" in changed:
        await _set_placement_group(api, path, server, new.get("placementGroupId"))
    if changed & {"deleteProtection", "rebuildProtection"}:
        await set_protection(resource, path, new)


async def attach(api: Api, object_id: str, network: Mapping[str, Any]) -> None:
    """Put a server into a network and wait for it."""
    network_id = network.get("networkId") or _network_of(network.get("subnetId"))
    body = given(network=network_id, ip=network.get("ip") or None, alias_ips=list(network.get("aliasIps") or ()))
    await api.actions.wait([await attach_to_network(api, int(object_id), body)])


async def set_protection(resource: Resource, path: str, wanted: Values) -> None:
    """Set both protections; the API refuses one without the other."""
    await resource.protect(
        path, delete=bool(wanted.get("deleteProtection")), rebuild=bool(wanted.get("rebuildProtection"))
    )


async def set_iso(api: Api, path: str, *, attached: bool, iso: str | None) -> None:
    """Swap the ISO image and reset the server."""
    if attached:
        await api.act(f"{path}/actions/detach_iso")
    if iso:
        await api.act(f"{path}/actions/attach_iso", {"iso": iso})
    if attached or iso:
        await api.act(f"{path}/actions/reset")


async def set_rescue(api: Api, path: str, *, enabled: bool, rescue: str | None, ssh_keys: Sequence[int]) -> None:
    """Swap the rescue system and reset the server."""
    if enabled:
        await api.act(f"{path}/actions/disable_rescue")
    if rescue:
        await api.act(f"{path}/actions/enable_rescue", {"type": rescue, "ssh_keys": list(ssh_keys)})
    if enabled or rescue:
        await api.act(f"{path}/actions/reset")


def wire_public_net(public_nets: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Say which addresses a new server gets; None leaves it to the API. An address by id enables its family."""
    if not public_nets:
        return None
    wanted = _wanted(public_nets)
    wire: dict[str, Any] = {}
    for family in ("ipv4", "ipv6"):
        enabled, address_id = wanted[family]
        wire[f"enable_{family}"] = enabled or bool(address_id)
        if address_id:
            wire[family] = address_id
    return wire


async def _change_type(api: Api, path: str, server: Mapping[str, Any], new: Values) -> None:
    """Rescale; the API starts the server again by itself."""
    if server["status"] == "running":
        await api.act(f"{path}/actions/poweroff")
    body = {"server_type": new["serverType"], "upgrade_disk": not new.get("keepDisk")}
    await api.act(f"{path}/actions/change_type", body)


async def _set_networks(
    api: Api, object_id: str, server: Mapping[str, Any], networks: Sequence[Mapping[str, Any]]
) -> None:
    """Attach, detach and give alias addresses; the API cannot change an address, so that one is attached anew."""
    server_id = int(object_id)
    wanted = {network.get("networkId") or _network_of(network.get("subnetId")): network for network in networks}
    for present in server.get("private_net") or ():
        network_id = present["network"]
        network = wanted.pop(network_id, None)
        if network is None:
            await detach_from_network(api, server_id, network_id)
        elif network.get("ip") and network["ip"] != present["ip"]:
            await detach_from_network(api, server_id, network_id)
            await attach(api, object_id, network)
        elif set(network.get("aliasIps") or ()) != set(present.get("alias_ips") or ()):
            await change_alias_ips(api, server_id, network_id, list(network.get("aliasIps") or ()))
    for network in wanted.values():
        await attach(api, object_id, network)


async def _set_firewalls(api: Api, server: Mapping[str, Any], firewall_ids: Sequence[int]) -> None:
    present = {firewall["id"] for firewall in server["public_net"].get("firewalls") or ()}
    target = [server_target(server["id"])]
    for firewall_id in sorted(present - set(firewall_ids)):
        await move_firewall(api, f"/firewalls/{firewall_id}", before=target, after=[])
    for firewall_id in sorted(set(firewall_ids) - present):
        await move_firewall(api, f"/firewalls/{firewall_id}", before=[], after=target)


async def _set_placement_group(api: Api, path: str, server: Mapping[str, Any], group_id: int | None) -> None:
    if server.get("placement_group"):
        if server["status"] != "off":
            raise ProviderError(f"server {server['name']}: to leave its placement group it must be powered off first")
        await api.act(f"{path}/actions/remove_from_placement_group")
    if group_id:
        await api.act(f"{path}/actions/add_to_placement_group", {"placement_group": group_id})


async def _set_public_net(
    api: Api,
    path: str,
    server: Mapping[str, Any],
    *,
    old: Sequence[Mapping[str, Any]] | None,
    new: Sequence[Mapping[str, Any]] | None,
) -> None:
    """Swap addresses, for which the server must be off; it is powered on again whatever happens."""
    await api.act(f"{path}/actions/poweroff")
    try:
        before, after = _wanted(old or ({},)), _wanted(new or ({},))
        for family in ("ipv4", "ipv6"):
            if before[family] != after[family]:
                present = (server["public_net"].get(family) or {}).get("id")
                await _swap_address(
                    api, server, family, present=present, managed=before[family][1], after=after[family]
                )
    finally:
        await api.act(f"{path}/actions/poweron")


async def _swap_address(
    api: Api,
    server: Mapping[str, Any],
    family: str,
    *,
    present: int | None,
    managed: int | None,
    after: tuple[bool, int | None],
) -> None:
    """Give a server another address of a family, one made for it, or none; one made for the old state is deleted."""
    enabled, wanted = after
    if wanted and not enabled:
        raise ProviderError(f"this operation is not allowed: {family}Enabled = false with {family} = {wanted}")
    if present and present != wanted:
        await api.act(f"/primary_ips/{present}/actions/unassign")
        if not managed:
            await api.delete(f"/primary_ips/{present}")
    assignee = {"assignee_id": server["id"], "assignee_type": "server"}
    if wanted and present != wanted:
        await api.act(f"/primary_ips/{wanted}/actions/assign", assignee)
    elif enabled and not wanted:
        name = f"primary_ip-{server['id']}-{family}"
        await api.act("/primary_ips", {"name": name, "type": family, "auto_delete": True, **assignee})


def _wanted(public_nets: Sequence[Mapping[str, Any]]) -> dict[str, tuple[bool, int | None]]:
    """Return by family whether it is enabled and which address it has."""
    wanted: dict[str, tuple[bool, int | None]] = {}
    for public_net in public_nets:
        for family in ("ipv4", "ipv6"):
            wanted[family] = (public_net.get(f"{family}Enabled", True), public_net.get(family) or None)
    return wanted


def _network_of(subnet_id: str | None) -> int:
    network = (subnet_id or "").partition("-")[0]
    if not network.isdigit():
        raise ProviderError("networks: give networkId or subnetId")
    return int(network)
