"""The command's surface: verbs, help, exit codes, and how it starts."""

import io
import json
import re
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from builders import cli
from builders.activity import Activity
from builders.lifecycle import Down
from builders.state import Resource

SERVER = Resource(
    type="hcloud:index/server:Server", name="slipway-dev-amd64-1", id="1", protect=False, inputs={}, outputs={}
)
VERBS = (
    *("up", "down", "with", "status", "build", "connect", "invite", "disconnect"),
    *("merge", "inspect", "verify", "backup", "backups", "restore", "untag", "gc"),
)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_one_example_that_is_right(verb, capsys):
    """The example is a command that the parser itself takes."""
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    examples = [line for line in capsys.readouterr().out.splitlines() if line.startswith("example: ")]

    assert caught.value.code == 0
    assert len(examples) == 1
    name, *arguments = examples[0].removeprefix("example: ").split()
    assert (name, arguments[0]) == ("slipway", verb)
    assert cli._parser().parse_args(arguments)


def test_the_list_of_verbs_is_the_whole_of_it(capsys):
    """Each verb is named in the command's own help."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])

    assert re.findall(r"\n    (\w+)", capsys.readouterr().out) == list(VERBS)


def test_the_version_is_the_packages(capsys):
    """What a report of a fault begins with."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"slipway {metadata.version('slipway')}\n"


