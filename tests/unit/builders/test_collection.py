"""builders.collection: what `slipway gc` has to be told of the stack's own registry."""

from pathlib import Path

import pytest

from builders import collection
from builders.errors import StackFailed
from builders.state import State

TOLD = {"arguments": ["198.51.100.8:30500", "--namespace", "images"], "ca": "", "kubeconfig": None}


def _state(**told):
    outputs = {"registryCollection": {**TOLD, **told}} if told else {}
    return State(resources=(), pending=(), outputs=outputs)


def test_a_path_is_the_operators_and_content_is_lent(tmp_path, monkeypatch):
    """The home folder is the operator's own; files of ours are gone afterwards, and nobody else could read them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with collection.arguments(_state(kubeconfig="~/.kube/prod")) as words:
        assert words == [*TOLD["arguments"], "--kubeconfig", f"{tmp_path}/.kube/prod"]

    with collection.arguments(_state(kubeconfig='{"apiVersion": "v1"}', ca="PEM")) as words:
        authority, place = Path(words[-3]), Path(words[-1])
        assert (words[-4], authority.read_text()) == ("--ca", "PEM")
        assert (words[-2], place.read_text()) == ("--kubeconfig", '{"apiVersion": "v1"}')
        assert place.parent.stat().st_mode & 0o77 == 0
    assert not authority.exists()
    assert not place.exists()


def test_a_stack_without_a_registry_says_so():
    """And how to collect another one."""
    with pytest.raises(StackFailed, match="tells of no registry") as raised, collection.arguments(_state()):
        pass
    assert "slipway:registry" in raised.value.hint


def test_where_there_are_users_one_can_log_in():
    """Any of them may pull, which is all that a collection does by its login but for backups, which each may push."""
    assert collection.user(_state()) is None
    users = {"ada": "secret", "ci": "other"}
    assert collection.user(State(resources=(), pending=(), outputs={"registryUsers": users})) == ("ada", "secret")
