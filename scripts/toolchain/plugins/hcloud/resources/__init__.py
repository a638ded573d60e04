"""The resources of the Hetzner Cloud provider, a module each; together they are the table that the provider serves."""

from __future__ import annotations

from scripts.toolchain.plugins.hcloud.resources.firewall import Firewall, FirewallAttachment
from scripts.toolchain.plugins.hcloud.resources.network import Network, NetworkSubnet
from scripts.toolchain.plugins.hcloud.resources.placement_group import PlacementGroup
from scripts.toolchain.plugins.hcloud.resources.primary_ip import PrimaryIp
from scripts.toolchain.plugins.hcloud.resources.server import Server
from scripts.toolchain.plugins.hcloud.resources.server_network import ServerNetwork
from scripts.toolchain.plugins.hcloud.resources.ssh_key import SshKey
from scripts.toolchain.plugins.hcloud.resources.volume import Volume, VolumeAttachment

RESOURCES = {
    resource.schema.token: resource
    for resource in (
        Firewall,
        FirewallAttachment,
        Network,
        NetworkSubnet,
        PlacementGroup,
        PrimaryIp,
        Server,
        ServerNetwork,
        SshKey,
        Volume,
        VolumeAttachment,
    )
}
