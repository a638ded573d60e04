"""One builder: its kept address, its server, and BuildKit on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_hcloud as hcloud
from pulumi import ComponentResource, ErrorHook, ErrorHookArgs, Output, ResourceHookBinding, ResourceOptions

from builders import inventory, refusals
from builders.hetzner import STOCK_CODES
from infra import cloudinit
from infra.plan import KEPT
from infra.resources.buildkit import BuildKit
from infra.resources.hostkey import BootstrapKeyRetirement, HostKey
from infra.resources.keys import SshKeyPair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi import Input

    from infra.plan import AddressPlan, NodePlan
    from infra.resources.keys import Authority
    from infra.settings import Settings


class PrimaryIps(ComponentResource):
    """A node's primary IPs, `ips` by their kind."""

    def __init__(
        self, plan: AddressPlan, settings: Settings, *, labels: Mapping[str, Input[str]], opts: ResourceOptions
    ) -> None:
        super().__init__("slipway:index:Address", plan.node, None, opts)
        protect = settings.protects_addresses and not plan.moves
        self.ips = {kind: self._primary_ip(plan, kind, labels, protect=protect) for kind in (*plan.kinds, *plan.spare)}

    def _primary_ip(
        self, plan: AddressPlan, kind: str, labels: Mapping[str, Input[str]], *, protect: bool
    ) -> hcloud.PrimaryIp:
        return hcloud.PrimaryIp(
            f"{plan.node}-{kind}",
            name=f"{plan.server_name}-{kind}",
            type=kind,
            location=plan.location,
            auto_delete=False,
            assignee_type="server",
            labels={**labels, KEPT: "true"} if protect else labels,
            # The server's end of the bond changes this side too, and the server declares it. An address that the plan did
            # not find by its name and labels, as after a rename of the stack, is no reason to give it up.
            opts=ResourceOptions(
                parent=self, protect=protect,
                ignore_changes=["assigneeId", "assigneeType", "datacenter", *([] if plan.moves else ["location"])],
                delete_before_replace=True,
            ),
        )  # fmt: skip


class Address(PrimaryIps):
    """Where a node is reached; made before its server so that the whole fleet's are known to every guard."""

    def __init__(
        self, plan: AddressPlan, settings: Settings, *, labels: Mapping[str, Input[str]], opts: ResourceOptions
    ) -> None:
        super().__init__(plan, settings, labels=labels, opts=opts)
        self.ipv4 = self.ips["ipv4"] if "ipv4" in plan.kinds else None
        self.ipv6 = self.ips["ipv6"]
        self.ipv6_address = self.ipv6.ip_network.apply(lambda network: f"{network.partition('/')[0]}1")
        self.main = self.ipv4.ip_address if self.ipv4 else self.ipv6_address
        self.all = Output.all(*([self.ipv4.ip_address] if self.ipv4 else []), self.ipv6_address)
        self.register_outputs({"main": self.main})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all builders of a stack have in common."""

    settings: Settings
    authority: Authority
    ssh_key: SshKeyPair
    cloud_ssh_key: hcloud.SshKey
    firewall: hcloud.Firewall
    labels: Mapping[str, Input[str]]
    tarballs: Mapping[Any, tuple[str, str]]  # platform → source, sha256


class Builder(ComponentResource):
    """A server that runs buildkitd; `node` is its element of the stack's output, `endpoint` what buildx has to know of it."""

    node: Output[dict[str, str]]
    endpoint: Output[dict[str, str]]

    def __init__(
        self, plan: NodePlan, shared: Shared, address: Address, neighbours: Sequence[Address], *, opts: ResourceOptions
    ) -> None:
        super().__init__("slipway:index:Builder", plan.name, None, opts)
        bootstrap = SshKeyPair(
            f"{plan.name}-bootstrap",
            comment=f"{plan.server_name} bootstrap",
            renew=not plan.exists,
            opts=ResourceOptions(parent=self),
        )
        server = self._server(plan, shared, address, bootstrap)
        on_server = ResourceOptions(parent=self, deleted_with=server)
        contact = {"server_id": server.id, "address": address.main, "private_key": shared.ssh_key.private_key}
        host_key = HostKey(
            f"{plan.name}-host-key",
            node=plan.name,
            bootstrap_key=bootstrap.public_key,
            opts=on_server,
            **contact,
        )
        retirement = BootstrapKeyRetirement(
            f"{plan.name}-bootstrap-retirement",
            node=plan.name,
            bootstrap_key=bootstrap.public_key,
            host_key=host_key.public_key,
            opts=on_server,
            **contact,
        )
        self.buildkit = BuildKit(
            f"{plan.name}-buildkit",
            wanted=_wanted(plan, shared, address, neighbours),
            host_key=retirement.host_key,
            authority=shared.authority.certificate,
            authority_key=shared.authority.key,
            opts=on_server,
            **contact,
        )
        # Of the address alone: a preview that installs BuildKit again knows it all the same.
        self.endpoint = address.main.apply(
            lambda host: {"name": plan.name, "platform": str(plan.platform), "endpoint": inventory.endpoint(host)}
        )
        self.node = Output.all(
            self.endpoint,
            Output.all(
                address=address.main,
                host_key=retirement.host_key,
                certificate_expires=self.buildkit.certificate_expires,
                buildkit_version=self.buildkit.version,
                server_type=server.server_type,
                location=server.location,
            ),
        ).apply(lambda parts: {**parts[0], **parts[1]})
        self.register_outputs({"node": self.node})

    def _server(self, plan: NodePlan, shared: Shared, address: Address, bootstrap: SshKeyPair) -> hcloud.Server:
        user_data = Output.all(bootstrap.private_key, bootstrap.public_key).apply(
            lambda keys: cloudinit.render(host_key=keys[0], host_key_public=keys[1])
        )
        return hcloud.Server(
            plan.name,
            name=plan.server_name,
            server_type=plan.server_type,
            location=plan.location,
            image=shared.settings.image,
            ssh_keys=[shared.cloud_ssh_key.id],
            firewall_ids=[shared.firewall.id.apply(int)],
            user_data=user_data,  # secret, as the key in it is
            public_nets=[_public_net(address)],
            labels=shared.labels,
            opts=ResourceOptions(
                parent=self,
                # A builder that exists stays where and what it is, whatever the ladder, the stock or a new key say.
                ignore_changes=["serverType", "location", "datacenter", "image", "sshKeys", "userData"],
                delete_before_replace=True,  # the name and the addresses can be had only once
                hooks=ResourceHookBinding(on_error=[_record_refusal(plan)]),
            ),
        )


