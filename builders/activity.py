"""What a stack's nodes build, and when they last did: who takes the servers away waits for builds, or for the end of the day.

BuildKit's own history tells, over SSH: plain `docker buildx` takes no lock that could.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builders import ssh
from builders.buildkit_config import BUILDCTL, STOP_TIMEOUT_MIN
from builders.errors import BuilderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builders.inventory import Node
    from builders.state import State

_DIAL_S = 5.0
_ANSWER_S = 10.0
_PAUSE_S = 2.0
_SILENCE_S = 60.0
# A line for each build: STARTED (moby.buildkit.v1.BuildHistoryEventType) is one that has not ended, the others tell when they
# did, in seconds since 1970; then the node's own time, and for how many seconds it has been up.
_HISTORY = (
    f"{BUILDCTL} debug histories --format '{{{{.Type}}}} {{{{with .Record.CompletedAt}}}}{{{{.AsTime.Unix}}}}{{{{end}}}}' "
    "&& echo NOW $(date +%s) $(cut -d. -f1 /proc/uptime)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Builds under way, and for how long nothing was built, or the machine has been up; an installation's test build is a build."""

    builds: int
    idle_s: int


def look(state: State) -> dict[str, Activity | None]:
    """Ask every node, side by side; None for one that cannot be asked, as without the state's secrets."""
    nodes, key = state.nodes(), state.outputs.get("sshKey")
    if not nodes or not isinstance(key, str):
        return dict.fromkeys(node.name for node in nodes)
    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        found = pool.map(lambda node: _ask(node, key), nodes)
        return {node.name: each for node, each in zip(nodes, found, strict=True)}


def drain(
    look: Callable[[], Mapping[str, Activity | None]],
    before: Mapping[str, Activity | None],
    *,
    report: Callable[[str], None],
    patience_s: float = STOP_TIMEOUT_MIN * 60,
) -> None:
    """Wait until no node builds. Builds that outlast the patience are told and given up.

    A node that does not answer, and built when it was last seen, now or in the look `before`, is taken to build on for a
    minute: who has much to build may be slow to answer.
    """
    began = time.monotonic()
    seen = {node: (each.builds, began) for node, each in before.items() if each}
    silent: set[str] = set()
    told = ""
    while True:
        found = look()
        seen = {node: last for node, last in seen.items() if node in found}  # the others were taken away
        for node, each in found.items():
            now = time.monotonic()
            if each:
                seen[node] = (each.builds, now)
                continue
            builds, at = seen.get(node, (0, now))
            if builds and now - at > _SILENCE_S:
                del seen[node]
            if node not in seen and node not in silent:
                silent.add(node)
                report(f"node {node} cannot be asked for its builds")
        under_way = ", ".join(f"{builds} on {node}" for node, (builds, _) in seen.items() if builds)
        if not under_way:
            return
        if time.monotonic() - began > patience_s:
            report(f"builds still under way: {under_way}; going on without them")
            return
        if under_way != told:
            limit = "" if told else f", {patience_s / 60:.0f} minutes at most"
            report(f"builds under way: {under_way}; waiting for them{limit}")
            told = under_way
        time.sleep(_PAUSE_S)


def _ask(node: Node, private_key: str) -> Activity | None:
    try:
        with ssh.connect(
            node.name, node.address, host_keys=[node.host_key], private_key=private_key, deadline_s=_DIAL_S
        ) as connection:
            return read(connection.run(_HISTORY, timeout_s=_ANSWER_S))
    except (BuilderError, ValueError):
        return None


def read(history: str) -> Activity:
    """Read what a node tells; ValueError where it is something else."""
    *builds, (word, now, up_s) = (line.split() for line in history.splitlines())
    if word != "NOW":
        raise ValueError(history)
    under_way = builds.count(["STARTED"])
    since = max([int(now) - int(up_s), *(int(build[1]) for build in builds if len(build) == 2)])
    return Activity(builds=under_way, idle_s=0 if under_way else max(0, int(now) - since))
