"""Registries whose entrypoint obeys a mode's file, as the one in a pod obeys the ConfigMap."""

from __future__ import annotations

import pytest

from scripts.benchmarks.registries import SERVERS, Supervised
from scripts.registry import mode


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
