"""Pack these verbs into one file that needs Python 3.11 and nothing else: `python -m scripts.registry.archive FILE`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipapp
from pathlib import Path

_HERE = Path(__file__).parent


def write(target: Path) -> None:
    """Write the program, executable, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        package = Path(folder) / "content" / "scripts" / "registry"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        for module in sorted(_HERE.glob("*.py")):
            shutil.copy(module, package)
        packed = Path(folder) / "packed"
        zipapp.create_archive(
            package.parents[1],
            packed,
            interpreter="/usr/bin/env python3",
            main="scripts.registry.cli:run_and_exit",
            compressed=True,
        )
        packed.replace(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m scripts.registry.archive FILE")
    write(Path(sys.argv[1]).absolute())
