"""What an exported state tells."""

import json

import pytest

from builders.errors import StackFailed
from builders.hetzner import Kept
from builders.inventory import Endpoint
from builders.state import State

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
LABELS = {"managed-by": "slipway", "slipway-stack": "dev", "slipway-id": "a1b2"}
NODE = {
    "name": "arm64-1", "platform": "linux/arm64", "address": "198.51.100.11", "endpoint": "tcp://198.51.100.11:1234",
    "host_key": "ssh-ed25519 AAAA", "certificate_expires": "2027-01-01T00:00:00+00:00", "buildkit_version": "v0.32.2",
    "server_type": "cax21", "location": "fsn1",
}  # fmt: skip


def urn(kind, name):
    """Return the URN of a resource of the stack dev."""
    return f"urn:pulumi:dev::slipway::{kind}::{name}"


def record(kind, name, **rest):
    """Return a resource as the export has it."""
    return {"urn": urn(kind, name), "type": kind, **rest}


def server(number, name, **rest):
    """Return a server as the export has it."""
    return record(
        "hcloud:index/server:Server", name, id=str(number), inputs={"name": f"slipway-dev-{name}", "labels": LABELS},
        outputs={"ipv4Address": "198.51.100.11", "ipv6Address": "2001:db8::1"}, **rest,
    )  # fmt: skip


def state(*resources, pending=(), outputs=None):
    """Return a state with these records."""
    stack = [record("pulumi:pulumi:Stack", "slipway-dev", outputs=outputs)] if outputs is not None else []
    deployment = {
        "resources": [*stack, *resources],
        "pending_operations": [{"type": "creating", "resource": each} for each in pending],
    }
    return State.from_json(json.dumps({"version": 3, "deployment": deployment}))


def kept(kind, number, name, **labels):
    """Return what the API lists."""
    return Kept(kind=kind, id=number, name=name, location="fsn1", server_type=None, created=None, labels=labels)


def test_an_empty_stack_has_nothing():
    """A stack that was made and never brought up exports no resources."""
    empty = State.from_json('{"version": 3, "deployment": {"manifest": {}}}')

    assert (empty.resources, empty.pending, empty.outputs, empty.identities) == ((), (), {}, frozenset())


def test_secrets_are_plain_where_shown_and_absent_where_not():
    """`--show-secrets` writes JSON inside JSON; without it there is only a cipher text."""
    shown = state(outputs={"authorityKey": {**SECRET, "plaintext": '"PEM"'}, "labels": [{**SECRET, "plaintext": "1"}]})
    hidden = state(outputs={"authorityKey": {**SECRET, "ciphertext": "v1:x"}})

    assert shown.outputs == {"authorityKey": "PEM", "labels": [1]}
    assert hidden.outputs == {"authorityKey": None}
    assert "PEM" not in repr(shown)


def test_orphans_bear_the_id_and_are_not_in_the_state():
    """A server that a killed run ordered is removed, before what it holds on to; another stack's of the same name is not."""
    known = state(server(1, "amd64-1"), pending=[server("", "arm64-1")])
    existing = [
        kept("firewall", 9, "slipway-dev", **LABELS),
        kept("server", 1, "slipway-dev-amd64-1", **LABELS),
        kept("server", 2, "slipway-dev-arm64-1", **LABELS),
        kept("server", 3, "slipway-dev-arm64-1", **{**LABELS, "slipway-id": "ffff"}),
    ]

    assert [(each.kind, each.id) for each in known.orphans(existing)] == [("server", 2), ("firewall", 9)]


def test_the_id_is_known_from_an_unfinished_order_alone():
    """A first run that is killed while it orders has no outputs yet."""
    assert state(pending=[server("", "arm64-1")]).identities == frozenset({"a1b2"})


def test_the_id_is_known_from_the_authority_alone():
    """Every resource that bears it was ordered after the authority was recorded, and unfinished orders can be forgotten."""
    authority = record("pulumi-python:dynamic/slipway:Authority", "authority", id="a1b2", outputs={"identity": "a1b2"})

    assert state(authority).identities == frozenset({"a1b2"})


