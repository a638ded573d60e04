"""How long `pulumi up` takes until builders build, and what building natively is worth."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.benchmarks.stage import CACHE, CONTROL, ENDPOINT, TARBALL, Stack, StageFailed, local_cloud, run, timed

COUNTS = (1, 2, 4)
_LONGEST_BOOT_S = "300"
PHASES = {
    "PrimaryIp": "addresses",
    "Server": "servers",
    "HostKey": "first contact",
    "BootstrapKeyRetirement": "host keys",
    "BuildKit": "buildkit ready",
    "BuildxBuilder": "registered",
}
PROGRAM = """\
#include <stdio.h>
%s
int main(void) { unsigned x = 1; %s printf("%%u\\n", x); return 0; }
"""


def measure() -> dict[str, Any]:
    """Run it all on a local cloud of its own; seconds, and ratios within this run."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench") as folder, local_cloud(Path(folder) / "cloud"):
        home = Path(folder)
        bounds = [_bound(home / f"bound-{count}", count) for count in COUNTS]
        fleets = [_fleet(home / f"fleet-{count}", count) for count in COUNTS]
        return {
            "bounds": bounds,
            "fleets": fleets,
            "ratios": {
                "4 builders / 1 builder": fleets[-1]["up"] / fleets[0]["up"],
                "bound of 4 / bound of 1": bounds[-1]["total"] / bounds[0]["total"],
                "1 builder / bound of 1": fleets[0]["up"] / bounds[0]["total"],
                "4 builders / bound of 4": fleets[-1]["up"] / bounds[-1]["total"],
                "emulated build / native build": fleets[0]["emulated build"] / fleets[0]["native build"],
            },
        }


def _fleet(home: Path, count: int) -> dict[str, Any]:
    stack = Stack(name=f"bench{count}", home=home)
    builder = {"name": "amd64", "platform": "linux/amd64", "types": ["cx33"], "locations": ["fsn1"], "count": count}
    stack.init({"builders": [builder], "address": "ephemeral"})
    began = time.time()
    up = stack.up()
    phases = _phases(stack.resources(), began)
    writes = _writes()
    again = stack.up()
    figures = {
        "builders": count,
        "up": up,
        "phases": phases,
        "second up": again,
        "API writes of the second up": _writes() - writes,
    }
    if count == 1:
        figures |= _builds(stack, home / "context")
    return {**figures, "destroy": stack.destroy()}


def _phases(resources: list[dict[str, Any]], began: float) -> dict[str, float]:
    """Tell when the last resource of each phase was there, in seconds from the start."""
    ends: dict[str, float] = {}
    for resource in resources:
        phase = PHASES.get(resource["type"].rpartition(":")[2])
        if phase:
            created = datetime.fromisoformat(resource["created"]).timestamp() - began
            ends[phase] = max(ends.get(phase, 0.0), created)
    if missing := [phase for phase in PHASES.values() if phase not in ends]:
        raise StageFailed(f"nothing in the state tells when this was done: {', '.join(missing)}")
    return {phase: ends[phase] for phase in PHASES.values()}


def _writes() -> int:
    with urllib.request.urlopen(f"{CONTROL}/history?method=!GET") as answer:  # noqa: S310
        return int(json.load(answer)["writes"])


def _builds(stack: Stack, context: Path) -> dict[str, float]:
    """Compile the same program natively and, on the same node, under emulation for the other architecture."""
    context.mkdir()
    functions = "\n".join(f"unsigned f{n}(unsigned x) {{ return x * {n}u + (x >> {n % 31}); }}" for n in range(2000))
    calls = " ".join(f"x = f{n}(x);" for n in range(2000))
    (context / "program.c").write_text(PROGRAM % (functions, calls))
    (context / "Dockerfile").write_text(
        "FROM scratch AS base\nARG TARGETARCH\nADD base-$TARGETARCH.tar /\n"
        "FROM base\nCOPY program.c .\nRUN cc -O2 -o /program program.c && /program\n"
    )
    times = {}
    for kind, architecture in (("native", "amd64"), ("emulated", "arm64")):
        (context / f"base-{architecture}.tar").hardlink_to(CACHE / "base" / f"{architecture}.tar")
        command = ("buildx", "build", "--builder", f"slipway-{stack.name}", "--platform", f"linux/{architecture}")
        run(*command, "--target", "base", context, env=stack.environment)  # in the cache from here on
        times[f"{kind} build"] = timed(*command, context, env=stack.environment)
    return times


