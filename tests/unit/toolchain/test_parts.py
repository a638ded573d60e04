"""What scripts/setup plans and says."""

import pytest

from scripts.toolchain.__main__ import main, spread_blocks
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
