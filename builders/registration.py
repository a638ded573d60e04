"""Register a stack's builder on this machine: a client certificate in the user's folder, a builder in buildx."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from builders import buildx, certificates, credentials
from builders.buildx import Node
from builders.errors import BuilderError, InvalidSetting
from builders.platforms import parse_platform

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from builders.certificates import Authority, Leaf
    from builders.inventory import Endpoint

OPERATOR_DAYS = 90
RENEW_BEFORE = timedelta(days=30)


def _nodes(endpoints: Sequence[Endpoint]) -> tuple[Node, ...]:
    return tuple(
        Node(name=each.name, endpoint=each.endpoint, platform=parse_platform(each.platform)) for each in endpoints
    )


def register(builder: str, endpoints: Sequence[Endpoint], authority: str, leaf: Leaf) -> None:
    """Write the credentials, then register; a run that dies in between is completed by the next."""
    nodes = _nodes(endpoints)
    folder = credentials.write(builder, authority, leaf)
    buildx.register(builder, nodes, folder)


def register_operator(builder: str, endpoints: Sequence[Endpoint], authority: Authority, *, now: datetime) -> None:
    """Register for whoever holds the authority's key, with a client certificate issued here unless a good one is at hand."""
    check_free(builder, authority.certificate)
    held = credentials.read(builder)
    if held is None or not _serves(held.leaf, authority.certificate, now):
        leaf = certificates.issue_client(authority, "operator", now=now, days=OPERATOR_DAYS)
    else:
        leaf = held.leaf
    register(builder, endpoints, authority.certificate, leaf)


def check_free(builder: str, authority: str) -> None:
    """Raise InvalidSetting where credentials of another stack would be overwritten, BuildxFailed where a builder of the user's."""
    held = credentials.read(builder)
    if held and not held.is_of(authority):
        raise InvalidSetting(
            f"builder {builder}: this machine is connected to another stack's builder of this name",
            hint=f"if it is no longer wanted: slipway disconnect {builder}; else choose another slipway:builderName",
        )
    buildx.check_free(builder)


def is_current(builder: str, endpoints: Sequence[Endpoint], authority: str, *, now: datetime) -> bool:
    """Tell whether this machine has the builder as wanted, with credentials that serve."""
    held = credentials.read(builder)
    return held is not None and _serves(held.leaf, authority, now) and is_registered(builder, endpoints)


def is_registered(builder: str, endpoints: Sequence[Endpoint]) -> bool:
    """Tell whether buildx has the builder with these nodes."""
    return set(buildx.find(builder) or ()) == set(_nodes(endpoints))


def unregister(builder: str, *, of: str | None = None) -> None:
    """Remove the builder and its credentials; what is absent, or not of the authority `of`, is left as it is."""
    held = credentials.read(builder)
    if of and held and not held.is_of(of):
        return
    try:
        buildx.unregister(builder)
    finally:
        credentials.remove(builder)


def leave(builder: str, authority: str | None) -> str:
    """Unregister as part of taking a stack down; what could not be done is returned, as the servers must go all the same."""
    try:
        unregister(builder, of=authority)
    except BuilderError as error:
        return f"{builder} is still in this machine's buildx: {error}"
    return ""


def _serves(leaf: Leaf, authority: str, now: datetime) -> bool:
    return (
        certificates.issued_by(leaf.certificate, authority)
        and certificates.expires(leaf.certificate) - now > RENEW_BEFORE
    )
