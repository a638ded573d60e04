"""Fixtures for all tests."""

from __future__ import annotations

import pytest


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
