"""The buildx door against the real buildx, with a configuration of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from datetime import UTC, datetime

import pytest

from builders import buildx, certificates, credentials
from builders.errors import BuildxFailed
from builders.platforms import Platform

pytestmark = pytest.mark.tools

ARM = buildx.Node(name="arm64-1", endpoint="tcp://198.51.100.11:1234", platform=Platform("linux", "arm64"))
AMD = buildx.Node(name="amd64-1", endpoint="tcp://[2001:db8:51:1::1]:1234", platform=Platform("linux", "amd64"))


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    """Give the user an empty configuration, in folders whose names need quoting."""
    for name in ("BUILDX_CONFIG", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / f"{name}, a user"))
    return tmp_path


@pytest.fixture
def folder(user):  # noqa: ARG001 - the folder lies in that configuration
    """Credentials for the builder `dev`."""
    now = datetime.now(UTC)
    authority = certificates.create_authority("dev", now=now)
    leaf = certificates.issue_client(authority, "operator", now=now, days=1)
    return credentials.write("dev", authority.certificate, leaf)


def _buildx(*arguments: str) -> str:
    return subprocess.run([shutil.which("buildx"), *arguments], check=True, capture_output=True, text=True).stdout


def _current() -> str:
    records = [json.loads(line) for line in _buildx("ls", "--format", "json", "--timeout", "1ns").splitlines()]
    return next(record["Name"] for record in records if record["Current"])


def _snapshot(user):
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in (user / "BUILDX_CONFIG, a user" / "instances").iterdir()
    }


def test_a_registered_builder_is_found_as_it_was_asked_for(folder):
    """Platforms are pinned and addresses of both families are kept."""
    buildx.register("dev", [ARM, AMD], folder)

    assert set(buildx.find("dev")) == {ARM, AMD}
    assert "linux/arm64*" in _buildx("inspect", "dev", "--timeout", "1ns")


def test_what_is_absent_is_not_found():
    """None is an answer, not a failure."""
    assert buildx.find("dev") is None


def test_registering_again_writes_nothing(folder, user):
    """A second `up` leaves the configuration as it is."""
    buildx.register("dev", [ARM, AMD], folder)
    before = _snapshot(user)

    buildx.register("dev", [AMD, ARM], folder)

    assert _snapshot(user) == before


@pytest.mark.parametrize(
    "before",
    [
        [ARM],
        [ARM, AMD, buildx.Node(name="old", endpoint="tcp://198.51.100.9:1234", platform=Platform("linux", "arm64"))],
        [
            buildx.Node(name="arm64-1", endpoint=AMD.endpoint, platform=ARM.platform),
            buildx.Node(name="amd64-1", endpoint=ARM.endpoint, platform=AMD.platform),
        ],
        [
            buildx.Node(name="arm64-1", endpoint=ARM.endpoint, platform=AMD.platform),
            buildx.Node(name="amd64-1", endpoint=AMD.endpoint, platform=ARM.platform),
        ],
    ],
    ids=["a node missing", "a node too many", "addresses swapped", "platforms swapped"],
)
def test_registering_converges_and_keeps_the_users_choice(folder, before):
    """Whatever was registered under the name, afterwards it is what was asked for, and still in use."""
    buildx.register("dev", before, folder, use=True)
    assert _current() == "dev"

    buildx.register("dev", [ARM, AMD], folder)

    assert set(buildx.find("dev")) == {ARM, AMD}
    assert _current() == "dev"


def test_registering_does_not_change_which_builder_is_in_use(folder):
    """The user's own choice stays, unless another is asked for."""
    _buildx("create", "--name", "mine", "--timeout", "1ns", "--driver", "remote", "--use", "tcp://127.0.0.1:1")

    buildx.register("dev", [ARM], folder)
    assert _current() == "mine"

    buildx.register("dev", [ARM], folder, use=True)
    assert _current() == "dev"


def test_other_builders_are_not_touched(folder):
    """They are there before, during and after."""
    _buildx("create", "--name", "mine", "--timeout", "1ns", "--driver", "remote", "--node", "one", "tcp://127.0.0.1:1")
    before = _buildx("inspect", "mine", "--timeout", "1ns")

    buildx.register("dev", [ARM, AMD], folder)
    buildx.unregister("dev")

    assert _buildx("inspect", "mine", "--timeout", "1ns") == before


