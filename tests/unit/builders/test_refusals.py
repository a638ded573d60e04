"""builders.refusals: orders refused lately."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from builders import refusals

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_refusal_is_remembered_for_its_lifetime_and_no_longer():
    """Stock comes back: after fifteen minutes the rung is tried again."""
    refusals.record("cax21", "fsn1", "resource_unavailable", now=NOW)

    assert [(each.server_type, each.location, each.code) for each in refusals.load(NOW + timedelta(minutes=14))] == [
        ("cax21", "fsn1", "resource_unavailable")
    ]
    assert refusals.load(NOW + timedelta(minutes=15)) == ()


def test_refusals_add_up_and_the_same_one_is_renewed():
    """One entry for each rung."""
    refusals.record("cax21", "fsn1", "resource_unavailable", now=NOW)
    refusals.record("cax11", "fsn1", "placement_error", now=NOW)
    refusals.record("cax21", "hel1", "resource_unavailable", now=NOW)
    refusals.record("cax21", "fsn1", "resource_unavailable", now=NOW + timedelta(minutes=10))

    def rungs(minutes):
        return [(each.server_type, each.location) for each in refusals.load(NOW + timedelta(minutes=minutes))]

    assert rungs(10) == [("cax11", "fsn1"), ("cax21", "hel1"), ("cax21", "fsn1")]
    assert rungs(20) == [("cax21", "fsn1")]


def test_builders_that_are_refused_side_by_side_are_all_remembered():
    """A rung that is forgotten costs another refused order."""
    locations = [f"loc{number}" for number in range(16)]
    with ThreadPoolExecutor(len(locations)) as pool:
        list(pool.map(lambda each: refusals.record("cax21", each, "resource_unavailable", now=NOW), locations))

    assert {each.location for each in refusals.load(NOW)} == set(locations)


@pytest.mark.parametrize(
    "damage",
    [
        "", "{", "[1]", '[{"server_type": "x"}]', '{"a": 1}',
        '[{"server_type": "cax21", "location": "fsn1", "code": "placement_error", "until": "2026-11-23T13:00:00"}]',
    ],
)  # fmt: skip
def test_a_damaged_record_is_an_empty_one(tmp_path, damage):
    """It is a cache: losing it costs one more refusal."""
    (tmp_path / "slipway").mkdir()
    (tmp_path / "slipway" / "refusals.json").write_text(damage)

    assert refusals.load(NOW) == ()
