"""Where things lie: the checkout and the cache folder."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The folders that setting up fills."""

    checkout: Path
    cache: Path

    @property
    def venv(self) -> Path:
        """The checkout's Python environment."""
        return self.checkout / ".venv"

    @property
    def bin(self) -> Path:
        """Tools for PATH."""
        return self.cache / "bin"

    @property
    def plugins(self) -> Path:
        """Pulumi plugins, last on PATH, so that the vendor's come first."""
        return self.cache / "plugins"

    @property
    def go(self) -> Path:
        """What was built from Go modules, a folder per build."""
        return self.cache / "go"

    @property
    def logs(self) -> Path:
        """The output of every step's commands."""
        return self.cache / "logs"

    def machine(self, architecture: str) -> Path:
        """Return the root file system that local machines of `architecture` start from."""
        return self.cache / "machines" / architecture

    def base(self, architecture: str) -> Path:
        """Return the root file system with a C compiler, for base images."""
        return self.cache / "base" / f"{architecture}.tar"

    @property
    def packages(self) -> Path:
        """What the local cluster takes from Debian: its container runtime, and what is in its container images."""
        return self.cache / "packages"

    @property
    def cluster(self) -> Path:
        """The container images of the local cluster: images.tar, and images.json with their digests."""
        return self.cache / "cluster"

    def tarball(self, version: str, architecture: str) -> Path:
        """Return the BuildKit release tarball, named as the official one."""
        return self.cache / "buildkit" / f"buildkit-{version}.linux-{architecture}.tar.gz"


def find_layout() -> Layout:
    """Return the layout of this checkout and user."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Layout(checkout=CHECKOUT, cache=Path(caches) / "slipway")


def host_architecture() -> str:
    """Return this host's architecture by Debian's and Go's name."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
