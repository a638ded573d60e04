"""Commands of setting up, run for real."""

import pytest

from scripts.toolchain.commands import Log, read_output
from scripts.toolchain.errors import CommandFailed


def test_a_failed_command_shows_its_last_words(tmp_path):
    """The error holds the exit code, the end of the output and where the rest is."""
    log = Log(path=tmp_path / "image.log")

    with pytest.raises(CommandFailed) as caught:
        log.run(["sh", "-c", "echo no such package; exit 3"])

    assert str(caught.value).splitlines() == [
        f"sh failed (exit 3), all of its output is in {log.path}:",
        "$ sh -c 'echo no such package; exit 3'",
        "no such package",
    ]


def test_what_cannot_be_asked_has_no_answer():
    """A tool that is missing or fails reads as None, one that works as its output."""
    assert read_output(["no-such-tool-here"]) is None
    assert read_output(["sh", "-c", "exit 1"]) is None
    assert read_output(["sh", "-c", "echo yes"]) == "yes\n"
