"""From settings and what exists to what shall exist (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from builders.errors import BuilderError, InvalidSetting, OutOfStock
from builders.placement import Ladder, choose

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from builders.hetzner import Cloud
    from builders.placement import Refusal
    from builders.platforms import Platform
    from infra.settings import BuilderSetting, Settings

MAX_SERVER_NAME = 63  # of the API: a host name's label
_STACK = re.compile(r"[A-Za-z0-9]+([.-]+[A-Za-z0-9]+)*")  # what may stand in a host name and in a label's value
_KINDS = ("ipv4", "ipv6")
KEPT = "slipway-kept"  # the label of a primary IP that the state protects
MAY_MOVE = timedelta(minutes=30)  # an address younger than this, in a place that is sold out, was hardly handed out


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPlan:
    """A node's primary IPs, by kind; `spare` are kept though the settings want them no more."""

    node: str
    server_name: str
    location: str
    kinds: tuple[str, ...]
    spare: tuple[str, ...]
    moves: bool  # the one on record is in another location and is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One builder server and its address."""

    name: str  # builder and slot: arm64-1
    server_name: str  # unique in the Hetzner project
    platform: Platform
    server_type: str
    location: str
    exists: bool
    address: AddressPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the program declares."""

    name: str  # of everything in the Hetzner project: slipway-<stack>
    labels: Mapping[str, str]
    nodes: tuple[NodePlan, ...]
    retired: tuple[AddressPlan, ...]  # of nodes that the settings want no more
    registrations: Mapping[str, tuple[str, ...]]  # buildx builder → its nodes, one per platform


def labels(project: str, stack: str) -> dict[str, str]:
    """Return what marks this stack's resources in the Hetzner project; raise InvalidSetting for a name that cannot."""
    if not _STACK.fullmatch(stack) or re.search(r"\.[.-]|-\.", stack):
        raise InvalidSetting(
            f"stack {stack!r}: servers bear its name, and theirs have letters, digits, dashes and dots between them only",
            hint="pulumi stack rename NAME",
        )
    return {"managed-by": project, f"{project}-stack": stack}


def make(
    settings: Settings, *, project: str, stack: str, cloud: Cloud, refusals: Sequence[Refusal], now: datetime
) -> Plan:
    """Place every node; raise InvalidSetting or OutOfStock with a line for each builder that has no place."""
    name = f"{project}-{stack}"
    _check_lengths(settings, name)
    nodes: list[NodePlan] = []
    problems: list[BuilderError] = []
    for builder in settings.builders:
        for slot in range(1, builder.count + 1):
            try:
                nodes.append(
                    _node(
                        settings,
                        builder,
                        node=f"{builder.name}-{slot}",
                        stack_name=name,
                        cloud=cloud,
                        refusals=refusals,
                        now=now,
                    )
                )
            except (InvalidSetting, OutOfStock) as problem:
                problems.append(problem)
                break
    if problems:
        raise _joined(problems)
    base = settings.builder_name or name
    return Plan(
        name=name, labels=labels(project, stack), nodes=tuple(nodes),
        retired=_retired(settings, name, cloud, {node.name for node in nodes}),
        registrations=plan_registrations(base, nodes),
    )  # fmt: skip


def spare_addresses(plan: Plan) -> list[str]:
    """Return the names of the primary IPs that are kept and serve no builder."""
    addresses = (*(node.address for node in plan.nodes), *plan.retired)
    return [f"{each.server_name}-{kind}" for each in addresses for kind in each.spare]


def commands(plan: Plan) -> list[str]:
    """Return what to type to build, for each buildx builder on the platforms that it has."""
    platforms = {node.name: str(node.platform) for node in plan.nodes}
    return [
        f"docker buildx build --builder {builder} --platform {','.join(sorted(platforms[node] for node in nodes))} --push ."
        for builder, nodes in plan.registrations.items()
    ]


def _check_lengths(settings: Settings, stack_name: str) -> None:
    names = [f"{stack_name}-{builder.name}-{builder.count}" for builder in settings.builders]
    if problems := [
        f"slipway:builders: server {name!r} has a name of {len(name)} characters, {MAX_SERVER_NAME} are allowed"
        for name in names
        if len(name) > MAX_SERVER_NAME
    ]:
        raise InvalidSetting(
            "\n".join(problems), hint="choose a shorter name of the builder, or of the stack: pulumi stack rename NAME"
        )


