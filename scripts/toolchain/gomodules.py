"""Tools built from Go modules: which, how, and for what key. Versions stand in go/<module>/go.mod and nowhere else."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.toolchain.artefact import Artefact, digest
from scripts.toolchain.commands import read_output
from scripts.toolchain.layout import ARCHITECTURES, Layout, host_architecture
from scripts.toolchain.steps import Step

if TYPE_CHECKING:
    from scripts.toolchain.commands import Log

MODULES = Path(__file__).parent / "go"
NO_DEBUG = "-gcflags=all=-dwarf=false"
"""What the linker strips anyway need not be made: a tenth less to compile, and the tools are the same."""
_ROOMY = {"GOGC": "off", "GOMEMLIMIT": "1GiB"}
"""Compiler and linker collect garbage only where one of them has taken so much: a quarter less processor time."""
CNI_PLUGINS = ("bridge", "loopback", "host-local", "firewall")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build of a module's tools. `library` is the Go module whose version the tools carry."""

    name: str
    module: str
    library: str
    architecture: str
    about_s: int
    version_symbol: str = ""
    tags: str = ""
    extra_ldflags: str = ""
    cgo: bool = False
    on_path: str = ""
    minimum: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """The module that names the tools."""
        return MODULES / self.module

    @property
    def version(self) -> str:
        """The version that is built."""
        return required_version((self.folder / "go.mod").read_text(), self.library)

    @property
    def arguments(self) -> list[str]:
        """What `go build` is told."""
        stamp = f"-X {self.version_symbol}={self.version}" if self.version_symbol else ""
        ldflags = " ".join(filter(None, ["-s -w", stamp, self.extra_ldflags]))
        return ["-trimpath", "-buildvcs=false", "-tags", self.tags, "-ldflags", ldflags]

    @property
    def environment(self) -> dict[str, str]:
        """What `go build` is told by its environment."""
        return {"GOOS": "" if self.on_path else "linux", "GOARCH": self.architecture, "CGO_ENABLED": str(int(self.cgo))}

    def artefact(self, layout: Layout) -> Artefact:
        """Return the folder of the built tools."""
        sums = [(self.folder / name).read_bytes() for name in ("go.mod", "go.sum")]
        sums += [path.read_bytes() for path in sorted(self.folder.glob("*/*.go"))]
        flags = [*self.arguments, *(f"{name}={value}" for name, value in self.environment.items())]
        return Artefact(path=layout.go / self.name, key=digest(*sums, *flags))


def required_version(go_mod: str, library: str) -> str:
    """Return the version of `library` that a go.mod requires."""
    found = re.search(rf"^(?:require )?\s*{re.escape(library)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"{library}: no such requirement in go.mod")
    return found[1]


def builds() -> dict[str, Build]:
    """Return all builds by name, the longest first.

    What speaks to the kernel directly (runc, CNI plugins) is built for this host alone: local machines of another
    architecture run by user-mode emulation, which passes neither.
    """
    host = host_architecture()
    foreign_first = sorted(ARCHITECTURES, key=lambda each: each == host)
    buildkit = [
        Build(
            name=f"buildkit-{architecture}",
            module="buildkit",
            library="github.com/moby/buildkit",
            architecture=architecture,
            about_s=110,
            version_symbol="github.com/moby/buildkit/version.Version",
        )
        for architecture in foreign_first
    ]
    every = [
        Build(
            name="pulumi",
            module="pulumi",
            library="github.com/pulumi/pulumi/pkg/v3",
            architecture=host,
            about_s=230,
            version_symbol="github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",
            on_path="pulumi",
            minimum=(3, 259),
        ),
        *buildkit,
        Build(
            name="kubernetes",  # with etcd, CoreDNS and volumes, in one module: they share most of what they are made of
            module="kubernetes",
            library="k8s.io/kubernetes",
            architecture=host,
            about_s=330,
            version_symbol="k8s.io/component-base/version.gitVersion",
        ),
        Build(
            name="buildx",
            module="buildx",
            library="github.com/docker/buildx",
            architecture=host,
            about_s=80,
            version_symbol="github.com/docker/buildx/version.Version",
            on_path="buildx",
            minimum=(0, 20),
        ),
        Build(
            name="runc",
            module="runc",
            library="github.com/opencontainers/runc",
            architecture=host,
            about_s=15,
            tags="netgo osusergo seccomp",  # buildkitd hands every RUN step a seccomp profile
            extra_ldflags="-extldflags -static",
            cgo=True,
        ),
        Build(
            name="cni",
            module="cni",
            library="github.com/containernetworking/plugins",
            architecture=host,
            about_s=10,
        ),
        Build(
            name="registry",  # 3.x, for tests beside Debian's 2.8
            module="registry",
            library="github.com/distribution/distribution/v3",
            architecture=host,
            about_s=85,
            version_symbol="github.com/distribution/distribution/v3/version.version",
        ),
        # What merges are measured beside.
        Build(
            name="crane",
            module="crane",
            library="github.com/google/go-containerregistry",
            architecture=host,
            about_s=5,
        ),
        Build(
            name="regctl",
            module="regctl",
            library="github.com/regclient/regclient",
            architecture=host,
            about_s=6,
        ),
    ]
    return {build.name: build for build in every}


def go_steps(layout: Layout) -> list[Step]:
    """Return the steps that build the tools."""
    return [_step(layout, build) for build in builds().values()]


def _step(layout: Layout, build: Build) -> Step:
    artefact = build.artefact(layout)

    def is_made() -> bool:
        if build.on_path and find_fitting(layout, build):
            return True
        return artefact.is_made() and (not build.on_path or (layout.bin / build.on_path).exists())

    def make(log: Log) -> None:
        if not artefact.is_made():
            with artefact.replace() as folder:
                folder.mkdir()
                command = ["go", "build", "-v", NO_DEBUG, *build.arguments, "-o", f"{folder}/", "tool"]
                log.run(command, cwd=build.folder, environment={**_ROOMY, **build.environment})
        if build.on_path:
            link_tool(layout, artefact.path / build.on_path)

    part = "tools" if build.on_path else "machines"
    missing = "" if shutil.which("go") else "needs Go 1.26 or newer on PATH"
    return Step(
        name=f"{build.name} {build.version}",
        part=part,
        about_s=build.about_s,
        is_made=is_made,
        make=make,
        lane="go",
        needs=("Debian packages",) if build.cgo else (),
        blocked=missing,
    )


def link_tool(layout: Layout, tool: Path) -> None:
    """Put a tool in the cache on PATH, in place of one of its name that was linked before."""
    layout.bin.mkdir(exist_ok=True)
    link = layout.bin / tool.name
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..") / tool.relative_to(layout.cache))


def find_fitting(layout: Layout, build: Build) -> Path | None:
    """Return a tool of the user's own on PATH that is new enough, or None."""
    ours = (layout.bin, layout.plugins)
    folders = [each for each in os.environ.get("PATH", "").split(os.pathsep) if Path(each) not in ours]
    found = shutil.which(build.on_path, path=os.pathsep.join(folders))
    if found is None or parse_version(read_output([found, "version"]) or "") < build.minimum:
        return None
    return Path(found)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first version number in a tool's own words, () where there is none."""
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()