def _public_net(address: Address) -> hcloud.ServerPublicNetArgs:
    ipv4 = {"ipv4": address.ipv4.id.apply(int)} if address.ipv4 else {}
    return hcloud.ServerPublicNetArgs(
        ipv4_enabled=address.ipv4 is not None, ipv6_enabled=True, ipv6=address.ipv6.id.apply(int), **ipv4
    )


def _wanted(plan: NodePlan, shared: Shared, address: Address, neighbours: Sequence[Address]) -> Mapping[str, Any]:
    settings = shared.settings
    source, sha256 = shared.tarballs[plan.platform]
    return {
        "node": plan.name,
        "platform": str(plan.platform),
        "version": settings.buildkit_version,
        "tarball": source,
        "sha256": sha256,
        "snapshotter": settings.snapshotter,
        "cache_keep_days": settings.cache_keep_days,
        "addresses": address.all,
        "neighbours": Output.all(*(each.all for each in neighbours)).apply(
            lambda found: sorted(one for each in found for one in each)
        ),
        "allow": list(settings.reachable_private_cidrs),
        "registries": [
            {"host": each.host, "ca": each.ca, "mirrors": list(each.mirrors), "http": each.http}
            for each in settings.registries
        ]
        + _own_registry(shared),
    }


def _own_registry(shared: Shared) -> list[Mapping[str, Any]]:
    """Let the builders trust the stack's registry, unless slipway:registries says more of it, or the public does."""
    own = shared.settings.registry
    if own is None or own.host in {each.host for each in shared.settings.registries}:
        return []
    ca = shared.authority.certificate if own.tls.kind == "authority" else own.tls.ca
    return [{"host": own.host, "ca": ca, "mirrors": [], "http": False}] if ca is not None else []


def _record_refusal(plan: NodePlan) -> ErrorHook:
    """Remember an order refused for want of stock, so that the next run takes the next rung; repeat nothing here."""

    def on_error(args: ErrorHookArgs) -> bool:
        text = " ".join(args.errors[:1])
        code = next((code for code in sorted(STOCK_CODES) if code in text), None)
        if code:
            refusals.record(plan.server_type, plan.location, code, now=datetime.now(UTC))
            pulumi.log.error(
                f"builder {plan.name}: {plan.server_type} in {plan.location} was refused ({code}); "
                "run this again to take the next rung of its ladder"
            )
        return False

    return ErrorHook(f"{plan.name}-refused", on_error)
