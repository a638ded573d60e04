"""What the tests with real machines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.localcloud import cgroups, network


@pytest.fixture(scope="session")
def traces():
    """Give a function that lists what the local cloud of a state folder has on this host, for comparing."""

    def look(state):
        processes = [
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(state).encode() in _read(path) and b"pytest" not in _read(path).partition(b"--state")[0]
        ]
        return {
            "groups": cgroups.machine_ids(),
            "group folders": [str(path) for path in Path("/sys/fs/cgroup").glob("*/slipway")],
            "namespaces": network.namespaces(),
            "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
            "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if "slipway" in line],
            "processes": processes,
            "supervisors": [str(path) for path in Path("/run/systemd/nspawn").glob("*/slipway-*")],
            "owner": Path("/run/slipway").exists(),
        }

    return look


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
