"""builders.draining: for whose sake servers stay a little longer, and for how long."""

import pytest

from builders import draining
from builders.state import State


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Look again without a pause."""
    monkeypatch.setattr(draining, "_PAUSE_S", 0)


def _wait(*looks, **options):
    said, left = [], list(looks)
    draining.wait(left.pop(0), lambda: left.pop(0), report=said.append, **options)
    return said, left


def test_builds_are_waited_for_until_the_last_has_ended():
    """A change is told once; a node that has come to be out of reach keeps nobody waiting."""
    said, left = _wait(
        {"amd64-1": 2, "arm64-1": 1}, {"amd64-1": 2, "arm64-1": 1}, {"amd64-1": 1, "arm64-1": None}, {"amd64-1": 0}, {}
    )

    assert said == [
        f"builds under way: {which}; waiting for them, nothing is removed before"
        for which in ("2 on amd64-1, 1 on arm64-1", "1 on amd64-1")
    ]
    assert left == [{}]


@pytest.mark.parametrize("idle", [{}, {"amd64-1": 0}, {"amd64-1": None}])
def test_where_nothing_is_built_nobody_waits(idle):
    """Nor where a node cannot be asked: its server may be gone."""
    assert _wait(idle) == ([], [])


def test_a_build_without_end_is_given_up():
    """It would cost money for ever."""
    said, _ = _wait({"amd64-1": 1}, {"amd64-1": 1}, patience_s=-1)

    assert said == ["builds still under way: 1 on amd64-1; going on without them"]


def test_a_stack_without_nodes_needs_no_key():
    """It may never have come so far as to have one."""
    assert draining.count(State.from_json("{}")) == {}
