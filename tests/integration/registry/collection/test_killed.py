"""A collection that is killed or stopped at any step: the registry takes writes again, no tag is broken, the next one ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

AMD64, ARM64 = "linux/amd64", "linux/arm64"
DAY = 86400
ROOT = Path(__file__).parents[4]
STEPS = [
    "reading the storage", "backing up", "rolling the registry to read-only", "removing", "asking the registry's own",
    "sweeping", "rolling the registry back", "verifying",
]  # fmt: skip


@pytest.fixture(autouse=True)
def images(kept, kept_files):
    """A tag of two platforms that was written twice, a month ago."""
    kept.push_index("app", "1", [AMD64, ARM64], attest=True)
    kept.push_index("app", "1", [AMD64, ARM64], attest=True, text="new")
    kept.push_index("app", "2", [AMD64, ARM64], text="second")
    kept_files.age(30 * DAY)


def _collect_until(registry, step, act, *options):
    """Collect, and do something once a step is told; the exit code, and what was said after that."""
    command = ["gc", registry.host, "--mode-file", registry.mode_file, "--now", *options]
    with subprocess.Popen(
        [sys.executable, "-m", "scripts.registry", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent"},
    ) as process:  # fmt: skip
        for line in process.stderr:
            if line.startswith(f"slipway: {step}"):
                act(process)
                break
        rest = process.stderr.read()
        return process.wait(), rest


def _kill(process):
    process.kill()


def _writable(registry):
    try:
        return registry.request("POST", "app/blobs/uploads/").status_code == 202
    except httpx.TransportError:  # it starts just now
        return False


def _wait_until_writable(registry, within_s):
    deadline = time.monotonic() + within_s
    while not _writable(registry):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _whole(registry, slipway):
    slipway("verify", "--deep", *(registry.name("app", tag) for tag in "12"))


@pytest.mark.parametrize(("kept", "step"), [*(("2.8", each) for each in STEPS), ("3.1", "sweeping")], indirect=["kept"])
@pytest.mark.timeout(180)
def test_the_next_run_completes_what_a_killed_one_left(kept, collect, slipway, step):
    """Whatever it was doing; every tag is whole in between, though the registry may be read-only then."""
    tag = kept.get("app", "1")

    code, _ = _collect_until(kept, step, _kill)
    time.sleep(0.5)
    _whole(kept, slipway)
    collect(kept)

    assert code == -signal.SIGKILL
    assert kept.get("app", "1") == tag
    assert _writable(kept)
    _whole(kept, slipway)
    assert json.loads(collect(kept, "--dry-run", "--format", "json").stdout)["planned"]["blobs"] == 0


@pytest.mark.timeout(180)
def test_the_registry_becomes_writable_by_itself(kept, slipway):
    """At the expiry of the mode that a killed run left, without anybody."""
    _collect_until(kept, "removing", _kill, "--stop-limit", "20s")

    assert not _writable(kept)
    _wait_until_writable(kept, 40)
    _whole(kept, slipway)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("heard")
def test_it_restores_the_registry_when_it_is_told_to_stop(kept, slipway, told):
    """SIGTERM, as Kubernetes ends a job at its deadline; SIGHUP, as of a terminal that is closed."""
    code, rest = _collect_until(kept, "asking the registry's own", lambda process: process.send_signal(told))

    assert code == 130
    assert "restoring the registry" in rest
    _wait_until_writable(kept, 20)  # it is started, and whether it answers already was not waited for
    assert not kept.mode_file.exists()
    _whole(kept, slipway)


@pytest.mark.parametrize("kept", ["2.8"], indirect=True)
@pytest.mark.timeout(180)
def test_a_registry_that_dies_in_the_middle_stops_it(kept, slipway):
    """The links that were taken away are garbage's; what remains is collected by the next run."""

    def end_registry(_process):
        kept.mode_file.unlink()
        kept.end()

    code, rest = _collect_until(kept, "removing", end_registry)

    assert code == 1
    assert "error: " in rest
    _wait_until_writable(kept, 20)
    _whole(kept, slipway)