def _node(
    settings: Settings,
    builder: BuilderSetting,
    *,
    node: str,
    stack_name: str,
    cloud: Cloud,
    refusals: Sequence[Refusal],
    now: datetime,
) -> NodePlan:
    server_name = f"{stack_name}-{node}"
    kinds = ("ipv6",) if settings.address == "ipv6" else _KINDS

    def planned(server_type: str, location: str, *, exists: bool, moves: bool) -> NodePlan:
        address = AddressPlan(
            node=node, server_name=server_name, location=location, kinds=kinds,
            spare=_spare(settings, cloud, server_name, kinds), moves=moves,
        )  # fmt: skip
        return NodePlan(
            name=node, server_name=server_name, platform=builder.platform,
            server_type=server_type, location=location, exists=exists, address=address,
        )  # fmt: skip

    server = cloud.server(server_name)
    if server is not None:
        return planned(server.server_type or "", server.location or "", exists=True, moves=False)
    kept = next((ip for ip in (cloud.primary_ip(f"{server_name}-{kind}") for kind in _KINDS) if ip), None)
    ladder = Ladder(
        builder=builder.name,
        platform=builder.platform,
        types=builder.types,
        locations=builder.locations,
        max_price_hourly=settings.max_price_hourly,
    )
    try:
        offer = choose(ladder, cloud.offers, refusals, kept_location=kept.location if kept else None)
    except OutOfStock:
        if kept is None or kept.created is None or now - kept.created > MAY_MOVE:
            raise
        offer = choose(ladder, cloud.offers, refusals)
    moves = kept is not None and kept.location != offer.location
    return planned(offer.server_type, offer.location, exists=False, moves=moves)


def _spare(settings: Settings, cloud: Cloud, server_name: str, kinds: Collection[str]) -> tuple[str, ...]:
    """Return the kinds of primary IPs that are there beside those wanted, and protected: only who unprotects them gives them up.

    Where the settings protect none any more, one run unprotects those that are, and the next leaves them out.
    """
    there = ((each, cloud.primary_ip(f"{server_name}-{each}")) for each in _KINDS if each not in kinds)
    return tuple(each for each, found in there if found and (settings.protects_addresses or KEPT in found.labels))


def _retired(settings: Settings, stack_name: str, cloud: Cloud, nodes: Collection[str]) -> tuple[AddressPlan, ...]:
    name = re.compile(rf"({re.escape(stack_name)}-(.+))-ipv[46]")
    found = ((each, name.fullmatch(each.name)) for each in cloud.existing if each.kind == "primary_ip")
    gone = {match[2]: (match[1], ip.location) for ip, match in found if match and match[2] not in nodes}
    return tuple(
        AddressPlan(node=node, server_name=server_name, location=location, kinds=(), spare=spare, moves=False)
        for node, (server_name, location) in sorted(gone.items())
        if location and (spare := _spare(settings, cloud, server_name, ()))
    )


def _joined(problems: list[BuilderError]) -> BuilderError:
    lines = [f"{problem}{f' ({problem.hint})' if problem.hint else ''}" for problem in problems]
    invalid = [str(problem) for problem in problems if isinstance(problem, InvalidSetting)]
    if invalid:
        return InvalidSetting("\n".join(invalid))
    return OutOfStock("\n".join(lines), code="resource_unavailable")


def plan_registrations(base: str, nodes: Sequence[NodePlan]) -> dict[str, tuple[str, ...]]:
    """Join the k-th node of every platform into the k-th buildx builder.

    buildx lets a builder have one node per pinned platform (docker/buildx store/nodegroup.go), so more nodes of one
    platform need more builders; a platform with fewer nodes lends its last one to several.
    """
    by_platform = {
        platform: tuple(node.name for node in group)
        for platform, group in groupby(sorted(nodes, key=lambda node: node.platform), key=lambda node: node.platform)
    }
    most = max(len(names) for names in by_platform.values())
    return {
        base if position == 0 else f"{base}-{position + 1}": tuple(
            names[min(position, len(names) - 1)] for names in by_platform.values()
        )
        for position in range(most)
    }
