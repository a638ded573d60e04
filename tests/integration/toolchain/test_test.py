"""scripts/test as CI runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("pass", 0, "1 passed"),
        ("import pytest; pytest.skip('lacks a moon')", 1, "test: 1 skipped, and on this machine nothing may be"),
        ("assert False", 1, "1 failed"),
    ],
)
def test_a_skipped_test_fails_the_run_where_nothing_may_skip(tmp_path, body, code, said):
    """And a run in which all pass ends with 0."""
    (tmp_path / "test_one.py").write_text(f"def test_one():\n    {body}\n")

    done = subprocess.run(
        [ROOT / "scripts" / "test", "-p", "no:cacheprovider", tmp_path / "test_one.py"],
        env={**os.environ, "CI": "true"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
