"""What the command prints: results on stdout, progress and errors on stderr (the only module that prints)."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from builders.activity import Activity
    from builders.inventory import Node
    from builders.lifecycle import Down
    from builders.status import Status
    from scripts.registry.errors import RegistryError
    from scripts.registry.lag import Lag
    from scripts.registry.references import Reference

_RED, _YELLOW, _RESET = "\033[31m", "\033[33m", "\033[0m"


def result(text: str) -> None:
    """Print what was asked for."""
    print(text)


def result_json(value: Any) -> None:
    """Print what was asked for, as JSON."""
    print(json.dumps(value, indent=2))


def progress(line: str) -> None:
    """Say what is being done; where nobody can hear it any more, as on a closed terminal, it is done all the same."""
    try:
        print(f"slipway: {line}", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def error(message: str, hint: str | None = None) -> None:
    """Say what went wrong, a line each, and the next thing to do."""
    for line in message.splitlines():
        print(f"{_coloured('error:', _RED)} {line}", file=sys.stderr)
    if hint:
        print(f"{_coloured('hint:', _YELLOW)} {hint}", file=sys.stderr)


def confirm(question: str) -> bool:
    """Ask on the terminal; anything but yes is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render columns as wide as their longest cell."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def nodes(found: Sequence[Node]) -> str:
    """Render the nodes that an `up` ended with."""
    return table(
        ("NODE", "PLATFORM", "ENDPOINT", "SERVER", "BUILDKIT"),
        [
            (node.name, node.platform, node.endpoint, f"{node.server_type} in {node.location}", node.buildkit_version)
            for node in found
        ],
    )


def status(found: Status) -> str:
    """Render the nodes, what keeps each unreachable one from being reached, and this machine's own days."""
    rows = [
        (
            node.builder,
            node.node,
            node.platform,
            node.endpoint,
            "reachable" if node.reachable else "unreachable",
            node.buildkit or "-",
            _days(node.certificate_days_left),
        )
        for node in found.nodes
    ]
    lines = [table(("BUILDER", "NODE", "PLATFORM", "ENDPOINT", "STATE", "BUILDKIT", "CERTIFICATE"), rows)]
    lines += [f"node {node.node}: {node.error}" for node in found.nodes if node.error]
    for name, days in found.connected.items():
        lines.append(f"this machine, builder {name}: {_connection(days)}")
    return "\n".join(lines)


def lags(found: Sequence[Lag], *, now: datetime) -> str:
    """Render the tags that lag behind, and for each platform of one the command that catches up."""
    rows = [(str(each.target), str(each.platform), _age(now - each.since), each.revision or "-") for each in found]
    lines = [table(("TAG", "LAGS BEHIND ON", "SINCE", "BEHIND COMMIT"), rows)]
    lines += [f"to catch up: {_catch_up(each)}" for each in found]
    return "\n".join(lines)


def lags_json(found: Sequence[Lag], unknown: Mapping[Reference, RegistryError]) -> dict[str, Any]:
    """Return what `slipway status --format json` prints of tags, and of the tags and repositories that could not be read."""
    lagging = [
        {
            "tag": str(each.target),
            "platform": str(each.platform),
            "since": each.since.isoformat(),
            "revision": each.revision or None,
            "catch_up": _catch_up(each),
        }
        for each in found
    ]
    return {
        "lagging": lagging,
        "lagging_unknown": [{"reference": str(place), "error": str(error)} for place, error in unknown.items()],
    }


def _catch_up(lag: Lag) -> str:
    checkout = f"git checkout {lag.revision} && " if lag.revision and not lag.revision.endswith("-dirty") else ""
    return f"{checkout}slipway build --platform {lag.platform} --push -t {lag.target} ."


def _age(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    for unit, size in (("d", 1440), ("h", 60)):
        if minutes >= 2 * size:
            return f"{minutes // size} {unit}"
    return f"{minutes} min"


def down_plan(plan: Down) -> str:
    """Render what goes and what stays, a reason per line."""
    lines = [
        *(f"- {_kind(each.kind)} {each.inputs.get('name', each.name)}" for each in plan.going),
        *(f"- {_kind(each.kind)} {each.name}: left by a killed run" for each in plan.orphans),
        *(
            f"  {_kind(each.kind)} {each.inputs.get('name', each.name)}: "
            f"kept{_address(each.outputs)}, protected, {_monthly(price)}"
            for each, price in plan.staying
        ),
    ]
    lines += [f"  node {node}: {_activity(each)}" for node, each in plan.nodes.items()]
    if plan.registry:
        host, stays = plan.registry
        lines.append(
            f"  registry {host}: kept, protected" if stays else f"- registry {host}: its volume stays in the cluster"
        )
    return "\n".join(lines or ["nothing of the stack is in the Hetzner project"])


def kept(plan: Down) -> str:
    """Render what still costs something after a `down`."""
    total = sum((price for _, price in plan.staying), start=0 * (plan.staying[0][1] if plan.staying else 0))
    names = ", ".join(sorted(each.inputs.get("name", each.name) for each, _ in plan.staying))
    if plan.registry and plan.registry[1]:
        names += f"{', ' * bool(names)}registry {plan.registry[0]}"
    price = f"{_monthly(total)} in all" if total else _monthly(total)
    return f"nothing is left but what is kept: {names} ({price})" if names else "nothing is left"


def down_json(plan: Down) -> dict[str, Any]:
    """Return what `slipway down --format json` prints."""
    return {
        "removed": [{"kind": each.kind, "name": each.inputs.get("name", each.name)} for each in plan.going]
        + [{"kind": each.kind, "name": each.name} for each in plan.orphans],
        "kept": [
            {"kind": each.kind, "name": each.inputs.get("name", each.name), "price_monthly_net": f"{price:.4f}"}
            for each, price in plan.staying
        ],
        "registry": {"host": plan.registry[0], "kept": plan.registry[1]} if plan.registry else None,
        "nodes": {
            node: each and {"builds": each.builds, "idle_seconds": each.idle_s} for node, each in plan.nodes.items()
        },
    }


def _activity(each: Activity | None) -> str:
    if each is None:
        return "cannot be asked for its builds"
    if each.builds:
        return f"builds under way: {each.builds}"
    return f"idle for {_age(timedelta(seconds=each.idle_s))}"


def _kind(kind: str | None) -> str:
    return (kind or "").replace("_", " ").replace("ssh", "SSH").replace("ip", "IP")


def _address(outputs: Mapping[str, Any]) -> str:
    return f" ({outputs['ipAddress']})" if outputs.get("ipAddress") else ""


def _monthly(price: Decimal | int) -> str:
    return f"{price:.2f} a month" if price else "free"


def _days(days: int | None) -> str:
    return "-" if days is None else _left(days)


def _connection(days: int | None) -> str:
    if days is None:
        return "not connected: slipway connect"
    return f"connected, {_left(days)}" if days > 0 else "its certificate ended: slipway connect"


def _left(days: int) -> str:
    return f"{days} {'day' if days == 1 else 'days'} left" if days > 0 else "ended"


def _coloured(text: str, colour: str) -> str:
    return f"{colour}{text}{_RESET}" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text
