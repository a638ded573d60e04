"""The executables by which the engine finds our plugins.

They are made only where the vendor's CLI with its language host is not on PATH: that CLI finds or downloads the rest.
The engine warns of a language host that does not lie beside it, so the CLI that was built here is put there too.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.toolchain.artefact import Artefact, digest
from scripts.toolchain.commands import read_output
from scripts.toolchain.environment import PYTHON
from scripts.toolchain.errors import SetupError
from scripts.toolchain.gomodules import MODULES, builds, link_tool, required_version
from scripts.toolchain.steps import Step

if TYPE_CHECKING:
    from scripts.toolchain.commands import Log
    from scripts.toolchain.layout import Layout

SDK = "github.com/pulumi/pulumi/sdk/v3"

OURS = {
    "pulumi-language-python": "language_python",
    "pulumi-resource-hcloud": "hcloud",
    "pulumi-resource-kubernetes": "kubernetes",
}
"""Executable, and the module of ours that it runs."""

OF_THE_SDK = ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python")
"""Scripts that the SDK's Go module holds."""


def wrapper(module: str) -> str:
    """Return the executable of a plugin of ours; the Python first on PATH runs it, so each checkout runs its own."""
    return f'#!/bin/sh\nexec python -m scripts.toolchain.plugins.{module} "$@"\n'


def needs_own_plugins(layout: Layout) -> bool:
    """Tell whether the vendor's language host is missing."""
    folders = [each for each in os.environ.get("PATH", "").split(os.pathsep) if Path(each) != layout.plugins]
    return shutil.which("pulumi-language-python", path=os.pathsep.join(folders)) is None


def wrapper_step(layout: Layout) -> Step:
    """Return the step that writes the executables."""
    version = required_version((MODULES / "pulumi" / "go.mod").read_text(), SDK)
    pulumi = builds()["pulumi"].artefact(layout)
    key = digest(version, *(wrapper(module) for module in OURS.values()), *OF_THE_SDK, pulumi.key)
    artefact = Artefact(path=layout.plugins, key=key)

    def make(_log: Log) -> None:
        sdk = find_sdk(version)
        with artefact.replace() as folder:
            folder.mkdir()
            for name, module in OURS.items():
                (folder / name).write_text(wrapper(module))
            for script in OF_THE_SDK:
                shutil.copyfile(sdk / "python" / script, folder / Path(script).name)
            for path in folder.iterdir():
                path.chmod(0o755)
            if pulumi.is_made():
                (folder / "pulumi").hardlink_to(pulumi.path / "pulumi")
        if pulumi.is_made():
            link_tool(layout, layout.plugins / "pulumi")

    return Step(
        name="Pulumi plugins",
        part="tools",
        about_s=2,
        is_made=lambda: not needs_own_plugins(layout) or artefact.is_made(),
        make=make,
        needs=(PYTHON, f"pulumi {builds()['pulumi'].version}"),
        blocked="" if shutil.which("go") else "needs Go 1.26 or newer on PATH",
    )


def find_sdk(version: str) -> Path:
    """Return the folder of the SDK's module, which the CLI was built from."""
    listed = read_output(["go", "mod", "download", "-json", f"{SDK}@{version}"], cwd=MODULES / "pulumi")
    if listed is None:
        raise SetupError(f"{SDK} {version}: cannot be downloaded; try go mod download in {MODULES / 'pulumi'}")
    return Path(json.loads(listed)["Dir"])
