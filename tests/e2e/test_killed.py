"""SIGKILL of the whole process group at ten moments of up and down; then `slipway up` and `down` finish the work."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import AMD64

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(600)]

# What the engine's display has said when the kill comes: each run goes on from where the one before it was killed.
DURING_UP = (
    r"Updating",
    r"slipway:Authority authority creating",
    r"PrimaryIp amd64-1-ipv4 creating",
    r"Server amd64-1 creating",
    r"slipway:HostKey amd64-1-host-key creating",
    r"slipway:BuildKit amd64-1-buildkit creating",
    r"slipway:BuildxBuilder \S+ creating",
)
DURING_DOWN = (
    r"Destroying",
    r"slipway:BuildKit amd64-1-buildkit deleting|slipway:BuildxBuilder \S+ deleting",
    r"(Server|PrimaryIp|Firewall|slipway:Authority) \S+ deleting",  # of what the kill before it left
)


@pytest.fixture(scope="module")
def operator(make_operator):
    """A stack of one builder, whose addresses go with it."""
    machine = make_operator("killed", builders=AMD64, address="ephemeral", protect=False)
    yield machine
    _end_leftovers(machine.state)


def test_whatever_moment_a_run_is_killed_at_the_next_one_finishes_it(operator, cloud):
    """A builder that works after seven kills of `up`; nothing in the cloud, in the state and on this machine after three of `down`."""
    for moment in DURING_UP:
        _kill_at(operator, ["slipway", "up"], moment)
    up = _slipway(operator, "up", "--format", "json")
    assert [node["name"] for node in json.loads(up)] == ["amd64-1"]
    status = json.loads(_slipway(operator, "status", "--format", "json"))
    assert [(node["node"], node["reachable"], node["buildkit"]) for node in status["nodes"]] == [
        ("amd64-1", True, "v0.32.2")
    ]
    assert _ours(cloud) == ["slipway-killed", "slipway-killed", "slipway-killed-amd64-1"] + [
        f"slipway-killed-amd64-1-{kind}" for kind in ("ipv4", "ipv6")
    ]

    for moment in DURING_DOWN:
        _kill_at(operator, ["slipway", "down", "--yes"], moment)
    assert _slipway(operator, "down", "--yes") == "nothing is left\n"
    assert _slipway(operator, "down", "--yes") == "nothing is left\n"

    assert _ours(cloud) == []
    assert json.loads(operator.run("pulumi", "stack", "export").stdout)["deployment"].get("resources", []) == []
    assert "slipway-killed" not in operator.run("buildx", "ls").stdout
    assert not (operator.home / "config" / "slipway" / "slipway-killed").exists()


def _kill_at(operator, command, moment):
    """Run until the display shows the moment, then kill the whole process group; a run that ends before it is no test."""
    process = subprocess.Popen(
        command, cwd=operator.project, env=operator.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(moment, line):
            time.sleep(0.3)  # into the step that the line announces
            os.killpg(process.pid, signal.SIGKILL)
            process.stderr.close()
            process.wait()
            return
    process.stderr.close()
    process.wait()
    pytest.fail(f"`{' '.join(command)}` ended before {moment!r}:\n{''.join(said)}")


def _slipway(operator, *arguments):
    done = subprocess.run(
        ["slipway", *arguments], cwd=operator.project, env=operator.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _ours(cloud):
    return sorted(
        each["name"]
        for kind in ("servers", "primary_ips", "firewalls", "ssh_keys")
        for each in cloud.listing(kind, "killed")
    )


def _end_leftovers(state):
    """End the plugins that outlive a killed engine: they are ours if they work on this test's state."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"PULUMI_BACKEND_URL=file://{state}".encode() in (each / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours:
            os.kill(int(each.name), signal.SIGKILL)
