"""The buildx door: builders in this user's buildx configuration, read and changed through the command, never its files.

Only builders whose certificates lie in a folder of ours count as ours; one of the same name that is not is left alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders import signals, turns
from builders.errors import BuildxFailed, InvalidSetting
from builders.platforms import Platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPTIONS = {"cacert": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
_COMMAND_TIMEOUT_S = 30
_WITHOUT_DIALING = "1ns"  # the nodes' own answers are not waited for; what is registered is told all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One buildkitd of a builder, and the platform that is built there."""

    name: str
    endpoint: str
    platform: Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What buildx says of a node that it tried to reach."""

    name: str
    endpoint: str
    platforms: tuple[str, ...]
    status: str
    version: str | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registered:
    nodes: tuple[Node | None, ...]  # None: a node that cannot be one of ours
    folder: Path | None  # None: not a builder of ours
    current: bool


def find(builder: str) -> tuple[Node, ...] | None:
    """Return the nodes of a builder of ours as registered on this machine; None: there is no such builder."""
    registered = _registered(builder)
    if registered is None or registered.folder is None:
        return None
    return tuple(node for node in registered.nodes if node)


def check_free(builder: str) -> _Registered | None:
    """Return what is registered under the name; raise BuildxFailed where that is not a builder of ours."""
    registered = _registered(builder)
    if registered and registered.folder is None:
        raise BuildxFailed(
            f"builder {builder}: buildx knows another builder of this name",
            hint=f"remove or rename it: docker buildx rm {builder}",
        )
    return registered


def register(builder: str, nodes: Sequence[Node], folder: Path, *, use: bool = False) -> None:
    """Make the builder consist of exactly these nodes, reached with the credentials in `folder`; nothing to do is no write."""
    with turns.taken("buildx"):
        registered = check_free(builder)
        if registered and registered.folder == folder and set(registered.nodes) == set(nodes):
            if use and not registered.current:
                _run("use", builder)
            return
        if registered:
            _run("rm", "--force", "--timeout", _WITHOUT_DIALING, builder)
        for position, node in enumerate(nodes):
            append = ["--append"] if position else []
            _run("create", "--name", builder, "--timeout", _WITHOUT_DIALING, *append, *_arguments(node, folder))
        if use or (registered and registered.current):
            _run("use", builder)


def unregister(builder: str) -> None:
    """Remove a builder of ours; one that is absent, or not ours, is left as it is."""
    with turns.taken("buildx"):
        registered = _registered(builder)
        if registered and registered.folder:
            _run("rm", "--force", "--timeout", _WITHOUT_DIALING, builder)


def status(builder: str, *, deadline_s: float = 10) -> tuple[NodeStatus, ...]:
    """Ask every node of a builder how it is; raise BuildxFailed if there is no such builder."""
    record = _record(builder, f"{deadline_s}s")
    if record is None:
        raise BuildxFailed(f"builder {builder}: it is not registered on this machine", hint="slipway connect")
    return tuple(
        NodeStatus(
            name=node["Name"],
            endpoint=node["Endpoint"],
            platforms=tuple(node.get("Platforms") or ()),
            status=node.get("Status") or "unknown",
            version=node.get("Version") or None,
            error=node.get("Err") or None,
        )
        for node in record["Nodes"]
    )


def build(arguments: Sequence[str]) -> int:
    """Run a build on this terminal, its own words and signals included; return its exit code."""
    code, interrupted = signals.run([*_command(), "build", *arguments])  # buildx cancels on the nodes
    if code and interrupted:
        raise KeyboardInterrupt
    return code


def _arguments(node: Node, folder: Path) -> list[str]:
    # buildx reads each option as a line of CSV.
    options = [f'"{key}={folder / name}"' for key, name in _OPTIONS.items()]
    return [
        *("--driver", "remote", "--node", node.name, "--platform", str(node.platform)),
        *(part for option in options for part in ("--driver-opt", option)),
        node.endpoint,
    ]


def _registered(builder: str) -> _Registered | None:
    record = _record(builder, _WITHOUT_DIALING)
    if record is None:
        return None
    folders = {_folder(node.get("DriverOpts") or {}) for node in record["Nodes"]}
    place = folders.pop() if record["Driver"] == "remote" and len(folders) == 1 else None
    ours = place is not None and place.name == builder and place.parent.name == "slipway"
    return _Registered(
        nodes=tuple(_node(node) for node in record["Nodes"]), folder=place if ours else None, current=record["Current"]
    )


def _record(builder: str, timeout: str) -> dict[str, Any] | None:
    for line in _run("ls", "--format", "json", "--timeout", timeout).splitlines():
        record: dict[str, Any] = json.loads(line)
        if record["Name"] == builder and not record.get("Dynamic"):
            return record
    return None


def _folder(options: dict[str, str]) -> Path | None:
    """Tell in which folder all three files lie, if they do."""
    places = {Path(options.get(key, "")) for key in _OPTIONS}
    folders = {place.parent for place in places}
    return folders.pop() if len(folders) == 1 and {place.name for place in places} == set(_OPTIONS.values()) else None


def _node(record: dict[str, Any]) -> Node | None:
    platforms = record.get("Platforms") or []
    if len(platforms) != 1:
        return None
    try:
        platform = parse_platform(platforms[0])
    except InvalidSetting:
        return None
    return Node(name=record["Name"], endpoint=record["Endpoint"], platform=platform)


def _command() -> list[str]:
    """Prefer Docker's plugin, which is what users type; buildx by itself reads the same configuration."""
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode
    ):
        return ["docker", "buildx"]
    if shutil.which("buildx"):
        return ["buildx"]
    raise BuildxFailed(
        "buildx: neither `docker buildx` nor `buildx` can be run",
        hint='install Docker\'s buildx plugin, or run: eval "$(scripts/setup --env)"',
    )


def _run(*arguments: str) -> str:
    command = [*_command(), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=_COMMAND_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise BuildxFailed(f"buildx {arguments[0]}: no answer within {_COMMAND_TIMEOUT_S} s") from error
    if done.returncode and "unknown flag: --timeout" in done.stderr:  # buildx has it since 0.32
        place = arguments.index("--timeout")
        return _run(*arguments[:place], *arguments[place + 2 :])
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("ERROR: ") if lines else "it said nothing"
        raise BuildxFailed(f"buildx {arguments[0]}: failed (exit {done.returncode}): {reason}")
    return done.stdout
