"""infra.plan: from settings and what exists to what shall exist."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from builders.errors import InvalidSetting, OutOfStock
from builders.hetzner import Cloud, Kept
from builders.placement import Offer
from builders.platforms import Platform
from infra import plan
from infra.settings import BuilderSetting, Settings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ARM, AMD = Platform("linux", "arm64"), Platform("linux", "amd64")


def _offer(server_type, location, *, available=True):
    return Offer(
        server_type=server_type,
        architecture="arm" if server_type.startswith("cax") else "x86",
        cores=2,
        memory_gb=4,
        disk_gb=40,
        location=location,
        available=available,
        orderable=True,
        price_hourly=Decimal("0.01"),
        price_monthly=Decimal("6.24"),
    )


OFFERS = tuple(_offer(each, place) for each in ("cax11", "cx23") for place in ("fsn1", "hel1"))


def _settings(*counts):
    entries = [("arm64", ARM, "cax11"), ("amd64", AMD, "cx23")]
    return Settings(
        builders=tuple(
            BuilderSetting(name=name, platform=platform, types=(type_,), locations=("fsn1", "hel1"), count=count)
            for (name, platform, type_), count in zip(entries, counts, strict=False)
        ),
        address="keep",
        allowed_cidrs=(),
        protect=True,
        image="debian-12",
        buildkit_version="v0.32.2",
        tarballs={},
        snapshotter="auto",
        cache_keep_days=60,
        reachable_private_cidrs=(),
        registries=(),
        max_price_hourly=None,
        builder_name=None,
        registry=None,
    )


def _kept(kind, name, location, *, age=timedelta(days=1), server_type=None):
    return Kept(kind=kind, id=1, name=name, location=location, server_type=server_type, created=NOW - age, labels={})


def _plan(settings, *existing, offers=OFFERS):
    cloud = Cloud(offers=offers, existing=existing)
    return plan.make(settings, project="slipway", stack="dev", cloud=cloud, refusals=(), now=NOW)


def test_every_slot_of_a_builder_is_a_node_with_a_name_of_its_own():
    """count 2 makes two servers, whose names tell project, stack, builder and slot."""
    made = _plan(_settings(2, 1))

    assert [(node.name, node.server_name, node.server_type, node.location) for node in made.nodes] == [
        ("arm64-1", "slipway-dev-arm64-1", "cax11", "fsn1"),
        ("arm64-2", "slipway-dev-arm64-2", "cax11", "fsn1"),
        ("amd64-1", "slipway-dev-amd64-1", "cx23", "fsn1"),
    ]
    assert made.labels == {"managed-by": "slipway", "slipway-stack": "dev"}


def test_a_server_that_exists_stays_where_and_what_it_is():
    """Neither an empty stock nor another ladder moves it."""
    server = _kept("server", "slipway-dev-arm64-1", "nbg1", server_type="cax41")

    node = _plan(_settings(1), server, offers=()).nodes[0]

    assert (node.server_type, node.location, node.exists) == ("cax41", "nbg1", True)
    assert not node.address.moves


def test_a_kept_address_binds_a_new_server_to_its_location():
    """Between releases only the address is left; the next server goes where it is."""
    node = _plan(_settings(1), _kept("primary_ip", "slipway-dev-arm64-1-ipv4", "hel1")).nodes[0]

    assert (node.location, node.exists, node.address.moves) == ("hel1", False, False)


def test_an_old_address_is_never_given_up_for_stock_elsewhere():
    """Colleagues hold it; the plan fails instead."""
    address = _kept("primary_ip", "slipway-dev-arm64-1-ipv6", "hel1")
    offers = (_offer("cax11", "hel1", available=False), _offer("cax11", "fsn1"))

    with pytest.raises(OutOfStock, match=r"cax11 in fsn1 is not where its kept address is \(hel1\)"):
        _plan(_settings(1), address, offers=offers)


def test_an_address_of_a_refused_order_moves_with_the_next_rung():
    """Made minutes ago for a server that was refused, it was never handed out."""
    address = _kept("primary_ip", "slipway-dev-arm64-1-ipv4", "hel1", age=timedelta(minutes=5))
    offers = (_offer("cax11", "hel1", available=False), _offer("cax11", "fsn1"))

    node = _plan(_settings(1), address, offers=offers).nodes[0]

    assert (node.location, node.address.moves) == ("fsn1", True)


def test_a_young_address_stays_where_there_is_a_server_for_it():
    """An invitation may have been written for it; that an earlier rung is free again is no reason to move."""
    address = _kept("primary_ip", "slipway-dev-arm64-1-ipv4", "hel1", age=timedelta(minutes=5))
    offers = (_offer("cax11", "fsn1"), _offer("cax11", "hel1"))

    node = _plan(_settings(1), address, offers=offers).nodes[0]

    assert (node.location, node.address.moves) == ("hel1", False)


def test_the_addresses_of_a_node_that_is_wanted_no_more_are_kept():
    """They are protected, so the engine would refuse to delete what the program left out; unprotected ones go."""
    existing = [
        _kept("primary_ip", f"slipway-dev-arm64-{slot}-{kind}", "hel1") for slot in (1, 2) for kind in ("ipv4", "ipv6")
    ]

    made = _plan(_settings(1), *existing)

    assert made.nodes[0].address.spare == ()
    assert [(each.node, each.location, each.spare) for each in made.retired] == [("arm64-2", "hel1", ("ipv4", "ipv6"))]
    assert not made.retired[0].moves
    assert plan.spare_addresses(made) == ["slipway-dev-arm64-2-ipv4", "slipway-dev-arm64-2-ipv6"]
    for change in ({"protect": False}, {"address": "ephemeral"}):
        assert _plan(replace(_settings(1), **change), *existing).retired == ()


@pytest.mark.parametrize("change", [{"protect": False}, {"address": "ephemeral"}])
def test_what_is_still_protected_is_left_out_only_when_it_is_no_more(change):
    """Whoever drops a builder together with its kept address would meet the engine's refusal in this run and in every later one."""
    existing = _kept("primary_ip", "slipway-dev-arm64-2-ipv4", "hel1")
    settings = replace(_settings(1), **change)

    made = _plan(settings, replace(existing, labels={"slipway-kept": "true"}))

    assert [(each.node, each.spare) for each in made.retired] == [("arm64-2", ("ipv4",))]
    assert _plan(settings, existing).retired == ()


