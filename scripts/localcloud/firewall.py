"""The API's firewall rules as nftables text; pure. The rules are enforced in the hub, outside the machine.

Each machine with a firewall has two chains, one per direction, and one element in each of two maps from interface to chain. A
machine without a firewall has none, so all is let through. Packets of known connections never reach these chains, and
metadata (answered by the hub itself) is not forwarded, so no rule can cut it off.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scripts.localcloud.hypervisor import FirewallRule

HUB = """\
add table inet slipway
add map inet slipway outbound { type ifname : verdict; }
add map inet slipway inbound { type ifname : verdict; }
add chain inet slipway forward { type filter hook forward priority filter; policy accept; }
flush chain inet slipway forward
add rule inet slipway forward ct state established,related accept
add rule inet slipway forward iifname "s*" fib saddr . iif oif missing drop comment "a machine speaks as itself only"
add rule inet slipway forward oifname "host" reject with icmpx admin-prohibited comment "machines answer the host"
add rule inet slipway forward iifname vmap @outbound
add rule inet slipway forward oifname vmap @inbound
"""


def interface_of(machine_id: int) -> str:
    """Name the hub's end of a machine's public link."""
    return f"s{machine_id}"


def render_firewall(machine_id: int, rules: tuple[FirewallRule, ...] | None) -> str:
    """Render the transaction that replaces a machine's rules, whatever was there; None removes them.

    Inbound is denied unless a rule allows it; outbound is open until the first outbound rule.
    """
    link = interface_of(machine_id)
    chains = {"in": ("inbound", f"in_{machine_id}"), "out": ("outbound", f"out_{machine_id}")}
    wanted = {
        direction: [rule for rule in rules or () if rule.direction == direction]
        for direction in chains
        if rules is not None and (direction == "in" or any(rule.direction == direction for rule in rules))
    }
    lines = []
    for direction, (table_map, chain) in chains.items():
        lines += [
            f"add chain inet slipway {chain}",
            f"flush chain inet slipway {chain}",
            f'add element inet slipway {table_map} {{ "{link}" : jump {chain} }}',
        ]
        if direction in wanted:
            # An allowed packet returns: the other machine's inbound chain still has its say.
            allowed = [match for rule in wanted[direction] for match in _matches(rule)]
            lines += [f"add rule inet slipway {chain} {match} return" for match in allowed]
            lines.append(f"add rule inet slipway {chain} drop")
        else:
            lines += [
                f'delete element inet slipway {table_map} {{ "{link}" }}',
                f"delete chain inet slipway {chain}",
            ]
    return "\n".join(lines) + "\n"


def _matches(rule: FirewallRule) -> Iterator[str]:
    """Render one match per address family that the rule names."""
    networks = [ip_network(network, strict=False) for network in rule.networks]
    side = "saddr" if rule.direction == "in" else "daddr"
    ipv4 = [network for network in networks if isinstance(network, IPv4Network)]
    ipv6 = [network for network in networks if isinstance(network, IPv6Network)]
    if ipv4:
        yield f"{_addresses('ip', 'ipv4', side, collapse_addresses(ipv4))} {_protocol(rule, 'icmp')}"
    if ipv6:
        yield f"{_addresses('ip6', 'ipv6', side, collapse_addresses(ipv6))} {_protocol(rule, 'ipv6-icmp')}"


def _addresses(header: str, family: str, side: str, networks: Iterable[IPv4Network | IPv6Network]) -> str:
    texts = [str(network) for network in networks]
    if any(text.endswith("/0") for text in texts):
        return f"meta nfproto {family}"
    return f"{header} {side} {{ {', '.join(texts)} }}"


def _protocol(rule: FirewallRule, icmp: str) -> str:
    if rule.port_from is None:
        return f"meta l4proto {icmp if rule.protocol == 'icmp' else rule.protocol}"
    last = rule.port_to or rule.port_from
    return f"{rule.protocol} dport {rule.port_from}" + (f"-{last}" if last != rule.port_from else "")
