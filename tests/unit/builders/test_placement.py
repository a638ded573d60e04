"""builders.placement: which rung of a ladder is rented."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from builders.errors import InvalidSetting, OutOfStock
from builders.placement import Ladder, Offer, Refusal, choose
from builders.platforms import Platform

ARM = Platform("linux", "arm64")
LADDER = Ladder(builder="arm64", platform=ARM, types=("cax21", "cax11"), locations=("fsn1", "hel1"))


def _offer(server_type, location, *, available=True, orderable=True, price="0.0100"):
    return Offer(
        server_type=server_type,
        architecture="x86" if server_type.startswith("cx") else "arm",
        cores=4,
        memory_gb=8,
        disk_gb=80,
        location=location,
        available=available,
        orderable=orderable,
        price_hourly=Decimal(price),
        price_monthly=Decimal(price) * 624,
    )


def _offers(**changes):
    sold = [("cax21", "fsn1"), ("cax21", "hel1"), ("cax11", "fsn1"), ("cax11", "hel1"), ("cx33", "fsn1")]
    return [_offer(*rung, **changes.get("_".join(rung), {})) for rung in sold]


def _chosen(offers, *refusals, **kwargs):
    offer = choose(kwargs.pop("ladder", LADDER), offers, refusals, **kwargs)
    return offer.server_type, offer.location


def test_the_best_type_is_sought_in_every_location_before_the_next_type():
    """cax21 in hel1 comes before cax11 in fsn1."""
    assert _chosen(_offers()) == ("cax21", "fsn1")
    assert _chosen(_offers(cax21_fsn1={"available": False})) == ("cax21", "hel1")
    assert _chosen(_offers(cax21_fsn1={"available": False}, cax21_hel1={"orderable": False})) == ("cax11", "fsn1")


def test_a_refused_rung_is_passed_over():
    """An order that the API refused minutes ago is not repeated, whatever the hint says."""
    refusal = Refusal(
        server_type="cax21", location="fsn1", code="resource_unavailable", until=datetime(2026, 1, 1, tzinfo=UTC)
    )

    assert _chosen(_offers(), refusal) == ("cax21", "hel1")


def test_a_price_ceiling_stops_the_ladder_where_it_is_exceeded():
    """A rung above the ceiling is none."""
    ladder = Ladder(
        builder="arm64", platform=ARM, types=LADDER.types, locations=LADDER.locations, max_price_hourly=Decimal("0.005")
    )

    assert _chosen(_offers(cax11_hel1={"price": "0.005"}), ladder=ladder) == ("cax11", "hel1")


def test_a_kept_address_binds_its_builder_to_the_location():
    """A primary IP cannot leave its location, so a smaller type there is better than another address."""
    assert _chosen(_offers(cax21_hel1={"available": False}), kept_location="hel1") == ("cax11", "hel1")


def test_nothing_to_be_had_tells_why_each_rung_fell_out():
    """One message names every rung with its reason, and the way out."""
    offers = _offers(cax21_fsn1={"available": False}, cax21_hel1={"orderable": False}, cax11_fsn1={"available": False})
    refusal = Refusal(
        server_type="cax11",
        location="hel1",
        code="resource_unavailable",
        until=datetime(2026, 1, 1, 12, 15, tzinfo=UTC),
    )

    with pytest.raises(OutOfStock) as caught:
        choose(LADDER, offers, [refusal])

    assert str(caught.value) == (
        "builder arm64: no server to be had now: cax21 in fsn1 is out of stock; cax21 in hel1 is no longer sold; "
        "cax11 in fsn1 is out of stock; cax11 in hel1 was refused (resource_unavailable, tried again from 12:15 UTC)"
    )
    assert caught.value.hint == "add types or locations to builder arm64 in slipway:builders, or wait"


def test_a_type_that_falls_out_everywhere_for_one_reason_is_told_once():
    """Nine rungs must not make a line that nobody reads."""
    ladder = Ladder(
        builder="arm64", platform=ARM, types=LADDER.types, locations=LADDER.locations, max_price_hourly=Decimal("0.005")
    )
    sold = {f"cax11_{place}": {"price": "0.004", "available": False} for place in ("fsn1", "hel1")}

    with pytest.raises(OutOfStock) as caught:
        choose(ladder, _offers(**sold))

    assert str(caught.value) == (
        "builder arm64: no server to be had now: cax21 in fsn1, hel1 costs 0.0100 an hour, above slipway:maxPriceHourly; "
        "cax11 in fsn1, hel1 is out of stock"
    )


def test_where_a_type_is_not_sold_and_where_an_address_binds_the_builder_is_told():
    """The way out of a location is to give the address up."""
    amd64 = Ladder(builder="amd64", platform=Platform("linux", "amd64"), types=("cx33",), locations=("hel1",))

    with pytest.raises(OutOfStock, match=r"no server to be had now: cx33 in hel1 is not sold there$"):
        choose(amd64, _offers())
    with pytest.raises(OutOfStock, match=r"is not where its kept address is \(nbg1\)$") as caught:
        choose(LADDER, _offers(), kept_location="nbg1")
    assert "; to leave nbg1, delete its kept primary IPs" in caught.value.hint


@pytest.mark.parametrize(
    ("types", "locations", "line"),
    [
        (("cax111",), ("fsn1",), "builder arm64: unknown server type 'cax111', did you mean 'cax11'?"),
        (
            ("cx33",),
            ("fsn1",),
            "builder arm64: server type 'cx33' is x86, which does not run linux/arm64 natively, "
            "choose from cax11, cax21",
        ),
        (("cax11",), ("fns1",), "builder arm64: unknown location 'fns1', did you mean 'fsn1'?"),
        (("huge",), ("fsn1",), "builder arm64: unknown server type 'huge', known: cax11, cax21"),
    ],
)
def test_a_name_that_can_never_be_placed_is_an_invalid_setting(types, locations, line):
    """A typo, or a type of the wrong architecture, is told apart from a shortage."""
    ladder = Ladder(builder="arm64", platform=ARM, types=types, locations=locations)

    with pytest.raises(InvalidSetting) as caught:
        choose(ladder, _offers())

    assert str(caught.value) == line