def test_an_ipv4_that_is_wanted_no_more_is_kept():
    """As above, where `keep` becomes `ipv6`."""
    existing = [_kept("primary_ip", f"slipway-dev-arm64-1-{kind}", "hel1") for kind in ("ipv4", "ipv6")]

    made = _plan(replace(_settings(1), address="ipv6"), *existing)

    assert (made.nodes[0].address.kinds, made.nodes[0].address.spare) == (("ipv6",), ("ipv4",))
    assert plan.spare_addresses(made) == ["slipway-dev-arm64-1-ipv4"]


def test_addresses_of_others_are_none_of_a_stacks():
    """Another stack's has another name, also where it begins with this one's."""
    existing = [_kept("primary_ip", name, "hel1") for name in ("vpn", "slipway-develop-arm64-2-ipv4")]

    assert _plan(_settings(1), *existing).retired == ()


def test_the_price_ceiling_of_the_settings_is_every_builders():
    """What costs more is not rented."""
    with pytest.raises(OutOfStock, match="above slipway:maxPriceHourly"):
        _plan(replace(_settings(1), max_price_hourly=Decimal("0.005")))


def test_shortages_of_several_builders_are_told_together():
    """One run tells all that is missing, a line each, and a builder of two servers once."""
    offers = tuple(replace(offer, available=False) for offer in OFFERS)

    with pytest.raises(OutOfStock) as caught:
        _plan(_settings(2, 1), offers=offers)

    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["builder arm64", "builder amd64"]


def test_a_bad_name_outweighs_a_shortage():
    """What waiting cannot cure comes first, all of it."""
    arm64, amd64 = _settings(1, 1).builders
    bad = (replace(arm64, types=("cax99",)), replace(arm64, name="second", locations=("fns1",)), amd64)
    offers = tuple(replace(offer, available=False) for offer in OFFERS)

    with pytest.raises(InvalidSetting) as caught:
        _plan(replace(_settings(1, 1), builders=bad), offers=offers)

    assert str(caught.value).splitlines() == [
        "builder arm64: unknown server type 'cax99', did you mean 'cax11'?",
        "builder second: unknown location 'fns1', did you mean 'fsn1'?",
    ]


def test_the_kth_node_of_every_platform_makes_the_kth_builder():
    """buildx takes one node per pinned platform, so two ARM64 nodes need two builders, which share the AMD64 node."""
    assert _plan(_settings(2, 1)).registrations == {
        "slipway-dev": ("amd64-1", "arm64-1"),
        "slipway-dev-2": ("amd64-1", "arm64-2"),
    }


def test_the_builder_has_the_name_that_the_stack_sets():
    """slipway:builderName replaces slipway-<stack>."""
    made = _plan(replace(_settings(1), builder_name="team"))

    assert json.dumps(dict(made.registrations)) == '{"team": ["arm64-1"]}'


def test_what_to_type_names_the_platforms_that_the_builder_has():
    """A stack of ARM64 builders alone is not asked for AMD64."""
    assert plan.commands(_plan(_settings(2, 1))) == [
        "docker buildx build --builder slipway-dev --platform linux/amd64,linux/arm64 --push .",
        "docker buildx build --builder slipway-dev-2 --platform linux/amd64,linux/arm64 --push .",
    ]
    assert plan.commands(_plan(_settings(1))) == [
        "docker buildx build --builder slipway-dev --platform linux/arm64 --push ."
    ]


@pytest.mark.parametrize("stack", ["dev", "Dev.2", "7", "a-b.c", "a--b"])
def test_a_stack_may_be_called_like_a_host(stack):
    """Its servers and labels bear its name."""
    assert plan.labels("slipway", stack)["slipway-stack"] == stack


@pytest.mark.parametrize("stack", ["my_stack", "dev-", "-dev", ".dev", "a..b", "a.-b", "a-.b"])
def test_a_stack_that_no_server_can_be_named_after_is_refused(stack):
    """Before anything is asked or made: the API would refuse the server only after the addresses."""
    with pytest.raises(InvalidSetting, match=f"stack '{stack}': servers bear its name") as caught:
        plan.labels("slipway", stack)

    assert caught.value.hint == "pulumi stack rename NAME"


def test_a_server_name_that_is_too_long_is_refused():
    """The limit is a host name's, and the last slot's name is the longest."""
    settings = replace(_settings(1), builders=(replace(_settings(10).builders[0], name="a" * 32),))
    cloud = Cloud(offers=OFFERS, existing=())

    def make(stack):
        return plan.make(settings, project="slipway", stack=stack, cloud=cloud, refusals=(), now=NOW)

    assert len(make("s" * 19).nodes[-1].server_name) == 63
    with pytest.raises(InvalidSetting, match="has a name of 64 characters, 63 are allowed"):
        make("s" * 20)
