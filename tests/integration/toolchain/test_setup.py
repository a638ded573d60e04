"""scripts/setup as a user types it."""

import os
import subprocess
from pathlib import Path

from scripts.toolchain.__main__ import main

SETUP = Path(__file__).parents[3] / "scripts" / "setup"


def setup(*arguments, **environment):
    return subprocess.run(
        [SETUP, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_check_names_what_is_missing_and_makes_nothing(tmp_path):
    """With an empty cache folder every image is missing, the exit code says so, and the folder stays empty."""
    done = setup("--check", "machines", XDG_CACHE_HOME=str(tmp_path))

    assert done.returncode == 1
    assert "missing  machine image arm64: " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_exports_put_our_python_first(tmp_path):
    """What --env prints is evaluated by a plain shell, and python is the checkout's then."""
    script = f'eval "$({SETUP} --env)"; command -v python; echo "${{PATH##*:}}"'

    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines() == [f"{SETUP.parents[1]}/.venv/bin/python", f"{tmp_path}/slipway/plugins"]


def test_without_root_it_says_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    """A plain user gets the reason in one line, exit code 0 and what can be had."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    assert main(["machines"]) == 0

    left_out = capsys.readouterr().err.splitlines()
    assert len(left_out) == 2
    assert left_out[0].startswith("setup: left out, needs Go 1.26 or newer on PATH: buildkit-arm64 v0.32.2, ")
    assert left_out[1].startswith("setup: left out, needs root: ")


def test_an_unusable_cache_folder_is_one_line(tmp_path):
    """A file where the cache folder should be is named, without a traceback."""
    (tmp_path / "slipway").touch()

    done = setup("machines", XDG_CACHE_HOME=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"setup: [Errno 17] File exists: '{tmp_path}/slipway'"]
