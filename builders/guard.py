"""The network guard of a builder (pure): what a RUN step may reach, as one nftables table.

RUN steps live behind the bridge `slipway0`. They reach the internet, masqueraded, and nothing that trusts the builder:
not its own ports, not its neighbours, not private or link-local addresses, so not the metadata service either.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BRIDGE = "slipway0"
SUBNET_V4 = "10.83.0.0/16"
SUBNET_V6 = "fd83:5119:3a7e::/64"

# Link-local IPv6 is not in the list: the kernel never forwards it, and the builder's own falls to the input chain.
_LINK_LOCAL = "169.254.0.0/16"  # the metadata service is there; nothing opens it
_PRIVATE_V4 = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
_PRIVATE_V6 = ("fc00::/7",)


def render(*, neighbours: Sequence[str], allow: Sequence[str]) -> str:
    """Render the table; loading it replaces an older one in one step and touches no other table."""
    forward = [
        *_addressed((*neighbours, _LINK_LOCAL), "drop"),
        *_addressed(allow, "accept"),
        *_addressed((*_PRIVATE_V4, *_PRIVATE_V6), "drop"),
    ]
    return "\n".join(
        [
            "table inet slipway",
            "delete table inet slipway",
            "table inet slipway {",
            *_chain(
                "input",
                "filter",
                "filter - 10",
                [
                    # Without neighbour discovery there is no IPv6 at all.
                    f'iifname "{BRIDGE}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept',
                    f'iifname "{BRIDGE}" drop',
                ],
            ),
            *_chain(
                "forward",
                "filter",
                "filter - 10",
                [
                    f'oifname "{BRIDGE}" ct state established,related accept',
                    f'oifname "{BRIDGE}" drop',
                    *(f'iifname "{BRIDGE}" {rule}' for rule in forward),
                ],
            ),
            *_chain(
                "postrouting",
                "nat",
                "srcnat",
                [
                    f'ip saddr {SUBNET_V4} oifname != "{BRIDGE}" masquerade',
                    f'ip6 saddr {SUBNET_V6} oifname != "{BRIDGE}" masquerade',
                ],
            ),
            "}",
            "",
        ]
    )


def _chain(name: str, kind: str, priority: str, rules: Iterable[str]) -> list[str]:
    body = [f"type {kind} hook {name} priority {priority}; policy accept;", *rules]
    return [f"\tchain {name} {{", *(f"\t\t{line}" for line in body), "\t}"]


def _addressed(addresses: Iterable[str], verdict: str) -> list[str]:
    """One rule for each family that occurs; addresses that lie in others are left out, as nft wants them."""
    networks = [ipaddress.ip_network(address) for address in addresses]
    rules = []
    for version, family in ((4, "ip"), (6, "ip6")):
        apart = _collapsed([network for network in networks if network.version == version])
        if apart:
            rules.append(f"{family} daddr {{ {', '.join(apart)} }} {verdict}")
    return rules


def _collapsed(networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> list[str]:
    collapsed = list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]
    return [
        str(network.network_address) if network.num_addresses == 1 else str(network)
        for network in sorted(collapsed, key=lambda network: int(network.network_address))
    ]
