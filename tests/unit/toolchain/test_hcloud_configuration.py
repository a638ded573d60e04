"""The hcloud plugin's configuration."""

from __future__ import annotations

import pytest

from scripts.toolchain.plugins.errors import InvalidConfiguration
from scripts.toolchain.plugins.hcloud.configuration import (
    Configuration,
    check_configuration,
    load_configuration,
    parse_duration,
)
from scripts.toolchain.plugins.values import UNKNOWN

TOKEN = "t" * 64


@pytest.mark.parametrize("length", [0, 63, 65])
def test_token_of_another_length_fails(length):
    """A token is exactly 64 characters long, and a wrong one is not shown."""
    (failure,) = check_configuration({"token": "t" * length})

    assert failure.path == "token"
    assert failure.reason == "entered token is invalid (must be exactly 64 characters long)"


@pytest.mark.parametrize("last", ["\n", "\u2026"])
def test_token_that_no_header_takes_fails(last):
    """What came along with the copy is told before a request, and without the token."""
    (failure,) = check_configuration({"token": "t" * 63 + last})

    assert failure.reason == "entered token is invalid (holds a character that no token has)"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (
            "colour",
            "red",
            "Invalid or unknown key; the keys are endpoint, endpointHetzner, pollFunction, pollInterval, token",
        ),
        ("pollFunction", "linear", "expected one of constant, exponential"),
        ("pollInterval", "soon", 'expected a duration like "500ms"'),
        ("endpoint", "localhost:8765", "expected an address like https://api.hetzner.cloud/v1"),
    ],
)
def test_bad_key_or_value_fails(name, value, reason):
    """An unknown key and a value of no use fail in check."""
    (failure,) = check_configuration({name: value})

    assert (failure.path, failure.reason) == (name, reason)


def test_what_the_engine_adds_and_what_is_unknown_passes():
    """The engine's own keys, and values that are not known yet, are not judged."""
    assert check_configuration({"version": "1.43.3", "token": UNKNOWN, "pluginDownloadURL": "x"}) == ()


def test_missing_token_is_told_with_the_cure():
    """Without a token the message says where to put it."""
    with pytest.raises(
        InvalidConfiguration, match="pulumi config set --secret hcloud:token TOKEN` or set HCLOUD_TOKEN"
    ):
        load_configuration({}, {})


def test_configuration_wins_over_the_environment():
    """The environment only fills in what the stack does not say."""
    environment = {"HCLOUD_TOKEN": "e" * 64, "HCLOUD_ENDPOINT": "http://127.0.0.1:1/v1"}

    loaded = load_configuration({"token": TOKEN}, environment)

    assert loaded == Configuration(token=TOKEN, endpoint="http://127.0.0.1:1/v1")


def test_token_of_the_environment_is_checked_too():
    """A token of a wrong length from the environment fails in configure."""
    with pytest.raises(InvalidConfiguration, match="exactly 64 characters"):
        load_configuration({}, {"HCLOUD_TOKEN": "short"})


def test_defaults_and_trailing_slash():
    """The endpoint loses a trailing slash; polling doubles from half a second."""
    loaded = load_configuration({"token": TOKEN, "endpoint": "http://127.0.0.1:8765/v1/"}, {})

    assert loaded.endpoint == "http://127.0.0.1:8765/v1"
    assert (loaded.poll_function, loaded.poll_interval_s) == ("exponential", 0.5)


def test_polling_is_settable():
    """Interval and function are taken from the configuration."""
    loaded = load_configuration({"token": TOKEN, "pollFunction": "constant", "pollInterval": "20ms"}, {})

    assert (loaded.poll_function, loaded.poll_interval_s) == ("constant", 0.02)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1s", 1.0), ("1m30s", 90.0), ("1.5h", 5400.0)])
def test_duration(text, seconds):
    """Durations are written as Go writes them."""
    assert parse_duration(text) == seconds


def test_token_is_not_in_the_representation():
    """A configuration that lands in a message shows no token."""
    assert TOKEN not in repr(Configuration(token=TOKEN))
