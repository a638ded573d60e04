"""Real registries, 2.8.2 and 3.1.2, and the command against them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks.registries import SERVERS, Registry, digest_of
from scripts.registry import cli, client, connection

ROOT = Path(__file__).parents[3]


def _start(version, home, **options):
    registry = Registry(version=version, home=home, **options)
    if registry.missing:
        pytest.skip(f"this host lacks registry {version} (run scripts/setup)")
    return registry.start()


@pytest.fixture(params=list(SERVERS), scope="session")
def server(request, tmp_path_factory):
    """One registry of each version, for the session: tests take repositories of their own."""
    registry = _start(request.param, tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop()


@pytest.fixture
def repository(request):
    """A repository's name that no other test has."""
    return f"app/{digest_of(request.node.nodeid.encode())[7:23]}"


@pytest.fixture
def new_registry(tmp_path):
    """Make registries of a test's own."""
    made = []

    def make(version, **options):
        registry = _start(version, tmp_path / f"registry-{len(made)}", **options)
        made.append(registry)
        return registry

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def slipway(tmp_path):
    """Run a verb of the one-file program, with no logins; a failure shows what it said."""

    def run(*arguments, check=True, environment=None, stdin=None):
        done = subprocess.run(
            [sys.executable, "-m", "scripts.registry", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker"), **(environment or {})},
            text=True,
            input=stdin,
            capture_output=True,
            timeout=50,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def storage():
    """A registry's files: where they are, and how they become older."""
    return Storage


class Storage:
    """The files of a registry of ours."""

    def __init__(self, registry):
        self.folder = registry.home / "storage/docker/registry/v2"

    def age(self, seconds):
        """Let everything have been written that much earlier."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                written = path.stat().st_mtime - seconds
                os.utime(path, (written, written))

    def repository(self, name):
        """Return a repository's folder."""
        return self.folder / "repositories" / name

    def revision(self, name, digest):
        """Return the folder of a manifest's link."""
        return self.repository(name) / "_manifests/revisions" / digest.replace(":", "/")

    def tag(self, name, tag):
        """Return a tag's folder."""
        return self.repository(name) / "_manifests/tags" / tag

    def blob(self, digest):
        """Return a blob's file."""
        encoded = digest.removeprefix("sha256:")
        return self.folder / "blobs/sha256" / encoded[:2] / encoded / "data"

    def blobs(self):
        """Return the digests of all blobs."""
        return {f"sha256:{path.parent.name}" for path in self.folder.glob("blobs/sha256/*/*/data")}


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Run a verb in this process, with no logins and short pauses; its exit code, stdout and stderr."""
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(connection, "_READ_ONLY_PAUSE_S", 0.2)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def here(*words):
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield here
    gc.enable()
