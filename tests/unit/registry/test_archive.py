"""scripts.registry.archive: the program as one file."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.registry import archive

PACKAGE = Path(archive.__file__).parent


def test_the_same_modules_make_the_same_bytes(tmp_path, monkeypatch):
    """Whenever, wherever and by whom they were checked out: what carries the file is written again only for new code."""
    first = archive.pack()
    copied = tmp_path / "scripts" / "registry"
    for module in PACKAGE.rglob("*.py"):
        target = copied / module.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(module.read_bytes())
        target.chmod(0o600)
        os.utime(target, (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(archive, "_HERE", copied)

    assert archive.pack() == first


def test_every_module_is_in_it_at_its_place(tmp_path):
    """Those of packages inside the package too, and the libraries that go along; nothing else."""
    archive.write(tmp_path / "program.pyz")

    names = set(zipfile.ZipFile(tmp_path / "program.pyz").namelist())
    wanted = {f"scripts/registry/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    libraries = {name for name in names if name.startswith(("websocket/", "yaml/"))}
    assert names - libraries == {*wanted, "scripts/__init__.py", "__main__.py"}
    assert {"websocket/_core.py", "yaml/loader.py"} <= libraries
    assert not {name for name in libraries if "tests" in name or not name.endswith(".py")}
    assert os.access(tmp_path / "program.pyz", os.X_OK)


def test_it_needs_nothing_but_python(tmp_path):
    """Without this host's packages, a collection gets as far as the cluster that is not there; in less than 1 MiB."""
    archive.write(tmp_path / "program.pyz")
    collect = ["gc", "127.0.0.1:1", "--namespace", "n", "--deployment", "d", "--kubeconfig", "nowhere"]

    done = subprocess.run(
        [sys.executable, "-I", "-S", tmp_path / "program.pyz", *collect], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: kubeconfig nowhere: no such file or directory")
    assert (tmp_path / "program.pyz").stat().st_size < 1 << 20


def test_the_command_takes_one_file_and_no_flag_for_one(tmp_path, monkeypatch, capsys):
    """It keeps to what every command here does: help on stdout, wrong usage is 2, a failure is a line on stderr."""
    monkeypatch.chdir(tmp_path)

    for words, code in ((["--help"], 0), ([], 2), (["--force"], 2), (["a", "b"], 2)):
        with pytest.raises(SystemExit) as ended:
            archive.main(words)
        assert ended.value.code == code
    assert list(tmp_path.iterdir()) == []
    capsys.readouterr()
    assert archive.main(["no/such/program"]) == 1
    assert capsys.readouterr().err == "archive: no/such/program: no such file or directory\n"
    assert archive.main(["program"]) == 0
    assert os.access("program", os.X_OK)
