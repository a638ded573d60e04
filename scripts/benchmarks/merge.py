"""What putting one platform into a tag costs: requests, bytes and time, beside the tools that others use for it.

It ends with what a merge promises, and whether this run has seen it hold.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.benchmarks import promises, writers
from scripts.benchmarks.proxy import Proxy
from scripts.benchmarks.registries import SERVERS, Registry
from scripts.benchmarks.stage import CACHE, ROOT, StageFailed, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PLATFORMS = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/riscv64"]
ROUND_TRIPS_S = (0.0, 0.02)
RUNS = 5
TAGS = 20_000
OURS = "slipway merge"
BUILDX, BUILDX_SAFE = "buildx create", "buildx backup+create"
CRANE = "crane filter+append"
REGCTL, REGCTL_SAFE = "regctl delete+add", "regctl backup+delete+add"
_COST = re.compile(r"(\d+) round trips deep")
_SLIPWAY = str(Path(sys.executable).parent / "slipway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A way to put a staging tag's platform into a tag, in the place of the image that was there.

    `whole`: it does all that a merge does. It backs the tag up, looks at it afterwards, and the staging tag is gone.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    whole: bool = False

    def run(self, words: Mapping[str, Sequence[str]], environment: dict[str, str]) -> None:
        """Run it; each of `words` stands for what is in the commands under its name."""
        for command in self.commands:
            run(*(word for part in command for word in words.get(part, (part,))), cwd=ROOT, env=environment)


def _tools() -> list[Tool]:
    crane, regctl = (str(CACHE / "go" / name / name) for name in ("crane", "regctl"))
    buildx = ("buildx", "imagetools")
    backup = (*buildx, "create", "-t", "BACKUP", "TARGET")
    look, create = (*buildx, "inspect", "--raw", "TARGET"), (*buildx, "create", "-t", "TARGET", "KEPT", "STAGING")
    replace = (
        (regctl, "index", "delete", "TARGET", "--platform", PLATFORMS[0]),
        (regctl, "index", "add", "TARGET", "--ref", "STAGING", "--platform", PLATFORMS[0]),
    )
    delete = (regctl, "tag", "delete", "STAGING")
    return [
        Tool(name=OURS, commands=((_SLIPWAY, "merge", "TARGET", "--from", "STAGING"),), whole=True),
        Tool(name=BUILDX, commands=(look, create)),
        Tool(name=BUILDX_SAFE, commands=(backup, look, create, (*buildx, "inspect", "TARGET"))),
        Tool(
            name=CRANE,
            commands=(
                (crane, "index", "filter", "TARGET", "OTHERS", "-t", "TARGET"),
                (crane, "index", "append", "TARGET", "-m", "STAGING", "-t", "TARGET"),
            ),
        ),
        Tool(name=REGCTL, commands=(*replace, delete)),
        Tool(
            name=REGCTL_SAFE,
            commands=(
                (regctl, "image", "copy", "TARGET", "BACKUP"),
                *replace,
                (regctl, "manifest", "get", "TARGET"),
                delete,
            ),
            whole=True,
        ),
    ]


def measure() -> dict[str, Any]:
    """Run every tool on every case; what a case takes is the median of its runs."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench") as folder:
        home = Path(folder)
        (home / "docker").mkdir()
        servers = [_server(version, home) for version in SERVERS]
        measured = {
            "cases": [case for cases, _ in servers for case in cases],
            "budgets": [budget for _, budgets in servers for budget in budgets],
            "start-up": _start_up(home),
            "tags": _many_tags(home),
            "writers": list(writers.measure(_SLIPWAY, _environment(home), home)),
        }
        return measured | {"promises": promises.judge(measured, ours=OURS, near=(BUILDX, BUILDX_SAFE), far=(REGCTL,))}


