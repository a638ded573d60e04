"""How long `pulumi up` takes until builders build, and what building natively is worth."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.benchmarks.stage import CACHE, CONTROL, ENDPOINT, TARBALL, Stack, local_cloud, run, timed

COUNTS = (1, 2, 4)
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
        bound = _bound(home / "bound")
        fleets = [_fleet(home / f"fleet-{count}", count) for count in COUNTS]
        return {
            "bound": bound,
            "fleets": fleets,
            "ratios": {
                "4 builders / 1 builder": fleets[-1]["up"] / fleets[0]["up"],
                "1 builder / bound": fleets[0]["up"] / bound["total"],
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
    return {phase: ends[phase] for phase in PHASES.values() if phase in ends}


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


def _bound(home: Path) -> dict[str, float]:
    """Time the bare steps on this host: a machine up to the end of cloud-init, the tarball's copy, an empty `pulumi up`."""
    home.mkdir()
    key = home / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    began = time.monotonic()
    number, address = _order(key.with_suffix(".pub").read_text())
    ssh = (
        "-i",
        key,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        f"UserKnownHostsFile={home}/known",
        "-o",
        "LogLevel=ERROR",
    )
    run("sh", "-c", 'until ssh "$@" true 2>/dev/null; do sleep 0.2; done', "sh", *ssh, f"root@{address}")
    run("sh", "-c", 'ssh "$@" cloud-init status --wait || test $? -eq 2', "sh", *ssh, f"root@{address}")
    boot = time.monotonic() - began
    copy = timed("scp", *ssh, TARBALL, f"root@{address}:/root/")
    _call("DELETE", f"/servers/{number}")
    empty = _empty_up(home)
    return {"boot": boot, "copy": copy, "empty up": empty, "total": boot + copy + empty}


def _empty_up(home: Path) -> float:
    stack = Stack(name="empty", home=home / "empty")
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


def _order(public_key: str) -> tuple[int, str]:
    key = _call("POST", "/ssh_keys", {"name": "bound", "public_key": public_key.strip()})["ssh_key"]["id"]
    server = _call(
        "POST",
        "/servers",
        {"name": "bound", "server_type": "cx33", "image": "debian-12", "location": "fsn1", "ssh_keys": [key]},
    )["server"]
    return server["id"], server["public_net"]["ipv4"]["ip"]


def render(measured: dict[str, Any]) -> str:
    """Return the table for a person."""
    fleets = measured["fleets"]
    lines = [
        f"{'seconds':<30}"
        + "".join(f"{fleet['builders']:>4} builder{'s' if fleet['builders'] > 1 else ' '}" for fleet in fleets)
    ]
    lines += [
        f"{'up: ' + phase:<30}" + "".join(f"{fleet['phases'].get(phase, 0):>13.1f}" for fleet in fleets)
        for phase in PHASES.values()
    ]
    lines += [
        f"{figure:<30}" + "".join(f"{fleet[figure]:>13.1f}" for fleet in fleets)
        for figure in ("up", "second up", "API writes of the second up", "destroy")
    ]
    lines += ["", *(f"bound: {step:<23}{seconds:>13.1f}" for step, seconds in measured["bound"].items())]
    lines += [f"{kind:<30}{fleets[0][kind]:>13.1f}" for kind in ("native build", "emulated build")]
    lines += ["", *(f"{name:<30}{ratio:>13.2f}" for name, ratio in measured["ratios"].items())]
    return "\n".join(lines)
