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
from typing import Any, ClassVar

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


@dataclass(frozen=True, kw_only=True)
class PulumiStack:
    """A project of one program with one stack."""

    folder: Path
    environment: dict[str, str]
    imports: ClassVar[str] = "import pulumi\n"

    def write(self, program: str) -> None:
        """Replace the program."""
        (self.folder / "__main__.py").write_text(self.imports + textwrap.dedent(program))

    def start(self, *arguments: str, environment: dict[str, str] | None = None, **options: Any) -> Any:
        """Start the engine."""
        return subprocess.Popen(
            ["pulumi", *arguments, "--non-interactive", "--color=never"],
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,
        )

    def run(self, *arguments: str, fails: bool = False, **environment: str) -> str:
        """Run the engine to its end and return what it said."""
        process = self.start(*arguments, environment=environment)
        said, _ = process.communicate()
        assert bool(process.returncode) is fails, said
        return said

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


def make_stack(kind: Any, home: Path, *, project: str, environment: dict[str, str], **fields: Any) -> Any:
    """Make a project in a folder, with a state of its own, and its stack `dev`: a PulumiStack of that kind."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway"
    path = [str(Path(sys.executable).parent), str(cache / "bin"), os.environ["PATH"], str(cache / "plugins")]
    for folder in ("state", "program"):
        (home / folder).mkdir()
    own = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "HCLOUD_"))},
        "PATH": os.pathsep.join(path),
        "PULUMI_HOME": str(home / "home"),
        "PULUMI_BACKEND_URL": f"file://{home}/state",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
    }
    assert shutil.which("pulumi", path=own["PATH"]), "no pulumi: run scripts/setup"
    runtime = {"name": "python", "options": {"virtualenv": str(Path(sys.prefix))}}
    (home / "program" / "Pulumi.yaml").write_text(f"name: {project}\nruntime: {json.dumps(runtime)}\n")
    stack = kind(folder=home / "program", environment={**own, **environment}, **fields)
    stack.run("stack", "init", "dev")
    return stack


@dataclass(frozen=True, kw_only=True)
class KubernetesStack(PulumiStack):
    """A stack, and the API server that it is about."""

    api: Any
    imports: ClassVar[str] = "import pulumi\nimport pulumi_kubernetes as k8s\n"


@pytest.fixture(name="kubernetes_stack_for")
def _kubernetes_stack_for(tmp_path):
    """Give a function that makes a project and a stack whose cluster is the kubeconfig's."""

    def make(kubeconfig, api=None):
        return make_stack(
            KubernetesStack, tmp_path, project="slipway", environment={"KUBECONFIG": str(kubeconfig)}, api=api
        )

    return make
