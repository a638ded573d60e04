"""What a host must be before anything is made on it."""

from __future__ import annotations

import pytest

from scripts.localcloud.__main__ import main


@pytest.mark.parametrize(
    ("host", "line"),
    [
        (("sys.platform", "darwin"), "localcloud: the local cloud runs on Linux only, this is darwin\n"),
        (
            ("os.geteuid", lambda: 1000),
            "localcloud: the local cloud must be run by root: its servers are machines on this host\n",
        ),
    ],
)
def test_another_system_or_user_is_refused_in_one_line(monkeypatch, capsys, tmp_path, host, line):
    """Before a folder, a process or a namespace is made."""
    monkeypatch.setattr(*host)

    assert main(["up", "--state", str(tmp_path / "state")]) == 1

    monkeypatch.undo()
    assert capsys.readouterr().err == line
    assert not (tmp_path / "state").exists()
