"""Firewall rules as nftables text."""

from __future__ import annotations

from scripts.localcloud.firewall import render_firewall
from scripts.localcloud.hypervisor import FirewallRule


def _rule(direction="in", protocol="tcp", networks=("0.0.0.0/0",), ports=(22, 22)):
    return FirewallRule(direction=direction, protocol=protocol, networks=networks, port_from=ports[0], port_to=ports[1])


def _rules_of(text, chain):
    prefix = f"add rule inet slipway {chain} "
    return [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]


def test_a_firewall_without_rules_lets_nothing_in_and_everything_out():
    """An applied firewall denies all inbound traffic; outbound is open until its first rule."""
    text = render_firewall(17, ())

    assert _rules_of(text, "in_17") == ["drop"]
    assert 'add element inet slipway inbound { "s17" : jump in_17 }' in text
    assert 'delete element inet slipway outbound { "s17" }' in text
    assert _rules_of(text, "out_17") == []


def test_the_first_outbound_rule_closes_the_rest():
    """With one outbound rule only what it names goes out."""
    text = render_firewall(17, (_rule("out", "udp", ("198.51.100.2/32",), (53, 53)),))

    assert _rules_of(text, "out_17") == ["ip daddr { 198.51.100.2/32 } udp dport 53 return", "drop"]
    assert _rules_of(text, "in_17") == ["drop"]


def test_no_firewall_leaves_no_rule_and_no_element():
    """Without a firewall a machine's chains and map elements are gone, whatever was there."""
    text = render_firewall(17, None)

    assert text.splitlines() == [
        "add chain inet slipway in_17",
        "flush chain inet slipway in_17",
        'add element inet slipway inbound { "s17" : jump in_17 }',
        'delete element inet slipway inbound { "s17" }',
        "delete chain inet slipway in_17",
        "add chain inet slipway out_17",
        "flush chain inet slipway out_17",
        'add element inet slipway outbound { "s17" : jump out_17 }',
        'delete element inet slipway outbound { "s17" }',
        "delete chain inet slipway out_17",
    ]


def test_a_rule_for_everybody_names_the_address_family():
    """0.0.0.0/0 and ::/0 are matched as families, since a set with /0 and another network would overlap."""
    text = render_firewall(17, (_rule(networks=("0.0.0.0/0", "10.0.0.0/8", "::/0")),))

    assert _rules_of(text, "in_17") == [
        "meta nfproto ipv4 tcp dport 22 return",
        "meta nfproto ipv6 tcp dport 22 return",
        "drop",
    ]


def test_overlapping_networks_are_joined():
    """Networks inside one another become one element; host bits are dropped."""
    text = render_firewall(17, (_rule(networks=("10.1.2.3/8", "10.9.0.0/16", "2001:db8::5/128"), ports=(80, 85)),))

    assert _rules_of(text, "in_17") == [
        "ip saddr { 10.0.0.0/8 } tcp dport 80-85 return",
        "ip6 saddr { 2001:db8::5/128 } tcp dport 80-85 return",
        "drop",
    ]


def test_any_port_is_the_whole_range():
    """The API's "any" arrives as 1 to 65535."""
    text = render_firewall(17, (_rule(protocol="udp", ports=(1, 65535)),))

    assert _rules_of(text, "in_17") == ["meta nfproto ipv4 udp dport 1-65535 return", "drop"]


def test_icmp_means_the_protocol_of_each_family():
    """A rule for icmp covers ICMPv6 where it names IPv6 networks; protocols without ports match as they are."""
    text = render_firewall(
        17,
        (
            _rule(protocol="icmp", networks=("0.0.0.0/0", "::/0"), ports=(None, None)),
            _rule(protocol="gre", ports=(None, None)),
        ),
    )

    assert _rules_of(text, "in_17") == [
        "meta nfproto ipv4 meta l4proto icmp return",
        "meta nfproto ipv6 meta l4proto ipv6-icmp return",
        "meta nfproto ipv4 meta l4proto gre return",
        "drop",
    ]
