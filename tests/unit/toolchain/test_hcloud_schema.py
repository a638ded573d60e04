"""The tables of the hcloud plugin against the facts and against the SDK that it serves."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from scripts.toolchain.plugins.hcloud.data_sources import DATA_SOURCES
from scripts.toolchain.plugins.hcloud.resources import RESOURCES
from scripts.toolchain.plugins.hcloud.schema import ListOf, MapOf, Object, Scalar

# `!` is required, `R` replaces, `~` is filled by the API when left out, `→` is an output only.
FACTS = """
Firewall: applyTos~ [FirewallApplyTo], labels~ map, name~ string, rules [FirewallRule]
FirewallAttachment: firewallId!R integer, labelSelectors [string], serverIds [integer]
Network: deleteProtection boolean, exposeRoutesToVswitch boolean, ipRange!R string, labels map, name~ string
NetworkSubnet: ipRange!R string, networkId!R integer, networkZone!R string, type!R string, vswitchId R integer, gateway→ string
PlacementGroup: labels map, name~ string, type! string, servers→ [integer]
PrimaryIp: assigneeId~ integer, assigneeType~ string, autoDelete~ boolean, datacenter~ string, deleteProtection~ boolean, labels~ map, location~R string, name~ string, type!R string, ipAddress→ string, ipNetwork→ string
Server: allowDeprecatedImages boolean, backups boolean, datacenter~R string, deleteProtection boolean, firewallIds~ [integer], ignoreRemoteFirewallIds boolean, image~R string, iso string, keepDisk boolean, labels map, location~R string, name~ string, networks [ServerNetwork], placementGroupId integer, publicNets [ServerPublicNet], rebuildProtection boolean, rescue string, serverType! string, shutdownBeforeDeletion boolean, sshKeys R [string], userData R string, backupWindow→ string, ipv4Address→ string, ipv6Address→ string, ipv6Network→ string, primaryDiskSize→ integer, status→ string
ServerNetwork: aliasIps~ [string], ip~R string, networkId~R integer, serverId!R integer, subnetId R string, macAddress→ string
SshKey: labels~ map, name~ string, publicKey!R string, fingerprint→ string
Volume: automount boolean, deleteProtection boolean, format string, labels map, location~R string, name~ string, serverId~ integer, size! integer, linuxDevice→ string
VolumeAttachment: automount~ boolean, serverId!R integer, volumeId!R integer
"""
NESTED = {
    ("Firewall", "applyTos"): {"labelSelector": "string", "server": "integer"},
    ("Firewall", "rules"): {
        "description": "string",
        "destinationIps": "[string]",
        "direction!": "string",
        "port": "string",
        "protocol!": "string",
        "sourceIps": "[string]",
    },
    ("Server", "networks"): {
        "aliasIps": "[string]",
        "ip": "string",
        "macAddress": "string",
        "networkId": "integer",
        "subnetId": "string",
    },
    ("Server", "publicNets"): {
        "ipv4": "integer",
        "ipv4Enabled": "boolean",
        "ipv6": "integer",
        "ipv6Enabled": "boolean",
    },
}


def _facts():
    for line in FACTS.strip().splitlines():
        resource, _, properties = line.partition(": ")
        for item in properties.split(", "):
            name, marks, kind = re.fullmatch(r"(\w+?) ?([!~→R]*) (\S+)", item).groups()
            yield pytest.param(resource, name, marks, kind, id=f"{resource}.{name}")


ROWS = tuple(_facts())


def _schema(resource):
    return next(kind.schema for kind in RESOURCES.values() if kind.schema.name == resource)


def _kind(kind):
    match kind:
        case Scalar():
            return {str: "string", int: "integer", bool: "boolean"}[kind.kind]
        case ListOf(element=Object()):
            return "[object]"
        case ListOf():
            return f"[{_kind(kind.element)}]"
        case MapOf():
            return "map"


@pytest.mark.parametrize(("resource", "name", "marks", "kind"), ROWS)
def test_property_is_as_the_facts_say(resource, name, marks, kind):
    """Type, requirement, replacement, filling and direction of a property are those of the vendor's provider."""
    item = _schema(resource).properties[name]

    assert _kind(item.type) == re.sub(r"\[[A-Z]\w+\]", "[object]", kind)
    assert (item.required, item.replaces, item.filled, item.computed) == tuple(mark in marks for mark in "!R~→")


@pytest.mark.parametrize("resource", [line.partition(":")[0] for line in FACTS.strip().splitlines()])
def test_resource_has_no_other_property(resource):
    """A resource has the properties of the facts and no other."""
    expected = {row.values[1] for row in ROWS if row.values[0] == resource}

    assert set(_schema(resource).properties) == expected


@pytest.mark.parametrize("resource", [line.partition(":")[0] for line in FACTS.strip().splitlines()])
def test_sdk_knows_the_same_inputs_and_outputs(resource):
    """What the SDK can send is what the table takes, and what it reads is what the table gives."""
    module = importlib.import_module("pulumi_hcloud." + re.sub(r"(?<!^)([A-Z])", r"_\1", resource).lower())
    kind = getattr(module, resource)
    schema = _schema(resource)

    sent = set(inspect.signature(kind._internal_init).parameters) - {"__self__", "resource_name", "opts", "__props__"}
    read = {name for name, member in inspect.getmembers(kind) if isinstance(member, property)} - {
        "id",
        "urn",
        "pulumi_resource_type",
        "pulumi_resource_name",
    }
    assert sent == {_snake(name) for name in schema.inputs()}
    assert {name for name in read if not name.startswith("_")} == {_snake(name) for name in schema.properties}


@pytest.mark.parametrize(("resource", "name"), NESTED)
def test_nested_object_is_as_the_facts_say(resource, name):
    """A nested object has the properties of the facts."""
    nested = _schema(resource).properties[name].type.element

    told = {f"{key}{'!' if item.required else ''}": _kind(item.type) for key, item in nested.properties.items()}
    assert told == NESTED[resource, name]


@pytest.mark.parametrize("token", DATA_SOURCES)
def test_data_source_takes_what_the_sdk_sends(token):
    """Every argument that the SDK's function sends is one that the data source knows."""
    name = token.rpartition(":")[2]
    module = importlib.import_module("pulumi_hcloud." + _snake(name))

    sent = set(inspect.signature(getattr(module, _snake(name))).parameters) - {"opts"}
    assert sent <= {_snake(argument) for argument in DATA_SOURCES[token].arguments}


def test_tokens_are_those_of_the_sdk():
    """A resource is served under the type that the SDK registers."""
    assert {
        "hcloud:index/sshKey:SshKey",
        "hcloud:index/server:Server",
        "hcloud:index/networkSubnet:NetworkSubnet",
    } <= set(RESOURCES)


def _snake(name):
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
