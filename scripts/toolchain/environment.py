"""The checkout's Python environment, and the shell environment that goes with it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.toolchain.artefact import digest
from scripts.toolchain.steps import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.toolchain.commands import Log
    from scripts.toolchain.layout import Layout

PYTHON = "Python environment"


def python_steps(layout: Layout) -> list[Step]:
    """Return the steps that make uv and `.venv`."""
    own_uv = layout.cache / "uv" / "bin" / "uv"

    def find_uv() -> str | None:
        return shutil.which("uv") or (str(own_uv) if own_uv.exists() else None)

    def make_uv(log: Log) -> None:
        folder = own_uv.parents[1]
        log.run([sys.executable, "-m", "venv", "--clear", folder])
        log.run([folder / "bin" / "python", "-m", "pip", "install", "-q", "uv"])

    def make_environment(log: Log) -> None:
        uv = find_uv() or own_uv
        note = layout.venv / NOTE
        note.unlink(missing_ok=True)
        where = {"VIRTUAL_ENV": str(layout.venv), "UV_PYTHON_DOWNLOADS": "never", **COMPILED}
        if not (layout.venv / "bin" / "python").exists():
            log.run([uv, "venv", "--clear", "--python", sys.executable, layout.venv], environment=where)
        for arguments in (["sync", "requirements.txt"], ["install", "--no-deps", "-e", "."]):
            log.run([uv, "pip", *arguments], cwd=layout.checkout, environment=where)
        note.write_text(lock_key(layout.checkout))

    def is_environment_made() -> bool:
        try:
            noted = (layout.venv / NOTE).read_text()
        except FileNotFoundError:
            return False
        return noted == lock_key(layout.checkout) and (layout.venv / "bin" / "python").exists()

    return [
        Step(
            name="uv",
            part="python",
            about_s=5,
            is_made=lambda: find_uv() is not None,
            make=make_uv,
            needs=() if importlib.util.find_spec("ensurepip") else ("Debian packages",),
        ),
        Step(
            name=PYTHON,
            part="python",
            about_s=30,
            is_made=is_environment_made,
            make=make_environment,
            needs=("uv",),
        ),
    ]


NOTE = ".slipway-lock"
"""In the environment: what it was made from, written last."""

COMPILED = {"UV_COMPILE_BYTECODE": "1"}
"""An `up` starts five processes, each of which would compile the same packages where Python may not keep what it has compiled
(PYTHONDONTWRITEBYTECODE, another user's folder): more than half of the processor time of an `up`.
"""


def lock_key(checkout: Path) -> str:
    """Return the key of what the environment is made from."""
    files = [(checkout / name).read_bytes() for name in ("requirements.txt", "pyproject.toml")]
    return digest(*files, *COMPILED)


def shell_exports(layout: Layout, environment: Mapping[str, str], *, own_plugins: bool) -> str:
    """Return the `export` lines that put the project's tools on PATH; evaluating them twice changes nothing."""
    ours = [layout.venv / "bin", layout.bin, layout.plugins]
    others = [each for each in environment.get("PATH", "").split(os.pathsep) if Path(each) not in ours]
    path = [str(ours[0]), str(ours[1]), *others, *([str(ours[2])] if own_plugins else [])]
    values = {
        "PATH": os.pathsep.join(path),
        "VIRTUAL_ENV": str(layout.venv),
        "PULUMI_SKIP_UPDATE_CHECK": "1",
    }
    if own_plugins:
        values["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "1"
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
