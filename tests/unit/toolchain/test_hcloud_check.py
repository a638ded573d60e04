"""Check: what the vendor's provider catches, coerces and fills in, and what it leaves to the API."""

from __future__ import annotations

import re

import pytest

from scripts.toolchain.plugins.hcloud.check import check_inputs
from scripts.toolchain.plugins.hcloud.resources import RESOURCES
from scripts.toolchain.plugins.values import UNKNOWN

SCHEMAS = {kind.schema.name: kind.schema for kind in RESOURCES.values()}
NAMED = ("Firewall", "Network", "PlacementGroup", "PrimaryIp", "Server", "SshKey", "Volume")
REQUIRED = {
    "Firewall": {},
    "FirewallAttachment": {"firewallId": 1},
    "Network": {"ipRange": "10.0.0.0/8"},
    "NetworkSubnet": {"ipRange": "10.0.1.0/24", "networkId": 1, "networkZone": "eu-central", "type": "cloud"},
    "PlacementGroup": {"type": "spread"},
    "PrimaryIp": {"type": "ipv4"},
    "Server": {"serverType": "cax21"},
    "ServerNetwork": {"serverId": 1},
    "SshKey": {"publicKey": "ssh-ed25519 AAAA"},
    "Volume": {"size": 10},
    "VolumeAttachment": {"serverId": 1, "volumeId": 2},
}


def _check(resource, *, old=None, seed=b"seed", **inputs):
    return check_inputs(SCHEMAS[resource], logical_name="web", old=old, new=REQUIRED[resource] | inputs, seed=seed)


def _failures(resource, **inputs):
    return {(failure.path, failure.reason) for failure in _check(resource, **inputs)[1]}


@pytest.mark.parametrize("resource", REQUIRED)
def test_required_inputs_are_enough(resource):
    """Nothing but the required inputs passes."""
    assert _check(resource)[1] == ()


@pytest.mark.parametrize(("resource", "name"), [(kind, name) for kind, names in REQUIRED.items() for name in names])
def test_missing_required_input_fails(resource, name):
    """A required input that is left out is named."""
    inputs = {key: value for key, value in REQUIRED[resource].items() if key != name}

    _, problems = check_inputs(SCHEMAS[resource], logical_name="web", old=None, new=inputs)

    assert [(problem.path, problem.reason) for problem in problems] == [(name, f"Missing required argument: {name}")]


@pytest.mark.parametrize("resource", sorted(set(REQUIRED) - {"SshKey", "PrimaryIp"}))
def test_unknown_property_fails(resource):
    """A property that the resource does not have is refused."""
    assert _failures(resource, colour="red") == {("colour", "Invalid or unknown key")}


@pytest.mark.parametrize("resource", ["SshKey", "PrimaryIp"])
def test_newer_resources_drop_an_unknown_property(resource):
    """SshKey and PrimaryIp accept an unknown property silently and forget it."""
    inputs, problems = _check(resource, colour="red")

    assert problems == ()
    assert "colour" not in inputs


@pytest.mark.parametrize(
    ("resource", "inputs", "path"),
    [
        ("Server", {"networks": [{"networkId": 1, "zone": "x"}]}, "networks[0].zone"),
        ("Server", {"ipv4Address": "198.51.100.1"}, "ipv4Address"),
        ("Firewall", {"rules": [{"direction": "in", "protocol": "icmp", "ports": "22"}]}, "rules[0].ports"),
    ],
)
def test_unknown_nested_property_and_output_fail(resource, inputs, path):
    """Nested objects are as strict, and an output is no input."""
    assert _failures(resource, **inputs) == {(path, "Invalid or unknown key")}


@pytest.mark.parametrize("resource", NAMED)
def test_name_is_made_of_the_logical_name(resource):
    """A name left out is the logical name, a dash and seven hexadecimal digits."""
    inputs, _ = _check(resource)

    assert re.fullmatch(r"web-[0-9a-f]{7}", inputs["name"])
    assert inputs["__defaults"] == ["name"]


@pytest.mark.parametrize("resource", NAMED)
def test_made_name_is_kept_on_later_updates(resource):
    """The name that was made up once stays, whatever the seed."""
    first, _ = _check(resource)

    again, _ = _check(resource, old=first, seed=b"another")

    assert again["name"] == first["name"]


def test_replacement_gets_another_name():
    """A replacement has no old inputs, so its name differs from that of the object that still exists."""
    assert _check("Server", seed=b"one")[0]["name"] != _check("Server", seed=b"two")[0]["name"]


def test_without_seed_every_name_differs():
    """Names do not repeat when the engine gives no seed."""
    assert _check("Server", seed=b"")[0]["name"] != _check("Server", seed=b"")[0]["name"]


def test_given_name_is_taken_as_it_is():
    """A name that the program gives is not touched and is no default."""
    inputs, _ = _check("Server", name="builder")

    assert (inputs["name"], inputs["__defaults"]) == ("builder", [])


def test_name_given_before_and_then_left_out_is_made_anew():
    """Only a made name is kept: one that the program took back is not."""
    assert _check("Server", old={"name": "builder", "__defaults": []})[0]["name"].startswith("web-")