def _bound(home: Path, count: int) -> dict[str, float]:
    """Time the bare steps on this host: machines up to the end of cloud-init, the tarball's copies, an empty `pulumi up`."""
    home.mkdir()
    key = home / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    options = ("-i", key, "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR")
    began = time.monotonic()
    servers = _order(key.with_suffix(".pub").read_text(), count)
    ssh = {address: (*options, "-o", f"UserKnownHostsFile={home}/known-{number}") for number, address in servers}

    def boot(address: str) -> None:
        host = f"root@{address}"
        until = 'until ssh "$@" true 2>/dev/null; do sleep 0.2; done'
        run("timeout", _LONGEST_BOOT_S, "sh", "-c", until, "sh", *ssh[address], host)
        run("sh", "-c", 'ssh "$@" cloud-init status --wait || test $? -eq 2', "sh", *ssh[address], host)

    def copy(address: str) -> None:
        run("scp", *ssh[address], TARBALL, f"root@{address}:/root/")

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(boot, ssh))
        booted = time.monotonic()
        list(threads.map(copy, ssh))
        copied = time.monotonic()
    for number, _ in servers:
        _call("DELETE", f"/servers/{number}")
    empty = _empty_up(home, count)
    return {"boot": booted - began, "copy": copied - booted, "empty up": empty, "total": copied - began + empty}


def _empty_up(home: Path, count: int) -> float:
    stack = Stack(name=f"empty{count}", home=home / "empty")
    stack.init({})
    project = stack.home / "project"
    (project / "infra").unlink()
    (project / "infra").mkdir()
    (project / "infra" / "__main__.py").write_text("import pulumi\n")
    return stack.up()


def _call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - the local cloud's own endpoint
        ENDPOINT + path,
        method=method,
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer localcloud{'0' * 54}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        decoded: dict[str, Any] = json.load(answer)
        return decoded


def _order(public_key: str, count: int) -> list[tuple[int, str]]:
    """Order servers; their numbers and addresses."""
    key = _call("POST", "/ssh_keys", {"name": f"bound-{count}", "public_key": public_key.strip()})["ssh_key"]["id"]
    wanted = {"server_type": "cx33", "image": "debian-12", "location": "fsn1", "ssh_keys": [key]}
    found = [_call("POST", "/servers", {"name": f"bound-{n}", **wanted})["server"] for n in range(count)]
    return [(server["id"], server["public_net"]["ipv4"]["ip"]) for server in found]


def render(measured: dict[str, Any]) -> str:
    """Return the table for a person."""
    fleets = measured["fleets"]
    lines = [
        f"{'seconds':<30}"
        + "".join(f"{fleet['builders']:>4} builder{'s' if fleet['builders'] > 1 else ' '}" for fleet in fleets)
    ]
    lines += [
        f"{'up: ' + phase:<30}" + "".join(f"{fleet['phases'][phase]:>13.1f}" for fleet in fleets)
        for phase in PHASES.values()
    ]
    lines += [
        f"{figure:<30}" + "".join(f"{fleet[figure]:>13.1f}" for fleet in fleets)
        for figure in ("up", "second up", "API writes of the second up", "destroy")
    ]
    lines += [
        "",
        *(
            f"{'bound: ' + step:<30}" + "".join(f"{each[step]:>13.1f}" for each in measured["bounds"])
            for step in measured["bounds"][0]
        ),
    ]
    lines.append("")
    lines += [f"{kind:<30}{fleets[0][kind]:>13.1f}" for kind in ("native build", "emulated build")]
    lines += ["", *(f"{name:<30}{ratio:>13.2f}" for name, ratio in measured["ratios"].items())]
    return "\n".join(lines)
