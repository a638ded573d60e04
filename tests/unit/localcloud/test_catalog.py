"""The catalog is the vendor's as the facts have it, and its prices add up."""

from decimal import Decimal

import pytest

from scripts.localcloud import catalog


@pytest.mark.parametrize(
    ("name", "cores", "memory", "disk", "monthly"),
    [
        ("cax11", 2, 4, 40, "5.99"),
        ("cax21", 4, 8, 80, "10.49"),
        ("cax31", 8, 16, 160, "20.99"),
        ("cax41", 16, 32, 320, "40.99"),
        ("cx23", 2, 4, 40, "5.49"),
        ("cx33", 4, 8, 80, "8.49"),
        ("cx43", 8, 16, 160, "15.99"),
        ("cx53", 16, 32, 320, "29.49"),
    ],
)
def test_the_types_have_the_sizes_and_prices_of_the_list(name, cores, memory, disk, monthly):
    """Net monthly prices without the address."""
    found = catalog.server_type_named(name)

    assert (found.cores, found.memory, found.disk, found.monthly) == (cores, memory, disk, Decimal(monthly))
    assert found.locations == ("fsn1", "nbg1", "hel1")
    assert found.architecture == ("arm" if name.startswith("cax") else "x86")


def test_types_that_the_vendor_removed_are_not_there():
    """cx22 and cpx11 are gone since 2026; outside Europe there is neither cx nor cax."""
    assert catalog.find_server_type("cx22") is None
    assert catalog.find_server_type("cpx11") is None
    assert {each.name[:3] for each in catalog.SERVER_TYPES if "ash" in each.locations} == {"cpx", "ccx"}


def test_ids_and_names_are_unique():
    """A name or a number finds one thing."""
    for things in (catalog.LOCATIONS, catalog.SERVER_TYPES):
        assert len({each.id for each in things}) == len({each.name for each in things}) == len(things)
    assert len({image.id for image in catalog.IMAGES}) == len(catalog.IMAGES)
    assert len({(image.name, image.architecture) for image in catalog.IMAGES}) == len(catalog.IMAGES)


def test_624_hours_reach_the_monthly_price():
    """cx33: 8.49 a month is 0.0136057692 an hour."""
    assert catalog.hourly(Decimal("8.49")) == Decimal("0.0136057692")


def test_prices_are_decimal_strings_net_and_gross():
    """A client parses them with Decimal; VAT is on top."""
    pricing = catalog.pricing()

    assert pricing["vat_rate"] == "19.000000"
    assert Decimal(pricing["volume"]["price_per_gb_month"]["net"]) == Decimal("0.0572")
    ipv4 = next(each for each in pricing["primary_ips"] if each["type"] == "ipv4")["prices"][0]
    assert Decimal(ipv4["price_monthly"]["net"]) == Decimal("0.50")
    assert Decimal(ipv4["price_monthly"]["gross"]) == Decimal("0.595")
