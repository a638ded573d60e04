"""The command, as a user mistypes it; nothing here starts a server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.localcloud import instance, preflight
from scripts.localcloud.__main__ import main

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["up", "--state", "state", "--port", "0"], "argument --port: '0': a port is a number from 1 to 65535"),
        (
            ["up", "--state", "state", "--control-port", "65536"],
            "argument --control-port: '65536': a port is a number from 1 to 65535",
        ),
        (["env", "--port", "http"], "argument --port: 'http': a port is a number from 1 to 65535"),
        (["reset", "--state", ""], "argument --state: no folder is named"),
    ],
)
def test_an_argument_that_means_nothing_is_named(monkeypatch, capsys, tmp_path, arguments, told):
    """An unset variable is not the present folder, and no port is found out by waiting for an answer."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m scripts.localcloud {arguments[0]}: error: {told}"


@pytest.mark.parametrize("verb", ["up", "reset"])
def test_a_folder_that_holds_something_else_is_left_alone(capsys, tmp_path, verb):
    """`reset` removes what is called `machines` and `cluster`, so the state folder must be the local cloud's own."""
    (tmp_path / "machines").mkdir()
    (tmp_path / "server.json").touch()

    assert main([verb, "--api-only", "--state", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    instance.stop(tmp_path)

    assert told == (
        f"localcloud: state folder {tmp_path}: holds something else (choose an empty or a new one with --state)\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["machines", "server.json"]


def test_a_state_folder_whose_lock_was_removed_is_ours_still(tmp_path):
    """Whoever takes it for a stale one loses nothing."""
    (tmp_path / "cloud.sqlite").touch()

    preflight.check_state(tmp_path)

    assert instance.is_ours(tmp_path)


def test_a_command_that_is_told_can_be_pasted(monkeypatch, capsys, tmp_path):
    """A state folder with a space in its name stands in quotes."""
    owner = tmp_path / "the cloud"
    owner.mkdir()
    monkeypatch.setattr(instance, "OWNER", tmp_path / "owner")
    instance.OWNER.write_text(str(owner))

    main(["status", "--state", str(tmp_path / "other")])

    assert capsys.readouterr().out.splitlines()[-1].endswith(f"python -m scripts.localcloud status --state '{owner}'")


def test_a_full_disk_is_a_line(capsys, tmp_path):
    """A server that cannot be written down is not started; the line names the folder."""
    (tmp_path / "lock").touch()
    (tmp_path / "server.json.new").mkdir()
    ports = [str(_free_port()), str(_free_port())]

    code = main(["up", "--api-only", "--state", str(tmp_path), "--port", ports[0], "--control-port", ports[1]])

    assert code == 1
    assert capsys.readouterr().err == (
        f"localcloud: the API server cannot be written down in {tmp_path} or /run/slipway: is there room?\n"
    )


def test_a_killed_reset_leaves_no_half_of_a_disk(tmp_path):
    """What boots next has all of its files, or a fresh disk."""
    upper = tmp_path / "machines/1/disk/upper"
    upper.mkdir(parents=True)
    names = {str(number) for number in range(5000)}
    for name in names:
        (upper / name).touch()
    code = f"import pathlib; from scripts.localcloud import instance; instance.erase(pathlib.Path('{tmp_path}'))"
    reset = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)

    while _names(upper) == names:
        assert reset.poll() is None
    reset.kill()
    reset.wait()

    assert not (tmp_path / "machines").exists()
    instance.erase(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _names(folder):
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_whoever_reads_the_output_may_leave():
    """A closed pipe is no error, whether Python buffers or not."""
    code = "import time, sys; time.sleep(0.3); from scripts.localcloud.__main__ import main; sys.exit(main(['env']))"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    writer = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    writer.stdout.close()

    assert (writer.stderr.read(), writer.wait()) == (b"", 0)
    writer.stderr.close()
