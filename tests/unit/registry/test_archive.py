"""scripts.registry.archive: the program as one file."""

import os
import zipfile
from pathlib import Path

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
    """Those of packages inside the package too; nothing else."""
    archive.write(tmp_path / "program.pyz")

    names = set(zipfile.ZipFile(tmp_path / "program.pyz").namelist())
    wanted = {f"scripts/registry/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    assert names == {*wanted, "scripts/__init__.py", "__main__.py"}
    assert os.access(tmp_path / "program.pyz", os.X_OK)
