"""Pack these verbs into one file that needs Python 3.11 and nothing else: `python -m scripts.registry.archive FILE`."""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_HERE = Path(__file__).parent
_BUNDLED = ("websocket", "yaml")
"""Libraries of pure Python that go along; yaml does without its C part."""

_MAIN = b"""\
from scripts.registry import cli

cli.run_and_exit()
"""


def pack() -> bytes:
    """Return the program as the bytes of one executable file; the same modules make the same bytes, whenever and wherever."""
    root = _HERE.parents[1]
    modules = {path.relative_to(root).as_posix(): path.read_bytes() for path in _HERE.rglob("*.py")}
    content = {"scripts/__init__.py": b"", "__main__.py": _MAIN, **modules, **_libraries()}
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, body in sorted(content.items()):
            entry = zipfile.ZipInfo(name)  # without a date of its own, and with no rights of this machine
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, body)
    return buffer.getvalue()


def _libraries() -> dict[str, bytes]:
    """Return the modules of the libraries that go along, without their tests."""
    found = {}
    for name in _BUNDLED:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{name} is not installed: run scripts/setup")
        folder = Path(spec.origin).parent
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder.parent)
            if "tests" not in inside.parts:
                found[inside.as_posix()] = path.read_bytes()
    return found


def write(target: Path) -> None:
    """Write the program, executable, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        packed = Path(folder) / "packed"
        packed.write_bytes(pack())
        packed.chmod(0o755)
        packed.replace(target)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file that is named; 0 done, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.registry.archive",
        description="Pack the registry's verbs into one file that needs Python 3.11 and nothing else.",
        epilog="example: python -m scripts.registry.archive slipway-registry",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="where to write it")
    target: Path = parser.parse_args(argv).file
    try:
        write(target.absolute())
    except OSError as error:
        print(f"archive: {target}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
