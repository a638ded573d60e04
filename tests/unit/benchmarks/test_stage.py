"""What a benchmark starts it also ends, and what did not do its work is not timed."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from scripts.benchmarks import collection, fleet, merge, stage
from scripts.benchmarks.stage import ROOT, StageFailed

OLD = {"linux/amd64": ["old"], "linux/arm64": ["kept"]}
NEW = {"linux/amd64": ["new"], "linux/arm64": ["kept"]}


@pytest.mark.parametrize(
    ("whole", "images", "tags", "done"),
    [
        (False, NEW, {"1", "s"}, True),
        (False, OLD, {"1", "s"}, False),
        (False, NEW | {"linux/amd64": ["old", "new"]}, {"1", "s"}, False),
        (True, NEW, {"1", "1-backup"}, True),
        (True, NEW, {"1"}, False),
        (True, NEW, {"1", "s", "1-backup"}, False),
    ],
)
def test_a_tool_is_timed_for_the_whole_of_its_work(whole, images, tags, done):
    """A tag that has the old image still, alone or beside the new one, is no merge, however fast it was made."""
    tool = merge.Tool(name="peer", commands=(), whole=whole)
    registry = SimpleNamespace(images=lambda *_: images, tags=lambda *_: tags)

    if done:
        merge._check(tool, registry, "r", NEW)
    else:
        with pytest.raises(StageFailed, match="peer"):
            merge._check(tool, registry, "r", NEW)


def test_a_phase_that_nothing_tells_of_took_no_time():
    """It is a failure, and no 0.0 in the table."""
    resources = [{"type": f"a:b:{name}", "created": "2026-11-27T00:00:10Z"} for name in fleet.PHASES]

    assert set(fleet._phases(resources, 0)) == set(fleet.PHASES.values())
    with pytest.raises(StageFailed, match="registered"):
        fleet._phases(resources[:-1], 0)


def test_a_local_cloud_that_did_not_come_up_is_taken_down(monkeypatch, tmp_path):
    """Half of it may be on the host, and its folder is about to go."""
    ran = []

    def run(*command):
        ran.append(command[3])
        if command[3] == "up":
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "run", run)

    with pytest.raises(KeyboardInterrupt), stage.local_cloud(tmp_path):
        pass
    assert ran == ["up", "down"]


def test_a_tool_that_is_measured_ends_with_the_benchmark(monkeypatch):
    """It would go on in a storage that is about to go."""
    waited = []

    def wait4(pid, _options):
        waited.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(collection.os, "wait4", wait4)

    with pytest.raises(KeyboardInterrupt):
        collection._measured(["sleep", "60"])
    with pytest.raises(ProcessLookupError):
        os.kill(waited[0], 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_benchmark_ends_what_it_started(number):
    """Whoever asks again, or closes the terminal, does not interrupt the cleaning up."""
    code = """
import os, sys
from scripts.benchmarks import __main__ as command

def measure():
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
    finally:
        for _ in range(2):
            os.kill(os.getpid(), int(sys.argv[1]))
        print("ended what was started")

command.merge.measure = measure
sys.exit(command.main(["merge"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (130, "ended what was started\n"), done.stderr
