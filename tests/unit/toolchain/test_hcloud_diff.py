"""Diff: which change replaces, which updates in place, and what is no change."""

from __future__ import annotations

import pytest

from scripts.toolchain.plugins.hcloud.diff import plan_changes
from scripts.toolchain.plugins.hcloud.resources import RESOURCES
from scripts.toolchain.plugins.hcloud.resources.server import user_data_digest
from scripts.toolchain.plugins.values import UNKNOWN

SCHEMAS = {kind.schema.name: kind.schema for kind in RESOURCES.values()}


def _changes(resource, old, new, **kwargs):
    found = plan_changes(SCHEMAS[resource], outputs=old, inputs=new, **kwargs)
    return {name: "replace" if change.replaces else "update" for name, change in found.items()}


HASH = user_data_digest("#cloud-config\n")
REPLACES = [
    ("Server", "image", "debian-12", "debian-13"),
    # Naming the same image by its id is another text.
    ("Server", "image", "debian-12", "7"),
    ("Server", "location", "fsn1", "nbg1"),
    ("Server", "datacenter", "fsn1-dc14", "nbg1-dc3"),
    ("Server", "sshKeys", ["1"], ["1", "2"]),
    ("Server", "sshKeys", ["1", "2"], ["2", "1"]),
    ("Server", "sshKeys", ["1"], None),
    ("Server", "userData", HASH, "#cloud-config"),
    ("Server", "userData", HASH, "#cloud-config\n\n"),
    ("Server", "userData", HASH, None),
    ("Network", "ipRange", "10.0.0.0/16", "10.0.0.0/8"),
    ("NetworkSubnet", "ipRange", "10.0.1.0/24", "10.0.2.0/24"),
    ("NetworkSubnet", "networkId", 1, 2),
    ("NetworkSubnet", "networkZone", "eu-central", "us-east"),
    ("NetworkSubnet", "type", "cloud", "server"),
    ("NetworkSubnet", "vswitchId", None, 4),
    ("SshKey", "publicKey", "ssh-ed25519 AAAA", "ssh-ed25519 AAAA\n"),
    ("PrimaryIp", "type", "ipv4", "ipv6"),
    ("PrimaryIp", "location", "fsn1", "hel1"),
    ("Volume", "location", "fsn1", "hel1"),
    ("VolumeAttachment", "serverId", 1, 2),
    ("VolumeAttachment", "volumeId", 1, 2),
    ("FirewallAttachment", "firewallId", 1, 2),
    ("ServerNetwork", "serverId", 1, 2),
    ("ServerNetwork", "networkId", 1, 2),
]
UPDATES = [
    ("Server", "serverType", "cax21", "cax31"),
    ("Server", "labels", {}, {"a": "b"}),
    ("Server", "labels", {"a": "b"}, None),
    ("Server", "name", "old", "new"),
    ("Server", "firewallIds", [1], []),
    ("Server", "firewallIds", [1], [1, 2]),
    ("Server", "backups", True, None),
    ("Server", "deleteProtection", False, True),
    ("Server", "placementGroupId", 5, None),
    ("Server", "networks", None, [{"networkId": 1, "aliasIps": []}]),
    ("Server", "networks", [{"networkId": 1, "ip": "10.0.0.2", "aliasIps": []}], [{"networkId": 1, "ip": "10.0.0.3"}]),
    (
        "Server",
        "publicNets",
        [{"ipv4Enabled": True, "ipv6Enabled": True}],
        [{"ipv4Enabled": False, "ipv6Enabled": True}],
    ),
    ("Volume", "size", 10, 20),
    ("Volume", "serverId", 1, 2),
    ("PlacementGroup", "type", "spread", "other"),
    ("Firewall", "rules", [], [{"direction": "in", "protocol": "icmp"}]),
    ("Firewall", "applyTos", [{"server": 1}], []),
    ("FirewallAttachment", "serverIds", [1], [1, 2]),
    ("SshKey", "name", "old", "new"),
    ("SshKey", "labels", {"a": "b"}, {"a": "c"}),
    ("PrimaryIp", "autoDelete", True, False),
    ("PrimaryIp", "assigneeId", 0, 42),
    ("Network", "deleteProtection", False, True),
    ("ServerNetwork", "aliasIps", [], ["10.0.0.9"]),
]
SAME = [
    ("Server", "location", "fsn1", None),
    ("Server", "firewallIds", [1], None),
    ("Server", "firewallIds", [1, 2], [2, 1]),
    ("Server", "image", "debian-12", None),
    ("Server", "labels", None, {}),
    ("Server", "labels", {}, None),
    ("Server", "backups", False, None),
    ("Server", "userData", HASH, "#cloud-config\n"),
    # What ignore_changes leaves behind: the old input, or the old output.
    ("Server", "userData", HASH, HASH),
    ("Server", "networks", [{"networkId": 1, "ip": "10.0.0.2", "aliasIps": []}], [{"networkId": 1, "aliasIps": []}]),
    ("Server", "publicNets", [{"ipv4Enabled": True, "ipv4": 9}], [{"ipv4Enabled": True}]),
    (
        "Firewall",
        "rules",
        [{"direction": "in", "protocol": "tcp", "port": "22", "sourceIps": ["10.0.0.0/8", "192.168.0.0/16"]}],
        [{"direction": "in", "protocol": "tcp", "port": "22", "sourceIps": ["192.168.0.0/16", "10.0.0.0/8"]}],
    ),
    (
        "Firewall",
        "rules",
        [{"direction": "in", "protocol": "icmp"}, {"direction": "out", "protocol": "icmp", "sourceIps": []}],
        [{"direction": "out", "protocol": "icmp"}, {"direction": "in", "protocol": "icmp"}],
    ),
    ("Firewall", "applyTos", [{"server": 1}], None),
    ("Firewall", "labels", {"a": "b"}, None),
    ("SshKey", "labels", {"a": "b"}, None),
    ("PrimaryIp", "assigneeId", 42, None),
    ("PrimaryIp", "autoDelete", True, None),
    ("Volume", "serverId", 42, None),
    ("VolumeAttachment", "automount", True, None),
    ("ServerNetwork", "ip", "10.0.0.2", None),
]