def test_a_strangers_builder_of_the_same_name_is_left_alone(folder):
    """It is neither found, nor overwritten, nor removed."""
    _buildx("create", "--name", "dev", "--timeout", "1ns", "--driver", "remote", "--node", "one", "tcp://127.0.0.1:1")

    with pytest.raises(BuildxFailed, match=r"^builder dev: buildx knows another builder of this name$"):
        buildx.register("dev", [ARM], folder)
    buildx.unregister("dev")

    assert buildx.find("dev") is None
    assert "tcp://127.0.0.1:1" in _buildx("inspect", "dev", "--timeout", "1ns")


def test_a_strangers_builder_may_be_of_a_platform_that_hetzner_has_not(folder):
    """It is told apart like any other, and other builders can be registered beside it."""
    _buildx(
        *("create", "--name", "dev", "--timeout", "1ns", "--driver", "remote", "--platform", "linux/riscv64"),
        "tcp://127.0.0.1:1",
    )

    with pytest.raises(BuildxFailed, match=r"^builder dev: buildx knows another builder of this name$"):
        buildx.register("dev", [ARM], folder)
    buildx.unregister("dev")

    assert "linux/riscv64" in _buildx("inspect", "dev", "--timeout", "1ns")


def test_a_buildx_without_the_timeout_flag_serves(folder, tmp_path, monkeypatch):
    """It came with 0.32; before that the nodes' own answers are waited for as long as buildx does."""
    old = tmp_path / "old" / "buildx"
    old.parent.mkdir()
    old.write_text(
        f"""#!/bin/sh
for each; do [ "$each" != --timeout ] || {{ echo 'ERROR: unknown flag: --timeout' >&2; exit 1; }}; done
exec {shutil.which("buildx")} "$@"
"""
    )
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    dead = buildx.Node(name="amd64-1", endpoint="tcp://127.0.0.1:9", platform=Platform("linux", "amd64"))

    buildx.register("dev", [dead], folder)
    assert buildx.find("dev") == (dead,)
    buildx.unregister("dev")
    assert buildx.find("dev") is None


def test_unregistering_twice_is_no_error(folder):
    """What is absent is what was asked for."""
    buildx.register("dev", [ARM], folder)

    buildx.unregister("dev")
    buildx.unregister("dev")

    assert buildx.find("dev") is None


def test_unregistering_needs_no_certificates(folder):
    """The builder goes, though its files have gone before."""
    buildx.register("dev", [ARM], folder)
    credentials.remove("dev")

    buildx.unregister("dev")

    assert buildx.find("dev") is None


def test_registrations_side_by_side_end_whole(folder):
    """Several runs on one machine, of one builder and of others, do not tear each other apart."""
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    threads = [threading.Thread(target=buildx.register, args=("dev", [ARM, AMD], folder)) for _ in range(3)]
    threads += [threading.Thread(target=buildx.register, args=("other", [AMD], other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(buildx.find("dev")) == {ARM, AMD}
    assert set(buildx.find("other")) == {AMD}


def test_status_names_every_node_though_none_answers(folder):
    """A dead node is a line in the list, within the deadline."""
    dead = buildx.Node(name="amd64-1", endpoint="tcp://127.0.0.1:9", platform=Platform("linux", "amd64"))
    buildx.register("dev", [dead], folder)

    assert buildx.status("dev", deadline_s=2) == (
        buildx.NodeStatus(
            name="amd64-1",
            endpoint="tcp://127.0.0.1:9",
            platforms=("linux/amd64",),
            status="inactive",
            version=None,
            error=None,
        ),
    )


def test_the_status_of_nothing_says_what_to_do():
    """The hint is a command."""
    with pytest.raises(BuildxFailed, match=r"^builder dev: it is not registered on this machine$") as caught:
        buildx.status("dev")
    assert caught.value.hint == "slipway connect"


def test_a_refusal_of_buildx_is_one_line(folder):
    """Its own reason, without its prefix."""
    with pytest.raises(BuildxFailed, match=r"^buildx create: failed \(exit 1\): .*scheme.*"):
        buildx.register("dev", [buildx.Node(name="x", endpoint="nonsense://", platform=ARM.platform)], folder)


def test_without_buildx_the_cure_is_named(monkeypatch, tmp_path):
    """An empty PATH is no traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildxFailed, match="can be run") as caught:
        buildx.find("dev")
    assert "scripts/setup --env" in caught.value.hint
