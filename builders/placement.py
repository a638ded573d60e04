"""Choose what to rent where: the first rung of a builder's ladder that can be had (pure)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builders.errors import InvalidSetting, OutOfStock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime
    from decimal import Decimal

    from builders.platforms import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One server type in one location, as the API lists it; prices are net, in the project's currency."""

    server_type: str
    architecture: str  # Hetzner's word: arm, x86
    cores: int
    memory_gb: float
    disk_gb: int
    location: str
    available: bool  # a hint: the order may be refused all the same
    orderable: bool  # False once the type is past its end of sale there
    price_hourly: Decimal
    price_monthly: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An order that the API refused for want of stock; not tried again before `until`."""

    server_type: str
    location: str
    code: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What a builder may run on, best first: each type in each location, before the next type."""

    builder: str
    platform: Platform
    types: tuple[str, ...]
    locations: tuple[str, ...]
    max_price_hourly: Decimal | None = None

    def rungs(self) -> Iterator[tuple[str, str]]:
        """Yield (server type, location), best first."""
        for server_type in self.types:
            for location in self.locations:
                yield server_type, location


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def check_ladder(ladder: Ladder, offers: Collection[Offer]) -> list[str]:
    """Return what is wrong with a ladder whatever the stock: unknown names, types of another architecture."""
    architectures = {offer.server_type: offer.architecture for offer in offers}
    native = {
        name for name, architecture in architectures.items() if architecture == ladder.platform.cloud_architecture
    }
    locations = {offer.location for offer in offers}
    problems = []
    for server_type in ladder.types:
        if server_type not in architectures:
            problems.append(
                f"builder {ladder.builder}: unknown server type {server_type!r}, {_nearest(server_type, native)}"
            )
        elif server_type not in native:
            problems.append(
                f"builder {ladder.builder}: server type {server_type!r} is {architectures[server_type]}, "
                f"which does not run {ladder.platform} natively, choose from {', '.join(sorted(native))}"
            )
    problems += [
        f"builder {ladder.builder}: unknown location {location!r}, {_nearest(location, locations)}"
        for location in ladder.locations
        if location not in locations
    ]
    return problems


def choose(
    ladder: Ladder, offers: Collection[Offer], refusals: Sequence[Refusal] = (), *, kept_location: str | None = None
) -> Offer:
    """Return the first rung that is offered, within the price and not refused lately.

    A kept address binds the builder to `kept_location`. Raise InvalidSetting for a ladder that can never be placed,
    OutOfStock, naming why each rung fell out, for one that cannot be placed now.
    """
    if problems := check_ladder(ladder, offers):
        raise InvalidSetting("\n".join(problems))
    by_rung = {(offer.server_type, offer.location): offer for offer in offers}
    refused = {(refusal.server_type, refusal.location): refusal for refusal in refusals}
    reasons: dict[tuple[str, str | None], list[str]] = {}
    for rung in ladder.rungs():
        offer = by_rung.get(rung)
        reason = _why_not(ladder, offer, refused.get(rung), rung[1], kept_location)
        if offer is not None and reason is None:
            return offer
        reasons.setdefault((rung[0], reason), []).append(rung[1])
    told = "; ".join(f"{name} in {', '.join(places)} {reason}" for (name, reason), places in reasons.items())
    raise OutOfStock(
        f"builder {ladder.builder}: no server to be had now: {told}",
        code="resource_unavailable",
        hint=_way_out(ladder, kept_location),
    )


def _why_not(
    ladder: Ladder, offer: Offer | None, refusal: Refusal | None, location: str, kept_location: str | None
) -> str | None:
    if kept_location is not None and location != kept_location:
        return f"is not where its kept address is ({kept_location})"
    if offer is None:
        return "is not sold there"
    if not offer.orderable:
        return "is no longer sold"
    if ladder.max_price_hourly is not None and offer.price_hourly > ladder.max_price_hourly:
        return f"costs {offer.price_hourly:.4f} an hour, above slipway:maxPriceHourly"
    if refusal is not None:
        return f"was refused ({refusal.code}, tried again from {refusal.until:%H:%M} UTC)"
    if not offer.available:
        return "is out of stock"
    return None


def _way_out(ladder: Ladder, kept_location: str | None) -> str:
    wider = f"add types or locations to builder {ladder.builder} in slipway:builders, or wait"
    if kept_location is None:
        return wider
    return f"{wider}; to leave {kept_location}, delete its kept primary IPs (colleagues then need a new invitation)"
