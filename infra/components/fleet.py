"""The builders of a stack and what they share: authority, SSH key, firewall, registration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi_hcloud as hcloud
from pulumi import ComponentResource, Output, ResourceOptions

from builders.inventory import BUILDKIT_PORT
from infra.components.builder import Address, Builder, PrimaryIps, Shared
from infra.resources.buildx import BuildxBuilder
from infra.resources.keys import Authority, SshKeyPair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi import Input

    from infra.plan import Plan
    from infra.settings import Settings

SSH_PORT = 22


class Fleet(ComponentResource):
    """All builders, ready to build, and registered on the machine that runs Pulumi."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        tarballs: Mapping[Any, tuple[str, str]],
        opts: ResourceOptions | None = None,
    ) -> None:
        super().__init__("slipway:index:Fleet", plan.name, None, opts)
        child = ResourceOptions(parent=self)
        self.authority = Authority(
            "authority", subject=plan.name, opts=ResourceOptions(parent=self, protect=settings.protect)
        )
        labels: dict[str, Input[str]] = {**plan.labels, "slipway-id": self.authority.identity}
        self.ssh_key = SshKeyPair("operator", comment=plan.name, renew=False, opts=child)
        shared = Shared(
            settings=settings,
            authority=self.authority,
            ssh_key=self.ssh_key,
            cloud_ssh_key=hcloud.SshKey(
                "operator",
                name=plan.name,
                public_key=self.ssh_key.public_key,
                labels=labels,
                opts=ResourceOptions(parent=self, delete_before_replace=True),  # the name can be had only once
            ),
            firewall=_firewall(plan, settings, labels, child),
            labels=labels,
            tarballs=tarballs,
        )
        addresses = {node.name: Address(node.address, settings, labels=labels, opts=child) for node in plan.nodes}
        for retired in plan.retired:
            PrimaryIps(retired, settings, labels=labels, opts=child)
        builders = {
            node.name: Builder(
                node,
                shared,
                addresses[node.name],
                [address for name, address in addresses.items() if name != node.name],
                opts=child,
            )
            for node in plan.nodes
        }
        self.nodes = Output.all(*(builder.node for builder in builders.values()))
        self.builders = {
            name: [builders[node].endpoint for node in nodes] for name, nodes in plan.registrations.items()
        }
        for name, nodes in self.builders.items():
            BuildxBuilder(
                name,
                builder=name,
                nodes=nodes,
                authority=self.authority.certificate,
                authority_key=self.authority.key,
                opts=ResourceOptions(
                    parent=self, depends_on=[builders[node].buildkit for node in plan.registrations[name]]
                ),
            )
        self.register_outputs({"nodes": self.nodes})


def _firewall(
    plan: Plan, settings: Settings, labels: Mapping[str, Input[str]], opts: ResourceOptions
) -> hcloud.Firewall:
    """Let the allowed networks reach SSH and BuildKit, and ICMP through for path MTU discovery."""
    sources = list(settings.allowed_cidrs)
    rules = [
        hcloud.FirewallRuleArgs(direction="in", protocol="tcp", port=str(port), source_ips=sources)
        for port in (SSH_PORT, BUILDKIT_PORT)
        if sources
    ]
    icmp = hcloud.FirewallRuleArgs(direction="in", protocol="icmp", source_ips=["0.0.0.0/0", "::/0"])
    return hcloud.Firewall("builders", name=plan.name, rules=[*rules, icmp], labels=labels, opts=opts)
