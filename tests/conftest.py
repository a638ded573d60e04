"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.workermanage import NodeManager

NodeManager.EXIT_TIMEOUT = 120  # after Ctrl-C too, machines and stacks are taken down before the processes end

HERE = Path(__file__).parent
ON_THE_HOSTS_CLOUD = ("e2e", "integration/test_localcloud_cli.py", "integration/test_machines.py")


@pytest.hookimpl(tryfirst=True)  # xdist's own hook reads the marks
def pytest_collection_modifyitems(items):
    """Leave to one process what has machines of its own: a host bears one local cloud with machines at a time."""
    for item in items:
        if any(item.path.is_relative_to(HERE / each) for each in ON_THE_HOSTS_CLOUD):
            item.add_marker(pytest.mark.xdist_group("cloud"))


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
