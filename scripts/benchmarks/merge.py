"""What putting one platform into a tag costs: requests, bytes and time, beside the tools that others use for it."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.proxy import Proxy
from scripts.benchmarks.registries import SERVERS, Registry
from scripts.benchmarks.stage import CACHE, ROOT, run

if TYPE_CHECKING:
    from collections.abc import Iterator

PLATFORMS = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/riscv64"]
ROUND_TRIPS_S = (0.0, 0.02)
RUNS = 5
TAGS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A way to put a staging tag's platform into a tag; `whole`: the staging tag is gone afterwards."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    whole: bool = False

    def run(self, target: str, staging: str, environment: dict[str, str]) -> None:
        """Run it."""
        for command in self.commands:
            run(*(part.format(target=target, staging=staging) for part in command), cwd=ROOT, env=environment)


def _tools() -> list[Tool]:
    crane, regctl = (str(CACHE / "go" / name / name) for name in ("crane", "regctl"))
    slipway = str(Path(sys.executable).parent / "slipway")
    return [
        Tool(name="slipway merge", commands=((slipway, "merge", "{target}", "--from", "{staging}"),), whole=True),
        Tool(
            name="buildx imagetools",
            commands=(("buildx", "imagetools", "create", "--append", "-t", "{target}", "{staging}"),),
        ),
        Tool(
            name="crane index append",
            commands=((crane, "index", "append", "{target}", "-m", "{staging}", "-t", "{target}"),),
        ),
        Tool(
            name="regctl add + delete",
            commands=(
                (regctl, "index", "add", "{target}", "--ref", "{staging}"),
                (regctl, "tag", "delete", "{staging}"),
            ),
            whole=True,
        ),
    ]


def measure() -> dict[str, Any]:
    """Run every tool on every case; what a case takes is the median of its runs."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench") as folder:
        home = Path(folder)
        (home / "docker").mkdir()
        rows = [row for version in SERVERS for row in _server(version, home)]
        return {"cases": rows, "start-up": _start_up(home), "tags": _many_tags(home)}


def _server(version: str, home: Path) -> Iterator[dict[str, Any]]:
    registry = Registry(version=version, home=home / version).start()
    try:
        for round_trip_s in ROUND_TRIPS_S:
            with Proxy(target=registry.host, round_trip_s=round_trip_s) as proxy:
                environment = _environment(home, proxy.host)
                for count in (2, 3, 4):
                    for attest in (False, True):
                        case = {"registry": version, "round trip ms": round_trip_s * 1000}
                        case |= {"platforms": count, "attestations": attest}
                        yield case | {"tools": _case(registry, proxy, environment, count, attest=attest)}
    finally:
        registry.stop()


def _case(
    registry: Registry, proxy: Proxy, environment: dict[str, str], count: int, *, attest: bool
) -> dict[str, dict[str, float]]:
    figures: dict[str, list[tuple[float, int, int, int]]] = {}
    for number in range(RUNS):
        for tool in _tools():
            repository = f"r{time.monotonic_ns()}"
            registry.push_index(repository, "1", PLATFORMS[:count], attest=attest)
            registry.push_index(repository, "s", PLATFORMS[:1], text=f"new {number}", attest=attest)
            proxy.reset()
            began = time.monotonic()
            tool.run(f"{proxy.host}/{repository}:1", f"{proxy.host}/{repository}:s", environment)
            took = time.monotonic() - began
            figures.setdefault(tool.name, []).append((took, len(proxy.requests), proxy.up_bytes, proxy.down_bytes))
    return {
        name: {
            "seconds": statistics.median(each[0] for each in runs),
            "requests": max(each[1] for each in runs),
            "bytes up": max(each[2] for each in runs),
            "bytes down": max(each[3] for each in runs),
        }
        for name, runs in figures.items()
    }


def _environment(home: Path, host: str) -> dict[str, str]:
    environment = {**os.environ, "DOCKER_CONFIG": str(home / "docker"), "REGCTL_CONFIG": str(home / "regctl.json")}
    run(
        str(CACHE / "go" / "regctl" / "regctl"),
        "registry",
        "set",
        "--tls",
        "disabled",
        "--skip-check",
        host,
        env=environment,
    )
    return environment


def _start_up(home: Path) -> float:
    """Return the median time of a `--help`, in seconds."""
    times = []
    for _ in range(RUNS * 2):
        began = time.monotonic()
        run(str(Path(sys.executable).parent / "slipway"), "merge", "--help", cwd=home)
        times.append(time.monotonic() - began)
    return statistics.median(times)


def _many_tags(home: Path) -> dict[str, int]:
    """Count the requests of a merge in a repository of one tag, and in one of very many."""
    registry = Registry(version="2.8", home=home / "tags").start()
    slipway = _tools()[0]
    try:
        with Proxy(target=registry.host) as proxy:
            environment, counts = _environment(home, proxy.host), {}
            for name, tags in (("few", 1), (f"{TAGS}", TAGS)):
                registry.push_index(name, "1", PLATFORMS[:2])
                registry.push_index(name, "s", PLATFORMS[:1], text="new")
                folder = registry.home / "storage/docker/registry/v2/repositories" / name / "_manifests/tags"
                digest = (folder / "1/current/link").read_text()
                for number in range(tags - 1):  # as the registry itself lays them out
                    (folder / f"t{number}/current").mkdir(parents=True)
                    (folder / f"t{number}/current/link").write_text(digest)
                proxy.reset()
                slipway.run(f"{proxy.host}/{name}:1", f"{proxy.host}/{name}:s", environment)
                counts[name] = len(proxy.requests)
            return counts
    finally:
        registry.stop()


def render(measured: dict[str, Any]) -> str:
    """Return the table for a person."""
    names = list(measured["cases"][0]["tools"])
    lines = [f"{'registry, round trip, platforms':<34}" + "".join(f"{name:>24}" for name in names)]
    lines.append(f"{'':<34}" + f"{'requests      kB  seconds':>24}" * len(names))
    for case in measured["cases"]:
        attested = " + attestations" if case["attestations"] else ""
        title = f"{case['registry']}, {case['round trip ms']:.0f} ms, {case['platforms']}{attested}"
        cells = [
            f"{each['requests']:>9}{(each['bytes up'] + each['bytes down']) / 1000:>8.1f}{each['seconds']:>7.2f}"
            for each in case["tools"].values()
        ]
        lines.append(f"{title:<34}" + "".join(cells))
    few, many = measured["tags"].values()
    lines += [
        "",
        f"slipway merge --help: {measured['start-up'] * 1000:.0f} ms",
        f"requests of a merge in a repository of one tag: {few}; of {TAGS} tags: {many}",
    ]
    return "\n".join(lines)
