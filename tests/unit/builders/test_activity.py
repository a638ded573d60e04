"""builders.activity: for whose sake servers stay a little longer, and for how long."""

import pytest

from builders import activity
from builders.activity import Activity
from builders.state import State


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Look again without a pause."""
    monkeypatch.setattr(activity, "_PAUSE_S", 0)


def _drain(*looks, before=None, **options):
    """Drain nodes that are seen to have so many builds, look after look; return what was said, and the looks that were left."""
    said = []
    left = [{node: None if n is None else Activity(builds=n, idle_s=0) for node, n in look.items()} for look in looks]
    activity.drain(lambda: left.pop(0), before or {}, report=said.append, **options)
    return said, left


def _waiting(which, *later):
    first = f"builds under way: {which}; waiting for them, 15 minutes at most"
    return [first, *(f"builds under way: {each}; waiting for them" for each in later)]


def test_builds_are_waited_for_until_the_last_has_ended():
    """A change is told once."""
    said, left = _drain(
        {"amd64-1": 2, "arm64-1": 1}, {"amd64-1": 2, "arm64-1": 1}, {"amd64-1": 1, "arm64-1": 0}, {"amd64-1": 0}, {}
    )

    assert said == _waiting("2 on amd64-1, 1 on arm64-1", "1 on amd64-1")
    assert left == [{}]


def test_a_node_that_is_too_busy_to_answer_builds_on(monkeypatch):
    """Once it has said that it builds; after a minute of silence its server is taken to be gone."""
    before = {"amd64-1": Activity(builds=1, idle_s=0)}
    assert _drain({"amd64-1": 1}, {"amd64-1": None}, {"amd64-1": 0}) == (_waiting("1 on amd64-1"), [])
    assert _drain({"amd64-1": None}, {"amd64-1": 0}, before=before) == (_waiting("1 on amd64-1"), [])

    monkeypatch.setattr(activity, "_SILENCE_S", -1)
    said, _ = _drain({"amd64-1": 1}, {"amd64-1": None}, {})
    assert said == [*_waiting("1 on amd64-1"), "node amd64-1 cannot be asked for its builds"]


@pytest.mark.parametrize("idle", [{}, {"amd64-1": 0}])
def test_where_nothing_is_built_nobody_waits(idle):
    """Nor is anything said."""
    assert _drain(idle) == ([], [])


def test_a_node_that_was_taken_away_is_not_waited_for():
    """Somebody else may have done that since the plan was made."""
    assert _drain({}, before={"amd64-1": Activity(builds=1, idle_s=0)}) == ([], [])


def test_a_node_that_has_never_answered_is_told_and_not_waited_for():
    """Its server may be gone."""
    assert _drain({"amd64-1": None}) == (["node amd64-1 cannot be asked for its builds"], [])


def test_a_build_without_end_is_given_up():
    """It would cost money for ever."""
    said, _ = _drain({"amd64-1": 1}, {"amd64-1": 1}, patience_s=-1)

    assert said == ["builds still under way: 1 on amd64-1; going on without them"]


def test_a_stack_without_nodes_needs_no_key():
    """It may never have come so far as to have one."""
    assert activity.look(State.from_json("{}")) == {}


@pytest.mark.parametrize(
    ("told", "builds", "idle_s"),
    [
        ("COMPLETE 1000\nCOMPLETE 1700\nCOMPLETE 1200\nNOW 1760 900\n", 0, 60),
        ("STARTED \nSTARTED \nCOMPLETE 1000\nNOW 1760 900\n", 2, 0),
        ("COMPLETE 1000\nNOW 1760 300\n", 0, 300),  # it was off in between
        ("NOW 1760 900\n", 0, 900),  # a history has an end
        ("COMPLETE 1770\nNOW 1760 900\n", 0, 0),
    ],
)
def test_what_a_node_tells_of_its_builds(told, builds, idle_s):
    """Its last build is the one that ended last; a clock that was set back makes none of the future."""
    assert activity.read(told) == Activity(builds=builds, idle_s=idle_s)


@pytest.mark.parametrize("told", ["", "bash: no buildctl\n", "COMPLETE 1000\n", "STARTED\nLATER 1 2\n"])
def test_what_is_no_history_is_refused(told):
    """It is not taken for a node that builds nothing."""
    with pytest.raises(ValueError, match=r"unpack|bash|LATER"):
        activity.read(told)
