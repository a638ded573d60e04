"""The entrypoint that a registry's mode expires by, as Kubernetes hands it to a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

import pytest

from scripts.registry import mode

SHOW = 'echo "mode ${REGISTRY_STORAGE_MAINTENANCE_READONLY:-none}"; exec sleep 30'


def _as_kubernetes_does(command):
    """Expand a container's command: `$$` is a dollar sign, `$(NAME)` a variable of its environment if there is one."""
    return re.sub(r"\$\$|\$\([A-Za-z0-9_.-]+\)", lambda found: "$" if found[0] == "$$" else found[0], command)


@pytest.fixture(params=["sh", "busybox sh"])
def start(request):
    """Start the entrypoint in each kind of shell, with a mode until some seconds from now."""
    shell = request.param.split()
    if not shutil.which(shell[0]):
        pytest.skip(f"this host lacks {shell[0]} (run scripts/setup)")
    begun = []

    def start(seconds):
        environment = {**os.environ, **mode.read_only(int(time.time()) + seconds)}
        command = [*shell, "-c", _as_kubernetes_does(mode.ENTRYPOINT), "slipway", "sh", "-c", SHOW]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def test_at_the_expiry_it_ends_the_registry(start):
    """Also after what Kubernetes does to a command's dollar signs."""
    process = start(2)

    assert process.stdout.readline() == 'mode {"enabled":true}\n'
    assert process.wait(10) == -15


def test_an_expired_mode_is_none(start):
    """What restarts the registry then finds it writable."""
    process = start(-1)

    assert process.stdout.readline() == "mode none\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
