"""Fixtures for all tests."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import NodeManager

ON_THE_HOSTS_CLOUD = (
    "tests/e2e/",
    "tests/integration/registry/collection/test_on_kubernetes.py",
    "tests/integration/test_cluster.py",
    "tests/integration/test_localcloud_cli.py",
    "tests/integration/test_machines.py",
    "tests/integration/test_registry_on_cluster.py",
)
NodeManager.EXIT_TIMEOUT = 120  # after Ctrl-C too, machines and stacks are taken down before the processes end


class _OneCloud(LoadScopeScheduling):
    """Leave to one process what has machines of its own: a host bears one local cloud with machines at a time."""

    def _split_scope(self, nodeid):
        return "cloud" if nodeid.startswith(ON_THE_HOSTS_CLOUD) else nodeid


def pytest_xdist_make_scheduler(config, log):
    """Let several processes share the tests (`--numprocesses=2`); the cloud's, the largest share, begin first."""
    return _OneCloud(config, log)


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
