"""Many merges into one tag at once: what became of every image that one of them acknowledged."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.registries import SERVERS, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

WRITERS = 100
PLATFORMS = ["linux/amd64", "linux/arm64"]
_DONE, _SUPERSEDED = 0, 4
_LONGEST_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A merge that ended: the image that it was for, its exit code, and what it printed as JSON."""

    image: str
    exit_code: int
    told: Mapping[str, Any]


def measure(slipway: str, environment: Mapping[str, str], home: Path) -> Iterator[dict[str, Any]]:
    """Let the writers loose on a registry of each version."""
    for version in SERVERS:
        registry = Registry(version=version, home=home / f"writers-{version}")
        try:
            registry.start()
            yield {"registry": version, **_race(registry, slipway, environment)}
        finally:
            registry.stop()


def _race(registry: Registry, slipway: str, environment: Mapping[str, str]) -> dict[str, Any]:
    registry.push_index("app", "1", PLATFORMS)
    images = [
        registry.push_image("app", PLATFORMS[n % len(PLATFORMS)], text=f"writer {n}")["digest"] for n in range(WRITERS)
    ]

    def write(image: str) -> Writer:
        command = [slipway, "merge", registry.name("app", "1"), "--from", registry.name("app", image)]
        done = subprocess.run(
            [*command, "--format", "json"], env=environment, capture_output=True, text=True, timeout=_LONGEST_S, check=False
        )  # fmt: skip
        told = json.loads(done.stdout) if done.returncode in {_DONE, _SUPERSEDED} else {}
        return Writer(image=image, exit_code=done.returncode, told=told)

    began = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = list(pool.map(write, images))
    found = registry.images("app", "1")
    unreadable = [each for digests in found.values() for each in digests if registry.get("app", each) is None]
    return {"seconds": time.monotonic() - began, **account(writers, found), "unreadable": len(unreadable)}


def account(writers: Sequence[Writer], found: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Count what became of the writers' images; `found` are those that the tag has at the end, by platform.

    An image is reported superseded by its own writer, or by the one that put another in its place. What was acknowledged and
    is neither in the tag nor so reported is lost.
    """
    acknowledged = {each.image for each in writers if each.exit_code in {_DONE, _SUPERSEDED}}
    told = {each.image for each in writers if each.exit_code == _SUPERSEDED}
    told |= {digest for each in writers for digests in each.told.get("replaced", {}).values() for digest in digests}
    present = {digest for digests in found.values() for digest in digests}
    return {
        "writers": len(writers),
        "acknowledged": len(acknowledged),
        "in the tag": len(acknowledged & present),
        "reported superseded": len((acknowledged & told) - present),
        "lost": len(acknowledged - told - present),
        "platforms": len(found),
        "most attempts": max((each.told.get("attempts", 0) for each in writers), default=0),
    }
