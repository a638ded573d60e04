"""What scripts/setup plans and says."""

import os
import subprocess
import sys

import pytest

from scripts.toolchain import debian
from scripts.toolchain.__main__ import main, plan_steps, spread_blocks
from scripts.toolchain.layout import CHECKOUT, Layout
from scripts.toolchain.steps import Step


def step(name, *, made=False, **options):
    return Step(name=name, part="machines", about_s=1, is_made=lambda: made, make=lambda _log: None, **options)


def test_what_needs_a_blocked_step_is_blocked_for_its_reason():
    """A tarball without Go is left out for want of Go, and does not fail for want of a file."""
    steps = spread_blocks([step("runc", blocked="needs Go"), step("tarball", needs=("runc",)), step("image")])

    assert [each.blocked for each in steps] == ["needs Go", "needs Go", ""]


def test_what_is_there_blocks_nothing():
    """A tool that is already built needs no Go any more."""
    [_, tarball] = spread_blocks([step("runc", made=True, blocked="needs Go"), step("tarball", needs=("runc",))])

    assert tarball.blocked == ""


@pytest.mark.parametrize("parts", [["python"], ["python", "tools"], ["tools", "python", "python"]])
def test_the_environment_gets_its_package_whatever_else_is_asked_for(tmp_path, parts):
    """Where Python cannot make an environment by itself, Debian's package for that is part of `python`."""
    steps = plan_steps(Layout(checkout=CHECKOUT, cache=tmp_path), parts)

    assert [each.part for each in steps if each.name == "Debian packages"] == ["python"]


def test_whoever_reads_the_output_may_leave():
    """A closed pipe is no error and no traceback, whether Python buffers or not."""
    for unbuffered in ("", "1"):
        setup = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import time; time.sleep(0.3); from scripts.toolchain import __main__ as m; m.main(['--env'])",
            ],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        setup.stdout.close()

        assert setup.stderr.read() == b""
        setup.wait()
        setup.stderr.close()


def test_a_killed_run_keeps_no_service_from_starting(monkeypatch, tmp_path):
    """The file that keeps services off while packages are installed goes with the next run; the user's own stays."""
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(debian, "POLICY", policy)
    policy.write_text(debian.NO_SERVICES)

    with debian.services_stay_off():
        assert policy.exists()
    assert not policy.exists()

    policy.write_text("#!/bin/sh\nexit 101\n")
    with debian.services_stay_off():
        pass
    assert policy.exists()


def test_an_unknown_part_is_a_usage_error(capsys):
    """The parts to choose from are named."""
    with pytest.raises(SystemExit) as caught:
        main(["pyton"])

    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "scripts/setup: error: pyton: no such part; choose from python, tools, machines"
    )


def test_help_has_an_example(capsys):
    """--help shows what to type."""
    with pytest.raises(SystemExit):
        main(["--help"])

    assert "example: scripts/setup python" in capsys.readouterr().out