def _server(version: str, home: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the cases of one registry, and what a merge alone costs there."""
    registry = Registry(version=version, home=home / version)
    cases = []
    try:
        registry.start()
        for round_trip_s in ROUND_TRIPS_S:
            with Proxy(target=registry.host, round_trip_s=round_trip_s) as proxy:
                environment = _environment(home, proxy.host)
                for shape in _shapes():
                    case = {"registry": version, "round trip ms": round_trip_s * 1000, **shape}
                    cases.append(case | {"tools": _case(registry, proxy, environment, **shape)})
        with Proxy(target=registry.host) as proxy:
            environment = _environment(home)
            return cases, [each for shape in _shapes() for each in _budgets(registry, proxy, environment, **shape)]
    finally:
        registry.stop()


def _shapes() -> Iterator[dict[str, Any]]:
    """Yield what a tag may be before: its platforms, with and without attestations."""
    for count in (2, 3, 4):
        for attest in (False, True):
            yield {"platforms": count, "attestations": attest}


def _budgets(
    registry: Registry, proxy: Proxy, environment: dict[str, str], *, platforms: int, attestations: bool
) -> Iterator[dict[str, Any]]:
    """Count the requests of one merge from a digest and of one from a staging tag, and the round trips that it tells."""
    for source in ("from a digest", "from a staging tag"):
        repository = f"r{time.monotonic_ns()}"
        registry.push_index(repository, "1", PLATFORMS[:platforms], attest=attestations)
        staged = registry.push_index(repository, "s", PLATFORMS[:1], text="new", attest=attestations)
        version = f"@{staged}" if source == "from a digest" else ":s"
        proxy.reset()
        name = f"{proxy.host}/{repository}"
        said = run(_SLIPWAY, "merge", f"{name}:1", "--from", f"{name}{version}", "--debug", env=environment)
        told = _COST.search(said)
        if told is None:
            raise StageFailed(f"slipway merge --debug did not tell its round trips: {said}")
        yield {
            "registry": registry.version, "from": source, "platforms": platforms, "attestations": attestations,
            "requests": len(proxy.requests), "round trips": int(told[1]),
        }  # fmt: skip


def _case(
    registry: Registry, proxy: Proxy, environment: dict[str, str], *, platforms: int, attestations: bool
) -> dict[str, dict[str, float]]:
    figures: dict[str, list[tuple[float, int, int, int]]] = {}
    for number in range(RUNS):
        for tool in _tools():
            repository = f"r{time.monotonic_ns()}"
            registry.push_index(repository, "1", PLATFORMS[:platforms], attest=attestations)
            registry.push_index(repository, "s", PLATFORMS[:1], text=f"new {number}", attest=attestations)
            words = _words(registry, f"{proxy.host}/{repository}", repository)
            wanted = registry.images(repository, "1") | registry.images(repository, "s")
            proxy.reset()
            began = time.monotonic()
            tool.run(words, environment)
            took = time.monotonic() - began
            _check(tool, registry, repository, wanted)
            figures.setdefault(tool.name, []).append((took, len(proxy.requests), proxy.up_bytes, proxy.down_bytes))
    whole = {tool.name: tool.whole for tool in _tools()}
    return {
        name: {
            "seconds": statistics.median(each[0] for each in runs),
            "requests": max(each[1] for each in runs),
            "bytes up": max(each[2] for each in runs),
            "bytes down": max(each[3] for each in runs),
            "whole": whole[name],
        }
        for name, runs in figures.items()
    }


def _words(registry: Registry, name: str, repository: str) -> dict[str, list[str]]:
    """Return what the tools' commands name; KEPT and OTHERS are what stays of the tag, for those that have to be told."""
    kept = [each for each in registry.index(repository, "1")["manifests"] if not _is_replaced(each)]
    others = [each for each in registry.images(repository, "1") if each != PLATFORMS[0]]
    return {
        "TARGET": [f"{name}:1"],
        "STAGING": [f"{name}:s"],
        "BACKUP": [f"{name}:1-backup"],
        "KEPT": [f"{name}@{each['digest']}" for each in kept],
        "OTHERS": [word for each in others for word in ("--platform", each)],
    }


def _is_replaced(descriptor: Mapping[str, Any]) -> bool:
    return f"{descriptor['platform']['os']}/{descriptor['platform']['architecture']}" == PLATFORMS[0]


def _check(tool: Tool, registry: Registry, repository: str, wanted: Mapping[str, list[str]]) -> None:
    """Raise StageFailed where a tool ended well and did not do what it is timed for."""
    found = registry.images(repository, "1")
    if found != wanted:
        raise StageFailed(f"{tool.name}: the tag has {found} instead of {wanted}")
    if tool.whole and ("s" in (tags := registry.tags(repository)) or not any("backup" in each for each in tags)):
        raise StageFailed(f"{tool.name}: with a backup and without the staging tag there would not be {sorted(tags)}")


def _environment(home: Path, host: str = "") -> dict[str, str]:
    """Return an environment without logins, where Python keeps what it compiled, and where regctl speaks plain HTTP to a host."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"DOCKER_CONFIG": str(home / "docker"), "REGCTL_CONFIG": str(home / "regctl.json")}
    if host:
        regctl = str(CACHE / "go" / "regctl" / "regctl")
        run(regctl, "registry", "set", "--tls", "disabled", "--skip-check", host, env=environment)
    return environment


def _start_up(home: Path) -> float:
    """Return the median time of a `--help`, in seconds."""
    times = []
    for _ in range(RUNS * 2):
        began = time.monotonic()
        run(_SLIPWAY, "merge", "--help", cwd=home, env=_environment(home))
        times.append(time.monotonic() - began)
    return statistics.median(times)


def _many_tags(home: Path) -> dict[str, int]:
    """Count the requests of a merge in a repository of one tag, and in one of very many."""
    registry = Registry(version="2.8", home=home / "tags")
    try:
        registry.start()
        with Proxy(target=registry.host) as proxy:
            environment, counts = _environment(home), {}
            for tags in (1, TAGS):
                name = f"tags-{tags}"
                registry.push_index(name, "1", PLATFORMS[:2])
                registry.push_index(name, "s", PLATFORMS[:1], text="new")
                registry.multiply_tag(name, "1", tags)
                proxy.reset()
                _tools()[0].run(_words(registry, f"{proxy.host}/{name}", name), environment)
                counts[f"{tags}"] = len(proxy.requests)
            return counts
    finally:
        registry.stop()


def render(measured: dict[str, Any]) -> str:
    """Return the table for a person."""
    names = list(measured["cases"][0]["tools"])
    lines = [f"{'registry, round trip, platforms':<34}" + "".join(f"{name:>26}" for name in names)]
    lines.append(f"{'':<34}" + f"{'requests      kB  seconds':>26}" * len(names))
    for case in measured["cases"]:
        attested = " + attestations" if case["attestations"] else ""
        title = f"{case['registry']}, {case['round trip ms']:.0f} ms, {case['platforms']}{attested}"
        cells = [
            f"{each['requests']:>11}{(each['bytes up'] + each['bytes down']) / 1000:>8.1f}{each['seconds']:>7.2f}"
            for each in case["tools"].values()
        ]
        lines.append(f"{title:<34}" + "".join(cells))
    return "\n".join([*lines, "", *promises.render(measured["promises"])])