@pytest.mark.parametrize("arguments", [[], ["upp"], ["status", "--format", "xml"], ["invite"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    """As with every Unix command."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)

    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_a_flag_that_a_verb_does_not_know_is_answered_with_its_usage(capsys):
    """And not with the list of verbs, which does not tell what the verb knows."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["down", "--force"])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: slipway down ")
    assert said.endswith("slipway down: error: unrecognized arguments: --force\n")


def test_folder_and_stack_may_stand_before_the_verb_or_after():
    """As with pulumi itself."""
    before = cli._parser().parse_args(["-C", "here", "-s", "dev", "status"])
    after = cli._parser().parse_args(["status", "-C", "here", "-s", "dev"])

    assert (str(before.cwd), before.stack, before.debug) == ("here", "dev", False)
    assert (str(after.cwd), after.stack, after.debug) == ("here", "dev", False)


@pytest.mark.parametrize(
    ("text", "hours"), [("12h", 12), ("1d", 24), ("30d", 720), ("8w", 1344)], ids=["hours", "day", "days", "weeks"]
)
def test_lifetimes_are_hours_days_or_weeks(text, hours):
    """As in `--for 30d`."""
    assert cli._lifetime(text).total_seconds() == hours * 3600


@pytest.mark.parametrize("text", ["", "0d", "30", "d", "1.5d", "-1d", "30 d", "1y", "1000000d"])
def test_other_lifetimes_are_refused(text, capsys, tmp_path, monkeypatch):
    """The line says how it is written."""
    monkeypatch.chdir(tmp_path)

    assert cli.main(["invite", "alice", f"--for={text}"]) == 2
    assert capsys.readouterr().err == (
        f"error: --for {text!r}: say a number of hours, days or weeks, as in 12h, 30d, 8w\n"
    )


def test_outside_a_project_the_line_says_how_to_get_into_one(capsys, tmp_path):
    """No traceback, and the command that cures it."""
    assert cli.main(["up", "-C", str(tmp_path)]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"error: {tmp_path}: this is not in a Slipway project\n"
        "hint: go to its folder, or name it: slipway -C FOLDER …\n"
    )


def test_a_project_of_somebody_else_is_not_touched(capsys, tmp_path):
    """`slipway up` asks no question, so it must not run another program."""
    (tmp_path / "Pulumi.yaml").write_text("name: payroll\nruntime: python\n")

    assert cli.main(["up", "-C", str(tmp_path)]) == 1
    assert "this is not in a Slipway project" in capsys.readouterr().err


def test_a_project_file_may_be_of_any_encoding(capsys, tmp_path):
    """Somebody else's is passed over, whatever is in it."""
    (tmp_path / "Pulumi.yaml").write_bytes(b"name: slipway-f\xfcr-alle\n")

    assert cli.main(["up", "-C", str(tmp_path)]) == 1
    assert "this is not in a Slipway project" in capsys.readouterr().err


def test_a_settings_file_that_is_not_there_is_named(capsys, tmp_path):
    """The engine would run with the defaults instead."""
    (tmp_path / "Pulumi.yaml").write_text("name: slipway\nruntime: python\n")

    assert cli.main(["up", "-C", str(tmp_path), "--config-file", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err == f"error: --config-file {tmp_path}/none.yaml: no such file\n"


def test_debug_shows_where_an_error_came_from(capsys, tmp_path):
    """Only then is there a traceback."""
    cli.main(["up", "--debug", "-C", str(tmp_path)])

    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"not json", "error: bundle: this is no file that `slipway invite` wrote"),
        (b"\xc7\x00", "error: bundle: this is no file that `slipway invite` wrote"),
        (b'{"slipway-bundle": 2}', "error: bundle: version 2 is not known, update slipway"),
    ],
)
def test_connect_refuses_what_is_no_bundle(text, line, capsys, monkeypatch):
    """From stdin as from a file."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))

    assert cli.main(["connect", "-"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == line


def test_connect_names_a_bundle_that_is_not_there(capsys, tmp_path):
    """A missing file is told by its name."""
    assert cli.main(["connect", str(tmp_path / "alice.slipway")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/alice.slipway: no such file or directory\n"


def test_a_private_file_is_replaced_whole_and_readable_for_its_owner_only(tmp_path):
    """Whatever stood there before, and whoever could read it."""
    path = tmp_path / "alice.slipway"
    path.write_text("old")
    path.chmod(0o644)

    cli._write_private(path, "new")

    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["alice.slipway"]


def test_a_private_file_that_cannot_be_written_is_told_by_its_own_name(tmp_path):
    """Not by that of the fresh one that would have taken its place."""
    with pytest.raises(FileNotFoundError) as caught:
        cli._write_private(tmp_path / "none" / "alice.slipway", "new")
    assert caught.value.filename == f"{tmp_path}/none/alice.slipway"


def test_status_refuses_what_is_no_repository(capsys, tmp_path, monkeypatch):
    """Wrong usage, in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert cli.main(["status", "r.example.com/app:a:b"]) == 2
    assert "\nerror: reference 'r.example.com/app:a:b': 'a:b' is no tag\n" in capsys.readouterr().err


def test_the_command_starts_without_its_heavy_libraries():
    """They are imported inside the verbs that need them, so that help and completion are at once."""
    script = (
        "import sys; from builders import cli; cli._parser(); "
        "print(*sorted({'pulumi', 'grpc', 'cryptography', 'hcloud', 'paramiko'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "\n"


@pytest.mark.parametrize(
    ("server", "node", "code", "said"),
    [
        (SERVER, Activity(builds=0, idle_s=1799), 0, "not known to be idle for 30m: amd64-1"),
        (SERVER, Activity(builds=1, idle_s=0), 0, "not known to be idle for 30m: amd64-1"),
        (SERVER, None, 1, "not known to be idle for 30m: amd64-1"),
        (None, None, 0, "nothing is up"),
        (SERVER, Activity(builds=0, idle_s=1800), 0, None),
    ],
)
def test_a_timer_takes_down_what_is_known_to_be_idle(server, node, code, said, monkeypatch, capsys):
    """As JSON too it says what goes, and what keeps the rest; where nothing is up, the engine is left alone."""
    plan = Down(
        going=(server,) if server else (), staying=(), orphans=(), registry=("r.example.com", False),
        nodes={"amd64-1": node} if server else {},
    )  # fmt: skip
    removed = []
    monkeypatch.setattr(cli, "_lifecycle", lambda _: SimpleNamespace(
        plan_down=lambda look: plan if look else pytest.fail("it was not asked"),
        down=lambda *_, drain, idle_s: removed.append((drain, idle_s)),
    ))  # fmt: skip

    assert cli.main(["down", "--yes", "--idle", "30m", "--format", "json"]) == code
    out, err = capsys.readouterr()
    assert removed == ([] if said else [(True, 1800)])
    assert len(json.loads(out)["removed"]) == len(removed)
    assert json.loads(out)["registry"]["kept"] == bool(said)
    assert re.findall("nothing is removed: (.*)", err) == ([said] if said else [])


@pytest.mark.parametrize("idle", ["", "0s", "soon", "30"])
def test_an_idle_time_that_is_none_is_refused(idle, capsys):
    """A variable that a timer did not set takes nothing down."""
    assert cli.main(["down", "--yes", "--idle", idle]) == 2
    assert capsys.readouterr().err.startswith("error: --idle: ")
