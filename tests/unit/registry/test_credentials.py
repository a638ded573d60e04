"""Docker's config.json and credential helpers: what is read, and what is refused by name."""

import base64
import json
import os

import pytest

from scripts.registry import credentials
from scripts.registry.errors import CredentialsUnreadable

HOST = "registry.test:5000"
AUTH = base64.b64encode(b"ada:pass:word").decode()


@pytest.fixture
def load(tmp_path):
    """Read the logins for HOST from a config.json with this text, or value."""

    def load(config, host=HOST):
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        (tmp_path / "config.json").write_bytes(text)
        return credentials.load(host, {"DOCKER_CONFIG": str(tmp_path)})

    return load


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Make a credential helper named test of a script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def helper(script):
        file = tmp_path / "docker-credential-test"
        file.write_bytes(script if isinstance(script, bytes) else f"#!/bin/sh\n{script}\n".encode())
        file.chmod(0o755)

    return helper


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"{HOST}/v2/"])
def test_a_login_is_found_under_every_name_that_docker_gave_it(load, key):
    """A password may have a colon, a user's name has none."""
    found = load({"auths": {"other.test": {"auth": "eDp5"}, key: {"auth": AUTH}}})

    assert (found.username, found.secret) == ("ada", "pass:word")
    assert "pass:word" not in f"{found} {found!r}"


def test_no_login_is_none(tmp_path, load):
    """No file, no folder, nothing for this registry."""
    assert credentials.load(HOST, {"HOME": str(tmp_path)}) is None
    assert credentials.load(HOST, {"HOME": "/dev/null"}) is None
    assert load({}) is None
    assert load({"auths": {HOST: {}}}) is None


def test_the_hubs_login_is_found_under_its_old_address(load):
    """As `docker login` without a name writes it."""
    assert load({"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}}, "registry-1.docker.io").username == "ada"


def test_an_identity_token_is_known_as_one(load, helper):
    """From the file, and from a helper, which gives it a user's name of its own."""
    helper('echo \'{"Username": "<token>", "Secret": "refresh"}\'')

    stored = load({"auths": {HOST: {"auth": base64.b64encode(b"x:").decode(), "identitytoken": "refresh"}}})
    helped = load({"credsStore": "test"})

    assert stored == helped
    assert (stored.secret, stored.is_identity_token) == ("refresh", True)


def test_a_helper_that_has_nothing_leaves_it_to_the_file(load, helper):
    """Every helper says so in the same words, with exit code 1."""
    helper("echo credentials not found in native keychain; exit 1")

    assert load({"auths": {HOST: {"auth": AUTH}}, "credsStore": "test"}).username == "ada"


def test_a_registrys_own_helper_comes_first(load, helper):
    """Before the general store, which is not on PATH here."""
    helper('read server; echo "{\\"Username\\": \\"$server\\", \\"Secret\\": \\"s\\"}"')

    assert load({"credHelpers": {HOST: "test"}, "credsStore": "none"}).username == HOST


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo the vault is sealed, hush; exit 1", "failed for registry.test:5000 (exit 1)"),
        ("kill -9 $$", "failed for registry.test:5000 (exit -9)"),
        ("echo hush", "answered in no form that Docker knows"),
        ("echo '[\"hush\"]'", "answered in no form that Docker knows"),
        ("printf '\\377\\376'", "answered in no form that Docker knows"),
        (b"\x7fELF hush", "cannot be run (Exec format error)"),
    ],
)
def test_a_helper_that_fails_is_named(load, helper, script, says):
    """What it said is not shown: it may be a secret."""
    helper(script)

    with pytest.raises(CredentialsUnreadable) as refused:
        load({"credHelpers": {HOST: "test"}})

    assert str(refused.value) == f"docker-credential-test: {says}"
    assert refused.value.__cause__ is None or "hush" not in str(refused.value.__cause__)


def test_a_helper_is_told_the_registry_over_stdin_alone(load, helper, tmp_path):
    """Its arguments, which everybody on the machine can read, are the one word that Docker gives it."""
    helper(f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/stdin; echo \'{{"Username": "a", "Secret": "s"}}\'')

    load({"credsStore": "test"})

    assert (tmp_path / "arguments").read_text() == "get\n"
    assert (tmp_path / "stdin").read_text() == HOST


def test_a_helper_that_is_not_there_is_named(load):
    """With what to do."""
    with pytest.raises(CredentialsUnreadable, match="docker-credential-none: not on PATH") as refused:
        load({"credsStore": "none"})

    assert refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"auths": 1}', b'{"credHelpers": []  , "auths": "x"}',
        json.dumps({"auths": {HOST: {"auth": "%%"}}}).encode(), json.dumps({"auths": {HOST: {"auth": 5}}}).encode(),
        json.dumps({"auths": {HOST: {"auth": base64.b64encode(b"\xff").decode()}}}).encode(),
        json.dumps({"auths": {HOST: {"username": 5, "password": ["x"]}}}).encode(),
        json.dumps({"auths": {HOST: {"identitytoken": {"a": 1}}}}).encode(),
    ],
)  # fmt: skip
def test_a_configuration_that_is_broken_is_named(load, tmp_path, text):
    """Rather than going on as nobody."""
    with pytest.raises(CredentialsUnreadable) as refused:
        load(text)

    assert str(refused.value).startswith(f"{tmp_path}/config.json: ")
    assert refused.value.hint
