"""The bill counts started hours, caps months and adds up to the cent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from scripts.localcloud.bill import cost, make_bill, started_hours, to_json, to_text
from scripts.localcloud.catalog import hourly
from scripts.localcloud.records import Meter

START = datetime(2026, 11, 23, 10, 20, tzinfo=UTC)
CAX21 = Meter(
    id=1,
    kind="server",
    resource=7,
    name="arm64-1",
    description="cax21 at fsn1",
    hourly=hourly(Decimal("10.49")),
    monthly=Decimal("10.49"),
    started=START,
)
IPV4 = replace(CAX21, id=2, kind="primary_ip", hourly=hourly(Decimal("0.50")), monthly=Decimal("0.50"))


@pytest.mark.parametrize(
    ("seconds", "hours"), [(0, 1), (1, 1), (3600, 1), (3601, 2), (7200, 2), (24 * 3600, 24), (24 * 3600 + 1, 25)]
)
def test_every_started_hour_counts_in_full(seconds, hours):
    """Hours run from the resource's own creation; the first one is paid at once."""
    assert started_hours(START, START + timedelta(seconds=seconds)) == hours


def test_two_hours_of_a_server_with_its_address():
    """16 hours of a cax21 with IPv4 cost what the price list says, rounded once."""
    bill = make_bill([CAX21, IPV4], START + timedelta(hours=16))

    assert [line.hours for line in bill.lines] == [16, 16]
    assert bill.lines[0].amount == Decimal("0.2689743584")
    assert bill.total == Decimal("0.28")


def test_a_month_costs_at_most_the_monthly_price():
    """From 624 hours on nothing is added until the next month begins."""
    begun = replace(CAX21, started=datetime(2026, 10, 1, tzinfo=UTC))

    assert cost(begun, datetime(2026, 10, 26, tzinfo=UTC)).amount < Decimal("10.49")
    assert cost(begun, datetime(2026, 10, 28, tzinfo=UTC)).amount == Decimal("10.49")
    assert cost(begun, datetime(2026, 11, 1, tzinfo=UTC)).amount == Decimal("10.49")
    assert cost(begun, datetime(2026, 11, 1, 2, tzinfo=UTC)).amount == Decimal("10.49") + 2 * CAX21.hourly


def test_what_was_deleted_stays_on_the_bill():
    """Its meter has ended; later hours add nothing."""
    ended = replace(CAX21, ended=START + timedelta(minutes=61))

    assert cost(ended, START + timedelta(days=9)).hours == 2


def test_json_and_text_say_the_same():
    """Amounts are decimal strings; a meter that runs on is marked with +."""
    bill = make_bill([CAX21, replace(IPV4, ended=START + timedelta(minutes=1))], START + timedelta(hours=2))

    assert to_json(bill)["total"] == "0.03"
    assert to_json(bill)["lines"][0]["amount"] == "0.0336217948"
    assert to_text(bill).splitlines() == [
        "resource      name     what           hours  EUR net",
        "server 7      arm64-1  cax21 at fsn1     2+   0.0336",
        "primary_ip 7  arm64-1  cax21 at fsn1      1   0.0008",
        "total                                           0.03",
    ]
