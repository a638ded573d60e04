"""builders.lifecycle: when servers go, with builds under way and users that come meanwhile."""

import json
from contextlib import ExitStack

import pytest

from builders import activity, lease
from builders.activity import Activity
from builders.errors import StackFailed
from builders.lifecycle import Lifecycle
from builders.state import State

NODE = dict.fromkeys(
    ("platform", "endpoint", "host_key", "certificate_expires", "buildkit_version", "server_type", "location"), ""
) | {"name": "amd64-1", "address": "198.51.100.10"}


def _state(servers, key):
    stack = {"urn": "urn:pulumi:dev::slipway::pulumi:pulumi:Stack::dev", "type": "pulumi:pulumi:Stack"}
    stack["outputs"] = {"id": "id-1", "nodes": [NODE], "sshKey": key}
    made = [
        {
            "urn": f"urn:pulumi:dev::slipway::hcloud:index/server:Server::{name}",
            "type": "hcloud:index/server:Server",
            "id": name,
            "outputs": {"ipv4Address": NODE["address"]},
        }
        for name in servers
    ]
    return State.from_json(json.dumps({"deployment": {"resources": [stack, *made]}}))


class Stack:
    """A stack of one server, and what was done with it."""

    def __init__(self, *servers):
        self.servers = servers
        self.done = []

    def load(self, *, secrets=False):
        return _state(self.servers, "key" if secrets else None)

    def update(self):
        self.done.append("up")
        self.servers = ("1",)

    def destroy(self):
        self.done.append("destroy")
        self.servers = ()


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Give the test locks of its own, and let it look again without a pause."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(activity, "_PAUSE_S", 0)


@pytest.fixture
def building(monkeypatch):
    """Have the node build for that many looks: `building(stack, 1)`; `meanwhile` is done in the first one."""

    def arrange(stack, looks, meanwhile=lambda: None):
        left = [1] * looks + [0]

        def look(state):
            assert state.outputs["sshKey"] == "key"
            if len(left) == looks + 1:
                meanwhile()
            stack.done.append(f"saw {left[0]}")
            return {"amd64-1": Activity(builds=left.pop(0) if len(left) > 1 else left[0], idle_s=0)}

        monkeypatch.setattr(activity, "look", look)
        return Lifecycle(stack=stack, environment={}, report=lambda _: None)

    return arrange


def test_down_waits_for_builds_that_began_after_it_was_planned(building):
    """Who answers its question may take his time."""
    stack = Stack("1")
    lifecycle = building(stack, 2)

    lifecycle.down(lifecycle.plan_down(look=False))
    assert stack.done == ["saw 1", "saw 1", "saw 0", "destroy"]


def test_who_does_not_want_to_wait_does_not_ask(building):
    """Also where a node cannot be reached, which takes a while to see."""
    stack = Stack("1")
    lifecycle = building(stack, 2)

    lifecycle.down(lifecycle.plan_down(look=False), drain=False)
    assert stack.done == ["destroy"]


def test_a_use_that_begins_during_the_wait_ends_the_down(building):
    """Or it would lose its builders between two builds."""
    stack = Stack("1")
    with ExitStack() as uses:
        lifecycle = building(stack, 1, lambda: uses.enter_context(lease.taken("id-1", waiting=pytest.fail)))
        with pytest.raises(StackFailed, match="uses the builders"):
            lifecycle.down(lifecycle.plan_down(look=False))
    assert stack.done == ["saw 1", "saw 0"]


def test_the_end_of_a_use_waits_for_the_builds_of_others(building):
    """Its own have ended with its command."""
    stack = Stack()
    lifecycle = building(stack, 1)

    assert lifecycle.use(lambda _: (3, False)) == 3
    assert stack.done == ["up", "saw 1", "saw 0", "destroy"]


def test_after_a_signal_nobody_is_waited_for(building):
    """Who was told to end has little time left, and servers cost."""
    stack = Stack()
    lifecycle = building(stack, 1)

    assert lifecycle.use(lambda _: (130, True)) == 130
    assert stack.done == ["up", "destroy"]


def test_builders_that_somebody_wants_up_during_the_wait_stay_up(building):
    """As after an `up` before it."""
    stack = Stack()
    lifecycle = building(stack, 1, lambda: lease.keep("id-1"))

    assert lifecycle.use(lambda _: (0, False)) == 0
    assert stack.done == ["up", "saw 1", "saw 0"]


def test_a_user_beside_another_leaves_without_waiting(building):
    """The other one takes the builders down, and waits then."""
    stack = Stack()
    lifecycle = building(stack, 1)

    with lease.taken("id-1", waiting=pytest.fail):
        assert lifecycle.use(lambda _: (0, False)) == 0
    assert stack.done == ["up"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, StackFailed("no passphrase")])
def test_who_ends_the_wait_does_not_leave_the_builders_up(building, trouble):
    """A signal says that there is no time, not that servers may go on costing."""
    stack = Stack()

    def interrupt():
        raise trouble

    assert building(stack, 1, interrupt).use(lambda _: (0, False)) == 0
    assert stack.done == ["up", "destroy"]


def test_builders_that_were_built_on_since_they_were_seen_idle_stay(building):
    """The build has ended, but somebody is at work."""
    stack = Stack("1")
    lifecycle = building(stack, 0)
    plan = lifecycle.plan_down(look=False)

    with pytest.raises(StackFailed, match="not idle any more, so nothing was removed: amd64-1"):
        lifecycle.down(plan, idle_s=60)
    assert stack.done == ["saw 0"]


def test_a_server_without_a_node_cannot_be_asked(building):
    """As after an `up` that failed on the way."""
    stack = Stack("1", "2")

    assert building(stack, 0).plan_down().nodes == {"1": None, "2": None, "amd64-1": Activity(builds=0, idle_s=0)}
