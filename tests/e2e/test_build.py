"""`slipway build`: an ordinary push while all builders are up, and a merge that loses nothing while one is down."""

import fcntl
import json
import os
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(600)]

DOCKERFILE = """\
FROM scratch AS build
ARG TARGETARCH
ADD base-$TARGETARCH.tar /
COPY text .
RUN echo "$(cat text) on $(uname -m)" | tee /result
FROM scratch
COPY --from=build /result /
"""
BOTH = ["--platform", "linux/amd64,linux/arm64"]
MISSING = 5


@pytest.fixture(scope="module")
def operator(make_operator):
    """The operator, whose two builders are up at first."""
    machine = make_operator("build")
    machine.up()
    yield machine
    machine.run("pulumi", "state", "unprotect", "--all", "--yes", check=False)
    machine.destroy(check=False)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A repository of git with one commit."""
    from tests.e2e.conftest import CACHE

    folder = tmp_path_factory.mktemp("app")
    for architecture in ("amd64", "arm64"):
        (folder / f"base-{architecture}.tar").hardlink_to(CACHE / "base" / f"{architecture}.tar")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / ".gitignore").write_text("*.tar\n")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def commit(context):
    """Commit a text, which the build prints; return the commit."""

    def commit(text):
        (context / "text").write_text(f"{text}\n")
        git = ["git", "-C", context, "-c", "user.name=test", "-c", "user.email=test@test.invalid"]
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    return commit


@pytest.fixture(scope="module")
def build(operator, context):
    """Run `slipway build … --push` for a tag; `code` is the exit code that it is to have."""

    def build(tag, *arguments, code=0, push=True):
        target = ["-t", f"{operator.registry.address}/{tag}", *(["--push"] if push else [])]
        done = operator.run(
            "slipway", "build", "--ca", operator.registry.trust / "ca.pem", "--progress", "plain", *target, *arguments,
            context, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    return build


@pytest.fixture(scope="module")
def inspect(operator):
    """Tell which image a tag has for each platform."""

    def inspect(tag):
        reference = f"{operator.registry.address}/{tag}"
        said = operator.run(
            "slipway", "inspect", "--ca", operator.registry.trust / "ca.pem", "--format", "json", reference
        )
        return {row["platform"]: row["digest"] for row in json.loads(said.stdout)["platforms"]}

    return inspect


@pytest.fixture(scope="module")
def status(operator):
    """Return what `slipway status` tells."""

    def status(*repositories, machine=operator):
        command = ["slipway", "status", "--ca", operator.registry.trust / "ca.pem", "--format", "json"]
        return json.loads(machine.run(*command, *repositories, check=False).stdout)

    return status


@pytest.fixture(scope="module")
def lagging(status):
    """Return what it tells of tags that lag behind."""
    return lambda: status()["lagging"]


@pytest.fixture(scope="module")
def power(status, cloud):
    """Switch the ARM64 machine off, and on again."""

    def power(state):
        [server] = [each for each in cloud.listing("servers", "build") if "arm64" in each["name"]]
        cloud.act(server["id"], f"power{state}")
        nodes = {}
        deadline = time.monotonic() + 180
        while nodes.get("arm64-1") is not (state == "on"):
            assert time.monotonic() < deadline
            time.sleep(0.5)
            nodes = {node["node"]: node["reachable"] for node in status()["nodes"]}

    return power


def test_with_all_builders_up_it_is_one_ordinary_push(build, commit, inspect, lagging):
    """Without --platform, all that the builder has; the pushed digest is the last line."""
    commit("one")

    said = build("app:1")

    assert {"one on x86_64", "one on aarch64"} <= set(re.findall(r"one on \w+", said))
    assert re.fullmatch(r".+/app@sha256:[0-9a-f]{64}", said.splitlines()[-1])
    assert set(inspect("app:1")) == {"linux/amd64", "linux/arm64"}
    assert lagging() == []


def test_one_platform_that_is_asked_for_leaves_the_other_in_the_tag(build, commit, inspect, lagging):
    """An ordinary push of it would take the other off."""
    before = inspect("app:1")
    commit("two")

    said = build("app:1", "--platform", "linux/amd64")

    assert "linux/arm64 of the tag stays as it is" in said
    after = inspect("app:1")
    assert after["linux/arm64"] == before["linux/arm64"]
    assert after["linux/amd64"] != before["linux/amd64"]
    assert lagging() == []


def test_a_platform_that_comes_into_the_tag_while_the_lock_is_waited_for_stays(
    build, commit, inspect, operator, tmp_path
):
    """A turn begins with a look: what another writer has added meanwhile is merged with, not pushed over."""
    commit("in turn")
    both, lock = f"{operator.registry.address}/app:1", tmp_path / "lock"

    with ThreadPoolExecutor() as pool, lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        built = pool.submit(build, "turns:1", "--platform", "linux/amd64", "--lock", lock)
        while not _is_open_elsewhere(lock):
            assert not built.done(), built.result()
            time.sleep(0.1)
        operator.run(
            "slipway", "merge", "--ca", operator.registry.trust / "ca.pem", "--create", "--keep-staging",
            "--platform", "linux/arm64", f"{operator.registry.address}/turns:1", "--from", both,
        )  # fmt: skip
        fcntl.flock(held, fcntl.LOCK_UN)

    said = built.result()
    assert said.index("waiting for it") < said.index("linux/arm64 of the tag stays as it is")
    assert inspect("turns:1")["linux/arm64"] == inspect("app:1")["linux/arm64"]
    assert set(inspect("turns:1")) == {"linux/amd64", "linux/arm64"}


def _is_open_elsewhere(path):
    """Tell whether another process than this one has opened a file."""
    found = False
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has been closed meanwhile
            found |= descriptor.parts[2] != str(os.getpid()) and descriptor.readlink() == path
    return found


def test_nothing_is_emulated_by_accident(build):
    """A platform without a node is an error where nothing is merged, though one node could emulate it."""
    for arguments in (["--platform", "linux/386"], [*BOTH, "--platform", "linux/s390x"]):
        said = build("app:1", *arguments, code=1, push=False)
        assert f"no builder for {arguments[-1]}: builder slipway-build has no such node" in said
    said = build("app:1", "--platform", "linux/386", code=1)
    assert "no builder for linux/386" in said


def test_while_a_builder_is_down_the_other_one_is_pushed_and_merged(build, commit, inspect, lagging, power, operator):
    """Into each tag, with its own exit code; what is missing is told there and by `slipway status`, with the command."""
    before = inspect("app:1")
    power("off")
    revision = commit("three")

    said = build("app:1", *BOTH, "-t", f"{operator.registry.address}/app:new", code=MISSING)

    assert "no builder for linux/arm64 (node arm64-1: " in said
    assert set(re.findall(r"three on \w+", said)) == {"three on x86_64"}
    assert f"linux/arm64 lags behind {revision}" in said
    after = inspect("app:1")
    assert after["linux/arm64"] == before["linux/arm64"]
    assert inspect(_newest_backup(operator, "app:1")) == before
    assert inspect("app:new") == {"linux/amd64": after["linux/amd64"]}
    tag = f"{operator.registry.address}/app:1"
    catch_up = f"git checkout {revision} && slipway build --platform linux/arm64 --push -t {tag} ."
    found = {each["tag"]: each for each in lagging()}
    assert set(found) == {tag, f"{operator.registry.address}/app:new"}
    assert found[tag] | {"since": ""} == {
        "tag": tag, "platform": "linux/arm64", "since": "", "revision": revision, "catch_up": catch_up,
    }  # fmt: skip


def _newest_backup(operator, tag):
    ca = operator.registry.trust / "ca.pem"
    said = operator.run("slipway", "backups", "--ca", ca, "--format", "json", f"{operator.registry.address}/{tag}")
    return json.loads(said.stdout)[0]["backup"].partition("/")[2]


def test_a_second_such_build_keeps_the_age(build, commit, lagging, operator):
    """And a push of a platform that has no builder at all pushes nothing."""
    since = {each["tag"]: each["since"] for each in lagging()}
    revision = commit("four")

    build("app:1", *BOTH, code=MISSING)

    found = {each["tag"]: each for each in lagging()}
    assert {tag: each["since"] for tag, each in found.items()} == since
    assert found[f"{operator.registry.address}/app:1"]["revision"] == revision
    assert "no builder for linux/arm64" in build("app:1", "--platform", "linux/arm64", code=1)


def test_another_machine_sees_the_lag_when_told_the_repository(operator, status, tmp_path):
    """The registry has it; only where to look was remembered here."""
    second = operator.on_another(tmp_path / "second")

    said = status(f"{operator.registry.address}/app", machine=second)

    assert {each["platform"] for each in said["lagging"]} == {"linux/arm64"}
    assert {each["tag"].rpartition(":")[2] for each in said["lagging"]} == {"1", "new"}


def test_the_command_that_catches_up_does(build, inspect, lagging, power):
    """With the builder up again the tag has both from one commit, and nothing lags in it."""
    before = inspect("app:1")
    power("on")

    build("app:1", "--platform", "linux/arm64")

    after = inspect("app:1")
    assert after["linux/amd64"] == before["linux/amd64"]
    assert after["linux/arm64"] != before["linux/arm64"]
    assert {each["tag"].rpartition(":")[2] for each in lagging()} == {"new"}
    build("app:new", *BOTH)
    assert lagging() == []


def test_a_read_only_registry_is_waited_for(build, commit, operator):
    """The build is not lost: what is in the builders' caches is pushed when the registry writes again."""
    commit("five")
    operator.registry.restart(REGISTRY_STORAGE_MAINTENANCE_READONLY='{"enabled":true}')
    said = build("app:1", *BOTH, "--wait", "1s", code=1)
    assert "the registry is read-only now" in said

    timer = threading.Timer(8, operator.registry.restart)
    timer.start()
    said = build("app:1", *BOTH, "--wait", "2m")
    timer.join()

    assert "waiting for it, 2m at most" in said
    assert "CACHED" in said


def test_a_tag_is_verified_from_a_node(operator):
    """By a machine that shares nothing with this one; what is missing is told, and its exit code is that of `verify`."""
    ca, tag = operator.registry.trust / "ca.pem", f"{operator.registry.address}/app:1"
    command = ["slipway", "verify", "--deep", "--from", "amd64-1", "--ca", ca]

    assert re.fullmatch(r".+@sha256:\w+ whole \(.+\)\n", operator.run(*command, tag).stdout)
    missing = operator.run(*command, f"{tag}-no-such", check=False)
    assert missing.returncode == 1
    assert "error: " in missing.stdout
    unknown = operator.run("slipway", "verify", "--from", "amd64-9", tag, check=False)
    assert (unknown.returncode, "nodes: amd64-1, arm64-1" in unknown.stdout) == (2, True)
