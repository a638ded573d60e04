"""A Python program with dynamic resources under the real engine, through our language host."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
TOOLS = ("pulumi", "pulumi-language-python", "pulumi-resource-pulumi-python")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(bool(MISSING), reason=f"not on PATH: {', '.join(MISSING)}; run scripts/setup tools"),
    pytest.mark.timeout(120),
]

PROJECT = """
name: tiny
main: program
runtime: {name: python, options: {toolchain: uv, virtualenv: .venv}}
"""

PROGRAM = """
import sys
import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider

class Provider(ResourceProvider):
    def create(self, props):
        import sys, time
        began = time.time()
        time.sleep(1)
        return CreateResult("made", {**props, "prefix": sys.prefix, "began": began, "ended": time.time()})

class Thing(Resource):
    prefix: pulumi.Output[str]
    began: pulumi.Output[float]
    ended: pulumi.Output[float]

    def __init__(self, name):
        super().__init__(Provider(), name, {"size": 1, "prefix": None, "began": None, "ended": None})

things = [Thing(name) for name in ("one", "two", "three")]
pulumi.export("prefixes", [thing.prefix for thing in things])
pulumi.export("began", [thing.began for thing in things])
pulumi.export("ended", [thing.ended for thing in things])
pulumi.export("program", sys.prefix)
pulumi.export("setting", pulumi.Config().require_int("size"))
"""


class Project:
    """A Pulumi project in a folder, with a backend of its own."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "state").mkdir()
        (folder / "program").mkdir()
        (folder / "Pulumi.yaml").write_text(PROJECT)
        for link in (folder / ".venv", folder / "program" / ".venv"):
            link.symlink_to(sys.prefix)
        self.environment = os.environ | {
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
        }

    def write(self, program):
        (self.folder / "program" / "__main__.py").write_text(program)

    def pulumi(self, *arguments):
        return subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def changes(self, *arguments):
        done = self.pulumi(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(self.pulumi("stack", "history", "--json").stdout)[0]["resourceChanges"]


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.write(PROGRAM)
    assert project.pulumi("stack", "init", "test").returncode == 0
    assert project.pulumi("config", "set", "size", "7").returncode == 0
    return project


def test_a_program_goes_up_stays_and_goes_down(project):
    """Dynamic resources are made together by the project's own Python, the second up changes nothing, destroy removes all."""
    assert project.changes("up", "--yes", "--skip-preview") == {"create": 4}
    outputs = json.loads(project.pulumi("stack", "output", "--json").stdout)
    assert [Path(prefix).resolve() for prefix in outputs["prefixes"]] == [Path(sys.prefix).resolve()] * 3
    assert Path(outputs["program"]).resolve() == Path(sys.prefix).resolve()
    assert outputs["setting"] == 7
    assert max(outputs["began"]) < min(outputs["ended"])

    assert project.changes("up", "--yes", "--skip-preview") == {"same": 4}

    assert project.changes("destroy", "--yes", "--skip-preview") == {"delete": 4}


def test_a_failing_program_is_reported_once(project):
    """The user reads the program's error and nothing of the language host."""
    project.write("raise ValueError('no such size')")

    done = project.pulumi("up", "--yes", "--skip-preview")

    assert done.returncode != 0
    assert done.stdout.count("ValueError: no such size") == 1
    assert "language_python" not in done.stdout + done.stderr


def test_a_killed_engine_takes_host_and_program_along(project):
    """Nothing goes on working against an engine that is gone."""
    marker = project.folder / "pid"
    project.write(
        f"import os, pathlib, time\npathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    engine = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"],
        cwd=project.folder, env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    program = int(wait_for(lambda: marker.exists() and marker.read_text()))

    engine.send_signal(signal.SIGKILL)
    engine.wait()

    assert wait_for(lambda: not Path(f"/proc/{program}").exists())


def test_about_names_the_project_s_interpreter(project):
    """`pulumi about` shows which Python runs the program and what it can import."""
    about = project.pulumi("about").stdout

    assert f"executable='{project.folder}/.venv/bin/python'" in about
    assert "pulumi-hcloud" in about.replace("_", "-")


def wait_for(answer, *, seconds=30):
    """Return the first true answer; the deadline is far above what it takes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := answer():
            return found
        time.sleep(0.05)
    pytest.fail(f"nothing within {seconds} s")
