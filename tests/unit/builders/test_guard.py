"""The guard's rules as text; what they do is seen on real machines (tests/e2e/test_guard.py)."""

from __future__ import annotations

from builders import guard


def _rules(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "daddr" in line]


def test_loading_replaces_our_table_and_no_other():
    """The three lines that begin the file make it so, whether there was a table or not."""
    text = guard.render(neighbours=[], allow=[])

    assert text.splitlines()[:3] == ["table inet slipway", "delete table inet slipway", "table inet slipway {"]
    assert "flush" not in text


def test_without_neighbours_or_openings_only_what_is_not_the_internet_is_kept_away():
    """Link-local addresses, and private ones of each family."""
    assert _rules(guard.render(neighbours=[], allow=[])) == [
        'iifname "slipway0" ip daddr { 169.254.0.0/16 } drop',
        'iifname "slipway0" ip daddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } drop',
        'iifname "slipway0" ip6 daddr { fc00::/7 } drop',
    ]


def test_neighbours_come_before_openings_and_openings_before_private_networks():
    """A network that is opened does not open a neighbour in it."""
    rules = _rules(guard.render(neighbours=["10.0.5.9", "2001:db8::9"], allow=["10.0.5.0/24", "fd00:5::/64"]))

    assert rules[:4] == [
        'iifname "slipway0" ip daddr { 10.0.5.9, 169.254.0.0/16 } drop',
        'iifname "slipway0" ip6 daddr { 2001:db8::9 } drop',
        'iifname "slipway0" ip daddr { 10.0.5.0/24 } accept',
        'iifname "slipway0" ip6 daddr { fd00:5::/64 } accept',
    ]


def test_who_opens_everything_does_not_open_the_metadata_service():
    """Its address is dropped before the openings are looked at."""
    rules = _rules(guard.render(neighbours=[], allow=["0.0.0.0/0"]))

    assert rules[:2] == [
        'iifname "slipway0" ip daddr { 169.254.0.0/16 } drop',
        'iifname "slipway0" ip daddr { 0.0.0.0/0 } accept',
    ]


def test_addresses_are_sorted_and_overlaps_are_merged():
    """The order in which a fleet is told does not change the file, and nft refuses overlapping intervals."""
    one = guard.render(neighbours=["198.51.100.12", "198.51.100.11"], allow=["10.1.0.0/16", "10.1.2.0/24"])
    other = guard.render(neighbours=["198.51.100.11", "198.51.100.12"], allow=["10.1.0.0/16"])

    assert one == other
    assert 'iifname "slipway0" ip daddr { 169.254.0.0/16, 198.51.100.11, 198.51.100.12 } drop' in one
