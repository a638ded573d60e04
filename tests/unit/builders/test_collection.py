"""builders.collection and `slipway gc` without a registry's name: what has to be told is the stack's."""

from pathlib import Path

import pytest

from builders import cli, collection
from builders.errors import StackFailed
from builders.stack import Stack
from builders.state import State
from scripts.registry import cli as registry

FOUND = {
    "arguments": ["198.51.100.8:30500", "--namespace", "images", "--deployment", "registry", "--context=prod", "--grace=2d"],
    "ca": "PEM",
    "kubeconfig": "~/.kube/prod",
    "kubeconfigContent": "",
}  # fmt: skip


def _state(*, users=None, **found):
    return State(
        resources=(), pending=(), outputs={"registryCollection": {**FOUND, **found}, "registryUsers": users or {}}
    )


@pytest.fixture
def gc(monkeypatch, tmp_path):
    """Run `slipway gc` in a project whose stack has this state; what a collection would be given."""
    (tmp_path / "Pulumi.yaml").write_text("name: slipway\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    given = []

    def run(*words, state=None):
        monkeypatch.setattr(Stack, "load", lambda _self, *, secrets: state or _state())  # noqa: ARG005 - as it is called
        monkeypatch.setattr(registry, "collect", lambda options: given.append(options) or 0)
        assert cli.main(["gc", *words]) == 0
        return given.pop()

    return run


def test_what_is_typed_wins_over_the_stack(gc):
    """Rules, cluster and the rest; the stack's context is one of the stack's kubeconfig."""
    options = gc("--now", "--grace", "3d", "--")
    assert (options.registry, options.namespace, options.deployment) == ("198.51.100.8:30500", "images", "registry")
    assert (options.grace, options.now, options.context) == ("3d", True, "prod")
    assert (options.kubeconfig, options.kubeconfig_content) == (f"{Path.home()}/.kube/prod", "")

    mine = gc("--kubeconfig", "mine", state=_state(kubeconfig="", kubeconfigContent="{}"))
    assert (mine.kubeconfig, mine.kubeconfig_content, mine.context) == ("mine", "", "")


def test_a_kubeconfig_that_is_a_secret_is_in_no_file(gc):
    """It is handed on as it is."""
    options = gc(state=_state(kubeconfig="", kubeconfigContent='{"apiVersion": "v1"}'))

    assert (options.kubeconfig, options.kubeconfig_content) == ("", '{"apiVersion": "v1"}')


def test_the_authority_s_certificate_is_lent():
    """Its file is gone afterwards."""
    with collection.told(_state()) as told:
        authority = Path(told.arguments[-1].removeprefix("--ca="))
        assert authority.read_text() == "PEM"
    assert not authority.exists()


def test_a_user_of_the_stack_logs_in_where_nobody_else_does(gc, tmp_path):
    """Neither what was typed, nor Docker; a configuration of Docker's that cannot be read is no reason to fail."""
    users = {"ada": "secret"}
    assert gc(state=_state(users=users)).username == "ada"
    assert gc("--dry-run", state=_state(users=users)).username == ""  # which asks the registry for nothing
    (tmp_path / "config.json").write_text('{"credsStore": "there-is-none"}')
    assert gc(state=_state(users=users)).username == "ada"
    (tmp_path / "config.json").write_text('{"auths": {"198.51.100.8:30500": {"auth": "Y2k6b3RoZXI="}}}')
    assert gc(state=_state(users=users)).username == ""
    assert "secret" not in repr(collection.Told(arguments=[], kubeconfig_content="secret", login=("ada", "secret")))


@pytest.mark.parametrize("words", [["--deployment", "x"], ["--namespace", "x"], ["--in-cluster"], ["--mode-file", "x"]])
def test_another_place_is_another_registry(gc, words):
    """The stack's host would be a different one."""
    options = gc(*words)

    assert options.registry is None


@pytest.mark.parametrize(
    ("outputs", "says", "hint"),
    [({}, "has no registry", "set slipway:registry"), ({"registry": "x"}, "was brought up before", "slipway up")],
)
def test_a_stack_that_cannot_tell_says_so(outputs, says, hint):
    """Without a registry, and with one of before these outputs."""
    state = State(resources=(), pending=(), outputs=outputs)

    with pytest.raises(StackFailed, match=says) as raised, collection.told(state):
        pass
    assert hint in raised.value.hint