@pytest.mark.parametrize(
    ("resource", "inputs", "name", "coerced"),
    [
        ("Volume", {"size": "12"}, "size", 12),
        ("Server", {"backups": "true"}, "backups", True),
        ("Server", {"keepDisk": "false"}, "keepDisk", False),
        ("Server", {"sshKeys": [2]}, "sshKeys", ["2"]),
        ("Server", {"firewallIds": ["7"]}, "firewallIds", [7]),
        ("Server", {"placementGroupId": "5"}, "placementGroupId", 5),
        ("Server", {"labels": {"a": 1, "b": True}}, "labels", {"a": "1", "b": "true"}),
        ("FirewallAttachment", {"firewallId": "9"}, "firewallId", 9),
    ],
)
def test_scalars_are_coerced(resource, inputs, name, coerced):
    """Strings, numbers and booleans become what the property is."""
    checked, problems = _check(resource, **inputs)

    assert problems == ()
    assert checked[name] == coerced
    assert type(checked[name]) is type(coerced)


@pytest.mark.parametrize(
    ("resource", "inputs", "failure"),
    [
        ("Volume", {"size": "big"}, ("size", "expected an integer, got a string that is none")),
        ("Server", {"backups": "yes"}, ("backups", "expected a boolean, got a string that is none")),
        ("Server", {"labels": "red"}, ("labels", "expected an object, got a string that is none")),
        ("Server", {"sshKeys": "key"}, ("sshKeys", "expected a list, got a string that is none")),
        ("Server", {"firewallIds": ["x"]}, ("firewallIds[0]", "expected an integer, got a string that is none")),
        ("Volume", {"size": 1.5}, ("size", "expected an integer, got a fraction")),
    ],
)
def test_other_types_fail_without_showing_the_value(resource, inputs, failure):
    """What cannot be coerced is refused; the value may be a secret and is not shown."""
    assert _failures(resource, **inputs) == {failure}


def test_server_networks_always_get_alias_ips():
    """A network of a server without alias addresses has an empty list of them."""
    assert _check("Server", networks=[{"networkId": 1}])[0]["networks"] == [{"networkId": 1, "aliasIps": []}]


def test_public_nets_fill_in_what_is_enabled():
    """Both families are enabled unless the program says otherwise."""
    filled = _check("Server", publicNets=[{"ipv6Enabled": False}])[0]["publicNets"]

    assert filled == [{"ipv4Enabled": True, "ipv6Enabled": False}]


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("10.1.2.3/8", "10.1.2.3/8 has host bits set; the network is 10.0.0.0/8"),
        ("2001:db8::1/32", "2001:db8::1/32 has host bits set; the network is 2001:db8::/32"),
        ("10.0.0.0/33", "10.0.0.0/33 is no network in CIDR notation"),
    ],
)
@pytest.mark.parametrize("side", ["sourceIps", "destinationIps"])
def test_bad_network_of_a_rule_is_caught(network, reason, side):
    """Host bits and other slips in a rule's networks fail before any call."""
    rule = {"direction": "in", "protocol": "tcp", "port": "22", side: ["192.168.0.0/16", network]}

    assert _failures("Firewall", rules=[rule]) == {(f"rules[0].{side}", reason)}


@pytest.mark.parametrize(
    ("resource", "inputs"),
    [
        ("Firewall", {"rules": [{"direction": "in", "protocol": "tcp", "sourceIps": ["0.0.0.0/0"]}]}),
        ("Volume", {"size": 5}),
        ("Volume", {}),
        ("NetworkSubnet", {"networkZone": "moon-central"}),
    ],
)
def test_what_the_api_answers_is_not_caught(resource, inputs):
    """A TCP rule without port, a volume too small or nowhere, a bad zone: the API says so, not check."""
    assert _failures(resource, **inputs) == set()


@pytest.mark.parametrize(
    ("resource", "inputs", "path"),
    [
        ("Firewall", {"rules": [{"direction": "sideways", "protocol": "icmp"}]}, "rules[0].direction"),
        ("Firewall", {"rules": [{"direction": "in", "protocol": "http"}]}, "rules[0].protocol"),
        ("NetworkSubnet", {"type": "cellar"}, "type"),
        ("Server", {"image": ""}, "image"),
        ("Server", {"sshKeys": ["laptop", ""]}, "sshKeys"),
        ("Server", {"networks": [{"networkId": 1}, {"networkId": 1}]}, "networks"),
    ],
)
def test_words_that_mean_nothing_fail(resource, inputs, path):
    """Closed sets of words, an empty image or SSH key and one network twice are caught."""
    assert {failed for failed, _ in _failures(resource, **inputs)} == {path}


def test_unknown_values_pass():
    """What is not known yet is neither coerced nor judged."""
    inputs, problems = _check(
        "Server", image=UNKNOWN, firewallIds=[UNKNOWN], networks=[{"networkId": UNKNOWN}], labels=UNKNOWN
    )

    assert problems == ()
    assert (inputs["image"], inputs["firewallIds"], inputs["labels"]) == (UNKNOWN, [UNKNOWN], UNKNOWN)
    assert _check("Server", networks=[UNKNOWN, {"networkId": 1}], sshKeys=[UNKNOWN])[1] == ()
