"""What a collection frees and what it costs, on storages whose ideal is known, beside registry 2.8's own garbage-collect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.benchmarks import stores
from scripts.benchmarks.registries import SERVERS, Supervised
from scripts.benchmarks.stage import ROOT, StageFailed, run

if TYPE_CHECKING:
    import resource

    from scripts.benchmarks.stores import Made

IMAGES = (100, 1_000, 10_000)
VERSION = "2.8"
SLIPWAY = "slipway gc"
STOCK = {"garbage-collect": (), "garbage-collect -m": ("--delete-untagged",)}


def measure() -> dict[str, Any]:
    """Let each tool collect a storage of each size."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench") as folder:
        return {"cases": [_case(Path(folder) / str(images), images) for images in IMAGES]}


def _case(home: Path, images: int) -> dict[str, Any]:
    home.mkdir()
    made = stores.Generator(home / "made", now=time.time()).make(images)
    ideal = sum(made.garbage.values())
    case: dict[str, Any] = {
        "images": images,
        "tags": len(made.tags),
        "blobs": len(stores.blobs_of(home / "made")),
        "bytes": made.bytes,
        "ideal bytes": ideal,
        "tools": {},
    }
    for name in (SLIPWAY, *STOCK):
        place = home / "registry"
        place.mkdir()
        run("cp", "--archive", home / "made", place / "storage")
        case["tools"][name] = _tool(name, place, made)
        shutil.rmtree(place)
    return case


def _tool(name: str, place: Path, made: Made) -> dict[str, Any]:
    entrypoint = run(sys.executable, "-c", "from scripts.registry import mode; print(mode.ENTRYPOINT, end='')")
    registry = Supervised(version=VERSION, home=place, entrypoint=entrypoint)
    try:
        registry.start()
        before = stores.blobs_of(place / "storage")
        command: list[str | Path] = [str(Path(sys.executable).parent / "slipway"), "gc", registry.host, "--now"]
        command += ["--no-backup", "--format", "json", "--mode-file", registry.mode_file, "--grace", "24h"]
        if name in STOCK:
            command = [SERVERS[VERSION], "garbage-collect", *STOCK[name], place / "config.yml"]
        took, memory, printed = _measured(command)
        after = stores.blobs_of(place / "storage")
    finally:
        registry.stop()
    gone = before.keys() - after.keys()
    found: dict[str, Any] = {
        "seconds": took,
        "memory MB": memory,
        "bytes freed": sum(before[each] for each in gone),
        "of the ideal": sum(before[each] for each in gone & made.garbage.keys()) / max(sum(made.garbage.values()), 1),
        "within grace deleted": len(gone & made.young),
        "tags unpullable": stores.unpullable(place / "storage", made),
    }
    if name == SLIPWAY:
        report = json.loads(printed)
        found |= {"writes stopped": report["stopped"]["seconds"], "parts": report["stopped"]["parts"]}
    return found


def _measured(command: list[str | Path]) -> tuple[float, float, str]:
    """Run a command; its wall time in seconds, the most memory that it or what it started had, in MB, and what it printed."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen([str(each) for each in command], cwd=ROOT, stdout=out, stderr=err)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise StageFailed(f"{command[0]} {command[1]} ended with {process.returncode}: {err.read()[-2000:]}")
        return took, _megabytes(usage), out.read()


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / 1024


def render(measured: dict[str, Any]) -> str:
    """Return the table for a person."""
    lines = [f"{'':<30}{'freed':>12}{'of ideal':>10}{'too much':>10}{'unpullable':>12}{'seconds':>9}{'MB':>7}"]
    for case in measured["cases"]:
        lines.append(
            f"{case['images']} images, {case['tags']} tags, {case['blobs']} blobs, "
            f"{case['bytes'] / 1e6:.1f} MB, of which {case['ideal bytes'] / 1e6:.1f} MB are to go"
        )
        for name, each in case["tools"].items():
            lines.append(
                f"  {name:<28}{each['bytes freed'] / 1e6:>9.1f} MB{each['of the ideal']:>10.1%}"
                f"{each['within grace deleted']:>10}{each['tags unpullable']:>12}{each['seconds']:>9.1f}{each['memory MB']:>7.0f}"
            )
            if "parts" in each:
                parts = ", ".join(f"{part} {took:.1f}" for part, took in each["parts"].items())
                lines.append(f"    no writes for {each['writes stopped']:.1f} s ({parts})")
    first, last = measured["cases"][0], measured["cases"][-1]
    lines.append("")
    for name in first["tools"]:
        per = [1000 * case["tools"][name]["seconds"] / case["images"] for case in measured["cases"]]
        lines.append(f"{name}: {', '.join(f'{each:.1f}' for each in per)} ms an image")
    lines.append(f"from {first['images']} to {last['images']} images")
    return "\n".join(lines)
