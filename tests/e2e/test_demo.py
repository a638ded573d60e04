"""The newcomer's command: `scripts/demo` does the main job and leaves nothing, and the README shows what it shows."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of it, in a home where nothing of the user's is."""
    state = tmp_path_factory.mktemp("state")
    return subprocess.run(
        [ROOT / "scripts" / "demo"],
        env={**os.environ, "XDG_STATE_HOME": str(state)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=800,
    )  # fmt: skip


def _plain(line):
    """Leave out what differs from run to run: numbers, digests, folders, and pulumi's and buildx's colours."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"sha256:[0-9a-f]{64}", "DIGEST", line)
    line = re.sub(r"(\S*)/slipway/demo", "STATE", line)
    line = re.sub(r"(\d+m)?\d+(\.\d+)?", "N", line)
    return " ".join(line.split())


def test_it_does_the_main_job(demo):
    """Up, one build compiled on both architectures, down, and the bill."""
    assert demo.returncode == 0, demo.stdout[-5000:]
    assert "compiled on aarch64" in demo.stdout
    assert "compiled on x86_64" in demo.stdout
    assert re.search(r"- 47 deleted", demo.stdout)


def test_its_headings_are_bold_on_a_terminal_alone(demo):
    """As the colours of every command here are."""
    assert [line for line in demo.stdout.splitlines() if "== " in line and "\x1b" in line] == []


@pytest.mark.usefixtures("demo")
def test_it_leaves_nothing_on_the_host():
    """No namespace, no interface, no machine, no process of the local cloud."""
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/mounts").read_text()

    assert "slipway" not in left
    assert "slipway" not in links
    assert "slipway/demo" not in mounts


def test_every_line_of_the_readmes_transcript_was_shown(demo):
    """Only numbers and digests may differ; … stands for lines left out."""
    [transcript] = re.findall(
        r"<!-- transcript: scripts/demo -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    shown = {_plain(line) for line in demo.stdout.splitlines()}

    assert [line for line in transcript.splitlines() if line != "…" and _plain(line) not in shown] == []
