"""What the tests with real machines share, and stacks about a Kubernetes cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.localcloud import cgroups, network


@pytest.fixture
def heard():
    """Let what is started hear SIGHUP, though nohup may have started this."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesStack:
    """A project with one stack, and the API server that it is about."""

    folder: Path
    environment: dict[str, str]
    api: Any

    def write(self, program: str) -> None:
        """Replace the program."""
        text = "import pulumi\nimport pulumi_kubernetes as k8s\n" + textwrap.dedent(program)
        (self.folder / "__main__.py").write_text(text)

    def run(self, *arguments: str, fails: bool = False, **environment: str) -> str:
        """Run the engine to its end and return what it said."""
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color=never"],
            cwd=self.folder,
            env={**self.environment, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert bool(done.returncode) is fails, done.stdout
        return done.stdout

    def up(self, **options: Any) -> str:
        """Run `pulumi up` without a preview."""
        return self.run("up", "--yes", "--skip-preview", **options)

    def destroy(self, **options: Any) -> str:
        """Run `pulumi destroy` without a preview."""
        return self.run("destroy", "--yes", "--skip-preview", **options)

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the state by resource name."""
        state = json.loads(self.run("stack", "export"))
        return {item["urn"].rpartition("::")[2]: item for item in state["deployment"].get("resources", ())}


@pytest.fixture(name="kubernetes_stack_for")
def _kubernetes_stack_for(tmp_path):
    """Give a function that makes a project and a stack whose cluster is the kubeconfig's."""

    def make(kubeconfig, api=None):
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway"
        path = [str(Path(sys.executable).parent), str(cache / "bin"), os.environ["PATH"], str(cache / "plugins")]
        (tmp_path / "state").mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        environment = {
            **kept,
            "PATH": os.pathsep.join(path),
            "KUBECONFIG": str(kubeconfig),
            "PULUMI_HOME": str(tmp_path / "home"),
            "PULUMI_BACKEND_URL": f"file://{tmp_path}/state",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        }
        assert shutil.which("pulumi", path=environment["PATH"]), "no pulumi: run scripts/setup"
        runtime = {"name": "python", "options": {"virtualenv": str(Path(sys.prefix))}}
        folder = tmp_path / "program"
        folder.mkdir()
        (folder / "Pulumi.yaml").write_text(f"name: slipway\nruntime: {json.dumps(runtime)}\n")
        stack = KubernetesStack(folder=folder, environment=environment, api=api)
        stack.run("stack", "init", "dev")
        return stack

    return make
