"""builders.inventory: nodes and bundles as text."""

import json

import pytest

from builders.errors import InvalidSetting
from builders.inventory import Builders, Bundle, Node, endpoint

OUTPUT = {
    "name": "arm64-1",
    "platform": "linux/arm64",
    "address": "198.51.100.10",
    "endpoint": "tcp://198.51.100.10:1234",
    "host_key": "ssh-ed25519 AAAA",
    "certificate_expires": "2027-11-23T00:00:00+00:00",
    "buildkit_version": "v0.32.2",
    "server_type": "cax21",
    "location": "fsn1",
}
BUNDLE = Bundle(
    name="ada",
    builders=Builders.from_json(
        {"slipway-dev": [{"name": "arm64-1", "endpoint": "tcp://198.51.100.10:1234", "platform": "linux/arm64"}]}
    ),
    authority="CA",
    certificate="CERT",
    key="KEY",
)


def test_a_node_survives_the_way_through_the_stacks_outputs():
    """What later versions add to the output is ignored."""
    assert Node.from_output({**OUTPUT, "new": "x"}).to_output() == OUTPUT


def test_an_ipv6_endpoint_has_brackets():
    """buildx reads an endpoint as a URL."""
    assert endpoint("2001:db8::1") == "tcp://[2001:db8::1]:1234"
    assert endpoint("198.51.100.10") == "tcp://198.51.100.10:1234"


def test_a_bundle_survives_as_text():
    """Written and read, it is the same."""
    assert Bundle.from_text(BUNDLE.to_text()) == BUNDLE


def test_a_bundles_key_is_not_shown():
    """Neither a log nor a traceback of it holds the key."""
    assert "KEY" not in repr(BUNDLE)


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", '{"slipway-bundle": 1}', "not json", '{"slipway-bundle": 1, "name": "x", "builders": []}',
        "[" * 100_000, '{"slipway-bundle": ' + "9" * 5000,
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_file_that_is_no_bundle_is_refused(text):
    """The error says how to get one."""
    with pytest.raises(InvalidSetting, match="no file that `slipway invite` wrote") as caught:
        Bundle.from_text(text)

    assert caught.value.hint == "ask for a new one: slipway invite NAME"


@pytest.mark.parametrize(
    "odd", [{"key": 5}, {"name": None}, {"builders": {"b": [{"name": "n", "endpoint": "tcp://h:1", "platform": 5}]}}]
)
def test_a_bundle_whose_fields_are_no_texts_is_refused(odd):
    """Here, and not where they are used."""
    with pytest.raises(InvalidSetting, match="no file that `slipway invite` wrote"):
        Bundle.from_text(json.dumps(json.loads(BUNDLE.to_text()) | odd))


def test_a_bundle_of_a_later_version_asks_for_an_update():
    """It is not read by halves."""
    with pytest.raises(InvalidSetting, match="version 2 is not known, update slipway"):
        Bundle.from_text('{"slipway-bundle": 2}')
