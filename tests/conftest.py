"""Fixtures for all tests."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import NodeManager

# How long an example takes says more of what else the host does.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

FIRST = (
    # Each has a local cloud with machines of its own, and comes before those that share one. The two that mostly wait for
    # pods are far apart: something else has the cores meanwhile.
    "tests/integration/registry/collection/test_on_kubernetes.py",
    "tests/e2e/test_demo.py",
    "tests/integration/test_cluster.py",
    "tests/integration/test_machines.py",
    "tests/integration/test_localcloud_cli.py",
    "tests/integration/test_registry_on_cluster.py",
    # These share their process's; what takes longest is first, so that no process is left alone with it.
    "tests/e2e/test_main_job.py",
    "tests/e2e/test_build.py",
    "tests/e2e/test_buildkit.py",
    "tests/e2e/test_colleague.py",
    "tests/e2e/test_killed.py",
    "tests/e2e/",
    # No cloud, but minutes of one core.
    "tests/integration/registry/test_three_writers.py",
)
NodeManager.EXIT_TIMEOUT = 120  # after Ctrl-C too, machines and stacks are taken down before the processes end


def _place(nodeid):
    return next((place for place, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


def pytest_collection_modifyitems(items):
    """Put first what has machines, and what takes minutes."""
    items.sort(key=lambda item: _place(item.nodeid))


class _WholeFiles(LoadScopeScheduling):
    """Leave the tests of a file above to one process, and hand out the others one by one."""

    def _split_scope(self, nodeid):
        return nodeid.partition("::")[0] if _place(nodeid) < len(FIRST) else nodeid


def pytest_xdist_make_scheduler(config, log):
    """Let several processes share the tests (`--numprocesses=2`), in the order above."""
    config.option.loadscopereorder = False
    return _WholeFiles(config, log)


def pytest_xdist_setupnodes(specs):
    """Give each process a host of its own: a host bears one local cloud with machines."""
    for spec in specs:
        spec.python = shlex.join([str(Path(__file__).parent / "host"), sys.executable])


@pytest.fixture
def localcloud():
    """Start a local cloud without machines in this process: `.endpoint`, `.token` (64 characters), `.control`.

    Faults, stock, clock and the request history are set and read at `.control` (scripts/localcloud/README.md).
    """
    from scripts.localcloud.hypervisor import NoMachines
    from scripts.localcloud.server import background
    from scripts.localcloud.settings import Settings

    with background(Settings(port=0, control_port=0, action_factor=0.005, watch_s=0.1), NoMachines()) as address:
        yield address
