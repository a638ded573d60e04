"""A colleague's day: invited, connected on a machine of their own, building before and after a `down` and an `up`."""

import json
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from builders import certificates, credentials, greeting
from builders.certificates import Authority
from builders.errors import NodeUnreachable
from tests.e2e.conftest import CACHE

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(900)]

BUILDER = "slipway-team"
NODES = ("amd64-1", "arm64-1")


@pytest.fixture(scope="module")
def operator(make_operator):
    """A stack whose addresses and authority are kept, as is the default."""
    machine = make_operator("team")
    slipway(machine, "up")
    yield machine
    machine.run("pulumi", "state", "unprotect", "--all", "--yes", check=False)
    slipway(machine, "down", "--yes")


@pytest.fixture(scope="module")
def colleague(operator, tmp_path_factory):
    """Someone with buildx and no access to the stack."""
    return replace(operator, home=tmp_path_factory.mktemp("colleague"), project=None, state=None)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """An image without a base."""
    folder = tmp_path_factory.mktemp("context")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    return folder


def slipway(machine, *arguments, code=0, stdin=None):
    """Run the command on a machine; return its stdout."""
    done = subprocess.run(
        ["slipway", *arguments], cwd=machine.project or machine.home, env=machine.environment, input=stdin or "",
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def build(machine, context, check=True):
    """Build on the stack's builder."""
    return machine.run(
        "buildx", "build", "--builder", BUILDER, "--platform", "linux/amd64,linux/arm64", "--no-cache", context,
        check=check,
    )  # fmt: skip


@contextmanager
def at_work(machine, folder, *, seconds):
    """Have a machine build on amd64-1, for so long."""
    (folder / "base.tar").hardlink_to(CACHE / "base" / "amd64.tar")
    (folder / "Dockerfile").write_text(f"FROM scratch\nADD base.tar /\nRUN echo at work; sleep {seconds}\n")
    command = ["buildx", "build", "--builder", BUILDER, "--platform", "linux/amd64", "--progress", "plain", folder]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=machine.environment, **pipes) as building:
        next(line for line in building.stdout if re.match(r"#\d+ [\d.]+ at work", line))
        yield building


def test_an_invitation_is_all_that_a_colleague_needs(operator, colleague, context, tmp_path):
    """No token, no Pulumi, no passphrase; `down` waits for what they build, and after the next `up` they build on, untouched."""
    bundle = slipway(operator, "invite", "ada", "--for", "2d")
    assert BUILDER in slipway(colleague, "connect", "-", stdin=bundle)
    build(colleague, context)
    status = json.loads(slipway(colleague, "status", "--format", "json"))
    assert sorted((each["node"], each["reachable"], each["buildkit"]) for each in status["nodes"]) == [
        (node, True, "v0.32.2") for node in NODES
    ]
    assert status["builders"] == [{"name": BUILDER, "days_left": 2}]
    folder = colleague.home / "config" / "slipway" / BUILDER
    before = {path: path.stat().st_mtime_ns for path in (*folder.iterdir(), *colleague.home.rglob("instances/*"))}

    idle = operator.run("slipway", "down", "--yes", "--idle", "1h").stdout
    assert "nothing is removed: not known to be idle for 1h: amd64-1, arm64-1" in idle
    with at_work(colleague, tmp_path, seconds=20) as building:
        told = operator.run("slipway", "down", "--yes").stdout
        assert building.wait() == 0
    assert "builds under way: 1 on amd64-1; waiting for them, 15 minutes at most" in told
    names = ", ".join(f"slipway-team-{node}-{kind}" for node in NODES for kind in ("ipv4", "ipv6"))
    assert told.splitlines()[-1] == f"nothing is left but what is kept: {names} (1.00 a month in all)"
    away = colleague.run("slipway", "status", check=False)
    assert (away.returncode, "unreachable" in away.stdout) == (1, True)
    assert slipway(operator, "status") == ""
    slipway(operator, "up")

    build(colleague, context)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}


def test_status_shows_the_operator_the_same_nodes(operator):
    """Node, version, days left, and that this machine is connected by the `up` itself."""
    shown = slipway(operator, "status")

    for node in NODES:
        row = rf"^slipway-team +{node} +linux/{node[:5]} +tcp://198\.51\.100\.\d+:1234 +reachable +v0\.32\.2 +365 days left$"
        assert re.search(row, shown, re.MULTILINE)
    assert re.search(r"^this machine, builder slipway-team: connected, 90 days left$", shown, re.MULTILINE)


def test_a_builder_that_is_reset_during_a_build_serves_again_by_itself(operator, colleague, cloud, context, tmp_path):
    """The build fails in time and does not hang; the next one works, and `up` has nothing to mend."""
    with at_work(colleague, tmp_path, seconds=600) as building:
        [server] = [each for each in cloud.listing("servers", "team") if each["name"].endswith("amd64-1")]
        cloud.act(server["id"], "reset")
        said = building.communicate(timeout=120)[0]
    assert building.returncode != 0, said

    deadline = time.monotonic() + 120
    while colleague.run("slipway", "status", check=False).returncode:
        assert time.monotonic() < deadline, "the builder did not come back"
        time.sleep(1)
    build(colleague, context)
    assert not re.search(r"\d+ (created|updated|replaced|deleted)", operator.up().stdout)


def test_disconnecting_ends_it_here_and_nowhere_else(operator, colleague, context):
    """The operator's registration stays; the colleague's is gone, with its key."""
    slipway(colleague, "disconnect")

    assert build(colleague, context, check=False).returncode != 0
    assert not (colleague.home / "config" / "slipway" / BUILDER).exists()
    build(operator, context)


@pytest.mark.parametrize("node", NODES)
def test_no_foreign_and_ended_certificates_are_each_refused(operator, node):
    """By the node itself, whatever the client believes."""
    outputs = operator.outputs()
    [endpoint] = [each["endpoint"] for each in outputs["nodes"] if each["name"] == node]
    ours = Authority(certificate=outputs["authority"], key=outputs["authorityKey"])
    now = datetime.now(UTC)
    foreign = certificates.create_authority("foreign", now=now)

    with credentials.lent(ours.certificate, certificates.issue_client(ours, "ada", now=now, days=1)) as good:
        assert greeting.greet(endpoint, good) > now
    for leaf in (
        certificates.issue_client(foreign, "ada", now=now, days=1),
        certificates.issue_client(ours, "ada", now=now - timedelta(days=3), days=1),
    ):
        with (
            credentials.lent(ours.certificate, leaf) as bad,
            pytest.raises(NodeUnreachable, match="it refused this machine's certificate"),
        ):
            greeting.greet(endpoint, bad)
    without = subprocess.run(
        ["openssl", "s_client", "-connect", endpoint.removeprefix("tcp://"), "-alpn", "h2", "-quiet"],
        input="x", capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert "certificate required" in without.stderr


def test_who_cannot_wait_for_a_build_says_so(operator, tmp_path):
    """It ends with its server."""
    with at_work(operator, tmp_path, seconds=600) as building:
        told = operator.run("slipway", "down", "--yes", "--now").stdout
        assert building.wait(timeout=120) != 0
    assert "builds under way" not in told
    assert "nothing is left but what is kept" in told
