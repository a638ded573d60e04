"""Registries whose entrypoint obeys a mode's file, as the one in a pod obeys the ConfigMap."""

from __future__ import annotations

import argparse

import pytest

from scripts.benchmarks.registries import SERVERS, Supervised
from scripts.registry import connection, mode
from scripts.registry.collection.collect import Collection, Order
from scripts.registry.collection.keepers import ModeFile
from scripts.registry.collection.plan import Rules


@pytest.fixture(params=list(SERVERS))
def kept(request, tmp_path):
    """A registry of each version, kept running by a supervisor, with a debug port that counts requests."""
    registry = Supervised(version=request.param, home=tmp_path / "registry", entrypoint=mode.ENTRYPOINT)
    if registry.missing:
        pytest.skip(f"this host lacks registry {request.param} (run scripts/setup)")
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture
def kept_files(kept, storage):
    """Its files."""
    return storage(kept)


@pytest.fixture
def collect(slipway):
    """Collect in such a registry."""

    def run(registry, *options, **more):
        return slipway("gc", registry.host, "--mode-file", registry.mode_file, "--now", *options, **more)

    return run


@pytest.fixture
def collect_with(monkeypatch, tmp_path):
    """Collect in this process, and `act` in the moment in which a step is told; the report."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    options = argparse.Namespace(ca="", plain_http=False, debug=False, username="", password_stdin=False)

    def run(registry, step, act):
        def say(line):
            if line.startswith(step):
                act()

        def ask(protocol):
            return connection.run_now(options, registry.host, protocol, wait=False)

        order = Order(
            host=registry.host, rules=Rules(grace_s=86400), policy=None, quiet_s=0, quiet_deadline_s=0,
            stop_limit_s=60, largest_share=1, dry_run=False, token="of this test",
        )  # fmt: skip
        return Collection(ModeFile(registry.mode_file), order, ask=ask, say=say).run()

    return run
