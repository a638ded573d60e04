"""Addresses, the rate limit, faults and the store, without a socket."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from scripts.localcloud.addresses import ipv4_pool, ipv6_pool
from scripts.localcloud.faults import ErrorFault, Faults, MachineFault, Stock
from scripts.localcloud.ratelimit import RateLimit
from scripts.localcloud.records import SshKey
from scripts.localcloud.store import Store, StoreFailed

KEY = SshKey(
    id=1, name="k", public_key="p", fingerprint="f", labels={"a": "b"}, created=datetime(2026, 11, 23, tzinfo=UTC)
)


def test_addresses_are_given_in_turn_and_the_first_ones_never():
    """198.51.100.10 comes first; a freed address is taken again last; .255 is never given."""
    pool = ipv4_pool("198.51.100.0/24", 10)

    assert pool.pick(set(), 0) == (10, "198.51.100.10")
    assert pool.pick({"198.51.100.11"}, 10) == (12, "198.51.100.12")
    assert pool.pick(set(), 254) == (10, "198.51.100.10")
    assert pool.pick({f"198.51.100.{last}" for last in range(10, 255)}, 0) is None


def test_ipv6_servers_get_a_64_each():
    """The first /64 of the range stays free."""
    assert ipv6_pool("2001:db8:51::/48").pick(set(), 0) == (1, "2001:db8:51:1::/64")


def test_the_rate_limit_refills_by_the_second():
    """An empty bucket lets one call through a second later, and says when it is full again."""
    limit = RateLimit(limit=2, refill_per_s=1, left=2, seen=100)

    assert [limit.take(100), limit.take(100), limit.take(100.5)] == [True, True, False]
    assert limit.take(101.6)
    assert limit.headers() == {"RateLimit-Limit": "2", "RateLimit-Remaining": "0", "RateLimit-Reset": "103"}


def test_a_fault_strikes_as_often_as_ordered_and_the_latest_first():
    """Two orders for the same call: the later one is used up first."""
    faults = Faults()
    faults.add(ErrorFault(method="POST", path="/servers*", code="conflict", times=2))
    faults.add(ErrorFault(code="locked"))

    codes = [error.code if (error := faults.error("POST", "/servers")) else None for _ in range(4)]

    assert codes == ["locked", "conflict", "conflict", None]
    assert faults.error("GET", "/servers") is None


def test_hint_and_order_of_the_stock_are_set_apart():
    """A type may look available and be refused, and the reverse."""
    faults = Faults()
    faults.add(Stock(server_type="cax*", location="fsn1", available=False))
    faults.add(Stock(server_type="cx33", order="resource_unavailable", times=1))

    assert not faults.available("cax21", "fsn1")
    assert faults.refusal("cax21", "fsn1") is None
    assert faults.available("cx33", "nbg1")
    assert faults.refusal("cx33", "nbg1").code == "resource_unavailable"
    assert faults.refusal("cx33", "nbg1") is None


def test_a_machine_fault_goes_by_name():
    """Only the servers that match do not boot."""
    faults = Faults()
    faults.add(MachineFault(name="arm64-*", mode="dead"))

    assert (faults.machine("arm64-1"), faults.machine("amd64-1")) == ("dead", None)


def test_a_failed_transaction_leaves_nothing(tmp_path):
    """Neither in memory nor on disk."""
    store = Store(tmp_path / "cloud.sqlite")
    with store.transaction():
        store.put(KEY)

    def fail():
        with store.transaction():
            store.put(replace(KEY, name="other"))
            store.put(replace(KEY, id=2))
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert store.all(SshKey) == (KEY,)
    store.close()
    assert Store(tmp_path / "cloud.sqlite").all(SshKey) == (KEY,)


def test_numbers_are_never_given_twice(tmp_path):
    """Not even after everything was forgotten and the file was opened again."""
    store = Store(tmp_path / "cloud.sqlite")
    with store.transaction():
        first = store.next_id()
        store.clear()
    store.close()

    again = Store(tmp_path / "cloud.sqlite")
    with again.transaction():
        assert again.next_id() == first + 1


def test_a_broken_state_file_is_one_clear_error(tmp_path):
    """It names the file and the cure."""
    (tmp_path / "cloud.sqlite").write_text("not a database, but long enough to look like one" * 50)

    with pytest.raises(
        StoreFailed, match=r"cloud.sqlite: cannot read the local cloud's state .*`reset` makes a new one"
    ):
        Store(tmp_path / "cloud.sqlite")


def test_a_state_file_of_another_version_is_one_clear_error(tmp_path):
    """A kind of record that this version does not know is told like a broken file."""
    Store(tmp_path / "cloud.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "cloud.sqlite")) as file, file:
        file.execute("INSERT INTO record VALUES ('FloatingIp', 1, '{}')")

    with pytest.raises(StoreFailed, match=r"state \('FloatingIp'\); `reset` makes a new one"):
        Store(tmp_path / "cloud.sqlite")


def test_the_state_file_is_nobody_else_s(tmp_path):
    """User data holds a host key, and the folder may be one that others look into."""
    Store(tmp_path / "cloud.sqlite").close()

    assert (tmp_path / "cloud.sqlite").stat().st_mode & 0o777 == 0o600


def test_records_change_only_inside_a_transaction():
    """A forgotten transaction is a fault of the program, found at once."""
    with pytest.raises(RuntimeError):
        Store().put(KEY)