def _ids(rows):
    return [f"{resource}.{name}: {old} → {new}" for resource, name, old, new in rows]


@pytest.mark.parametrize(("resource", "name", "old", "new"), REPLACES, ids=_ids(REPLACES))
def test_change_replaces(resource, name, old, new):
    """These changes make a new object."""
    assert _changes(resource, {name: old}, _left_out(name, new)) == {name: "replace"}


@pytest.mark.parametrize(("resource", "name", "old", "new"), UPDATES, ids=_ids(UPDATES))
def test_change_updates_in_place(resource, name, old, new):
    """These changes keep the object."""
    assert _changes(resource, {name: old}, _left_out(name, new)) == {name: "update"}


@pytest.mark.parametrize(("resource", "name", "old", "new"), SAME, ids=_ids(SAME))
def test_no_change(resource, name, old, new):
    """These are the same thing in other words."""
    assert _changes(resource, {name: old}, _left_out(name, new)) == {}


@pytest.mark.parametrize(
    ("resource", "name"),
    [(schema.name, name) for schema in SCHEMAS.values() for name, item in schema.inputs().items() if item.replaces],
)
def test_unknown_value_of_a_replacing_property_replaces(resource, name):
    """What is not known yet counts as changed."""
    assert _changes(resource, {name: "something"}, {name: UNKNOWN}) == {name: "replace"}


def test_unknown_value_inside_a_list_is_a_change():
    """An unknown element counts as changed, in place where the property is."""
    assert _changes("Server", {"firewallIds": [1]}, {"firewallIds": [UNKNOWN]}) == {"firewallIds": "update"}


def test_outputs_are_compared_with_nothing():
    """A computed value that differs, or is missing, is no change."""
    assert _changes("Server", {"status": "off", "ipv4Address": "198.51.100.1"}, {}) == {}


def test_ignored_change_is_none():
    """What the program ignores is not compared."""
    assert _changes("Server", {"image": "debian-12"}, {"image": "debian-13"}, ignored=["image"]) == {}


def test_user_data_is_kept_as_its_digest():
    """The outputs hold base64 of the SHA-1 of user data (here as openssl computes it), not the data."""
    assert HASH == "wK9leoEi2xH7hUH5D+q3hxwsPXE="


def _left_out(name, value):
    return {} if value is None else {name: value}