def test_what_bears_no_id_is_nobodys_orphan():
    """Neither a resource without labels nor an authority without an id makes a mark of nothing."""
    bare = [record("hcloud:index/server:Server", "bare", inputs=inputs) for inputs in ({}, {"labels": {"a": "b"}})]
    known = state(*bare, record("pulumi-python:dynamic/slipway:Authority", "authority", outputs={}))

    assert known.identities == frozenset()
    assert known.orphans([kept("server", 4, "somebody's"), kept("server", 5, "another", **{"slipway-id": ""})]) == ()


def test_nodes_of_a_stack_that_was_taken_down_are_not_told():
    """After a `down` that keeps the addresses, the stack's outputs still name the nodes."""
    assert [node.name for node in state(server(1, "arm64-1"), outputs={"nodes": [NODE]}).nodes()] == ["arm64-1"]
    assert state(outputs={"nodes": [NODE]}).nodes() == ()


def test_a_node_is_there_with_an_ipv6_address_alone():
    """As `address: ipv6` has it."""
    only_v6 = server(1, "arm64-1") | {"outputs": {"ipv6Address": "2001:db8::1"}}

    assert state(only_v6, outputs={"nodes": [{**NODE, "address": "2001:db8::1"}]}).nodes()


def test_builders_are_what_colleagues_are_given():
    """They stay known while the stack is down, since their endpoints stay."""
    endpoint = {"name": "arm64-1", "endpoint": "tcp://198.51.100.11:1234", "platform": "linux/arm64"}

    assert state(outputs={"builders": {"slipway-dev": [endpoint]}}).builders().builders == (
        ("slipway-dev", (Endpoint(**endpoint),)),
    )


def test_what_an_update_of_a_part_left_unknown_is_left_out():
    """`pulumi up --target` leaves the engine's mark in place of what depends on a resource that was not made."""
    unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    endpoint = {"name": "arm64-1", "endpoint": "tcp://198.51.100.11:1234", "platform": "linux/arm64"}
    builders = {"slipway-dev": [endpoint, unknown], "slipway-dev-2": [unknown]}
    found = state(server(1, "arm64-1"), outputs={"nodes": unknown, "builders": builders, "authority": unknown})

    assert found.nodes() == ()
    assert found.builders().builders == (("slipway-dev", (Endpoint(**endpoint),)),)
    with pytest.raises(StackFailed, match="no output 'authority' yet"):
        found.output("authority")


def test_registrations_are_known_from_an_unfinished_one_too():
    """A run killed after it registered has no record of having done so."""
    pending = record(
        "pulumi-python:dynamic/slipway:BuildxBuilder", "slipway-dev", inputs={"builder": "slipway-dev", "nodes": []}
    )

    other = record("another:kind:Of", "resource", inputs={"builder": "another"})
    unnamed = record("pulumi-python:dynamic/slipway:BuildxBuilder", "odd", inputs={})
    endpoint = {"name": "arm64-1", "endpoint": "tcp://198.51.100.11:1234", "platform": "linux/arm64"}

    assert state(pending=[pending]).registered() == ("slipway-dev",)
    assert state(other, pending, unnamed).registered() == ("slipway-dev",)
    assert state(outputs={"builders": {"shared": [endpoint]}}).registered() == ("shared",)


def test_the_registry_is_known_from_its_deployment():
    """An output alone may be of one that was taken away."""
    deployment = {"type": "kubernetes:apps/v1:Deployment", "urn": "urn:pulumi:dev::slipway::Deployment::registry"}

    assert state(outputs={"registry": "r.example.com"}).registry is None
    found = state(deployment | {"protect": True}, outputs={"registry": "r.example.com"})
    assert found.registry == ("r.example.com", True)


def test_an_output_that_is_not_there_yet_says_what_to_do():
    """A stack that was never brought up has no authority to sign with."""
    assert state(outputs={"authority": "PEM"}).output("authority") == "PEM"
    with pytest.raises(StackFailed, match="no output 'authority' yet") as caught:
        state().output("authority")
    assert caught.value.hint == "bring it up first: slipway up"
