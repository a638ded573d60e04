"""Builds under way on a stack's nodes: who takes the servers away waits for them, as long as a restart of BuildKit does."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from builders import ssh
from builders.buildkit_config import BUILDCTL, STOP_TIMEOUT_MIN
from builders.errors import BuilderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builders.inventory import Node
    from builders.state import State

_DEADLINE_S = 10.0
_PAUSE_S = 2.0
# One line for each build of the node's history; STARTED are those that have not ended (moby.buildkit.v1.BuildHistoryEventType).
_COUNT = f"{BUILDCTL} debug histories --format '{{{{.Type}}}}' | grep -cx STARTED || true"


def count(state: State) -> dict[str, int | None]:
    """Count the builds under way on every node, asked side by side; None where one cannot be asked. Needs the state's secrets."""
    nodes = state.nodes()
    if not nodes:
        return {}
    key = state.output("sshKey")
    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        found = pool.map(lambda node: _count(node, key), nodes)
        return {node.name: builds for node, builds in zip(nodes, found, strict=True)}


def wait(
    builds: Mapping[str, int | None],
    again: Callable[[], Mapping[str, int | None]],
    *,
    report: Callable[[str], None],
    patience_s: float = STOP_TIMEOUT_MIN * 60,
) -> None:
    """Wait until none of `builds` is left, which `again` counts anew; those that outlast the patience are told and given up."""
    deadline = time.monotonic() + patience_s
    told = ""
    while under_way := ", ".join(f"{number} on {node}" for node, number in builds.items() if number):
        if time.monotonic() > deadline:
            report(f"builds still under way: {under_way}; going on without them")
            return
        if under_way != told:
            report(f"builds under way: {under_way}; waiting for them, nothing is removed before")
            told = under_way
        time.sleep(_PAUSE_S)
        builds = again()


def _count(node: Node, private_key: str) -> int | None:
    try:
        with ssh.connect(
            node.name, node.address, host_keys=[node.host_key], private_key=private_key, deadline_s=_DEADLINE_S
        ) as connection:
            return int(connection.run(_COUNT, timeout_s=_DEADLINE_S))
    except (BuilderError, ValueError):
        return None
