"""A local cloud and stacks on it, driven through the commands that a user has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway"
TARBALL = CACHE / "buildkit" / "buildkit-v0.32.2.linux-amd64.tar.gz"
ENDPOINT, CONTROL = "http://127.0.0.1:8765/v1", "http://127.0.0.1:8766"


class StageFailed(Exception):
    """A command of the benchmark ended badly."""


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Run a command; its output, or StageFailed with the end of it."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StageFailed(f"{command[0]} {command[1]} ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def timed(*command: str | Path, **options: Any) -> float:
    """Run a command and return its wall time in seconds."""
    began = time.monotonic()
    run(*command, **options)
    return time.monotonic() - began


@contextmanager
def local_cloud(state: Path) -> Iterator[None]:
    """Have a local cloud of our own."""
    command = (sys.executable, "-m", "scripts.localcloud")
    try:
        run(*command, "up", "--state", state)
        yield
    finally:
        run(*command, "down", "--state", state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack with a configuration, a state and a buildx of its own."""

    name: str
    home: Path

    @property
    def _project(self) -> Path:
        return self.home / "project"

    @property
    def environment(self) -> dict[str, str]:
        """Return what its commands run with."""
        return {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{self.home}/state",
            "PULUMI_CONFIG_PASSPHRASE": "bench",
            "PULUMI_STACK": self.name,
            "DOCKER_CONFIG": f"{self.home}/docker",
            "XDG_CONFIG_HOME": f"{self.home}/config",
        }

    def init(self, settings: dict[str, Any]) -> None:
        """Make the project folder, a view of this checkout, and the stack."""
        self._project.mkdir(parents=True)
        (self.home / "state").mkdir()
        for part in ("infra", ".venv"):
            (self._project / part).symlink_to(ROOT / part)
        shutil.copy(ROOT / "Pulumi.yaml", self._project)
        config = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())["config"]
        for platform, tarball in config["slipway:buildkit"]["tarballs"].items():
            tarball["source"] = str(CACHE / "buildkit" / f"buildkit-v0.32.2.{platform.replace('/', '-')}.tar.gz")
        config |= {f"slipway:{key}": value for key, value in settings.items()}
        (self._project / f"Pulumi.{self.name}.yaml").write_text(yaml.safe_dump({"config": config}))
        self.run("pulumi", "stack", "init", self.name)

    def run(self, *command: str | Path) -> str:
        """Run a command in the project."""
        return run(*command, cwd=self._project, env=self.environment)

    def up(self) -> float:
        """Bring it up; the wall time in seconds."""
        return timed("pulumi", "up", "--yes", "--skip-preview", cwd=self._project, env=self.environment)

    def destroy(self) -> float:
        """Take it down; the wall time in seconds."""
        return timed("pulumi", "destroy", "--yes", "--skip-preview", cwd=self._project, env=self.environment)

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources in its state, each with the time it was `created`."""
        exported = json.loads(self.run("pulumi", "stack", "export"))
        resources: list[dict[str, Any]] = exported["deployment"]["resources"]
        return resources
