"""Invite, connect, status and disconnect on one machine: real buildx, and nodes that speak mutual TLS as buildkitd does."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from builders import access, buildx, certificates, cli, credentials, greeting, registration, status
from builders.certificates import Authority
from builders.errors import BuildxFailed, InvalidSetting, NodeUnreachable, StackFailed
from builders.inventory import Bundle, Endpoint
from builders.state import State
from infra.resources.buildx import _BuildxBuilderProvider

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(not shutil.which("buildx"), reason="this host lacks buildx (run scripts/setup)"),
]

NOW = datetime.now(UTC)
SETTINGS_FRAME = b"\0\0\0\4\0\0\0\0\0"
NODE = {"name": "amd64-1", "platform": "linux/amd64"}


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    """Give the user an empty configuration."""
    for name in ("BUILDX_CONFIG", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


@pytest.fixture(scope="module")
def authority():
    """The stack's authority."""
    return certificates.create_authority("slipway-dev", now=NOW, days=100)


@contextmanager
def serving(authority, folder, *, since=NOW, days=30, clients=None):
    """Serve as a buildkitd does: TLS with a client certificate of the authority, HTTP/2, the settings first."""
    key = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    csr = subprocess.run(
        ["openssl", "req", "-new", "-key", "/dev/stdin", "-subj", "/CN=node"],
        check=True, capture_output=True, text=True, input=key,
    ).stdout  # fmt: skip
    certificate = certificates.sign_server(csr, authority, name="node", addresses=["127.0.0.1"], now=since, days=days)
    folder.mkdir(exist_ok=True)
    (folder / "node.pem").write_text(certificate + key)
    (folder / "clients.pem").write_text((clients or authority).certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "clients.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "node.pem")
    context.set_alpn_protocols(["h2"])

    def answer(listening):
        while True:
            try:
                raw, _ = listening.accept()
            except OSError:
                return
            with suppress(OSError), raw, context.wrap_socket(raw, server_side=True) as connection:
                if connection.recv(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
                    connection.sendall(SETTINGS_FRAME)
                    connection.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,), daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def stack(authority, *nodes, up=True):
    """Return the state of a stack with these nodes, all in one builder."""
    told = [
        {
            **node, "address": node["endpoint"].split("//")[1].split(":")[0], "host_key": "ssh-ed25519 A",
            "certificate_expires": "2027-01-01T00:00:00+00:00", "buildkit_version": "v0.32.2",
            "server_type": "cx33", "location": "fsn1",
        }
        for node in nodes
    ]  # fmt: skip
    outputs = {
        "authority": authority.certificate, "authorityKey": authority.key, "nodes": told,
        "builders": {"slipway-dev": [{key: node[key] for key in ("name", "endpoint", "platform")} for node in nodes]} if nodes else {},
    }  # fmt: skip
    root = {
        "urn": "urn:pulumi:dev::slipway::pulumi:pulumi:Stack::slipway-dev",
        "type": "pulumi:pulumi:Stack",
        "outputs": outputs,
    }
    servers = [
        {
            "urn": f"urn:pulumi:dev::slipway::hcloud:index/server:Server::{node['name']}",
            "type": "hcloud:index/server:Server", "id": "1", "outputs": {"ipv4Address": node["address"]},
        }
        for node in told
    ]  # fmt: skip
    return State.from_json(json.dumps({"deployment": {"resources": [root, *(servers if up else [])]}}))


def test_an_invitation_makes_a_second_user_able_to_build(authority, tmp_path, monkeypatch):
    """With the bundle alone, in an empty configuration, for the time that was said."""
    with serving(authority, tmp_path / "node") as endpoint:
        state = stack(authority, {**NODE, "endpoint": endpoint})
        text = access.invite(state, "alice", lifetime=timedelta(hours=12), now=NOW).to_text()
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "alice"))

        assert access.connect_bundle(Bundle.from_text(text), now=NOW) == ("slipway-dev",)

        held = credentials.read("slipway-dev")
        assert certificates.subject(held.leaf.certificate) == "alice"
        assert certificates.expires(held.leaf.certificate) == (NOW + timedelta(hours=12)).replace(microsecond=0)
        assert [(each.name, each.endpoint) for each in buildx.find("slipway-dev")] == [("amd64-1", endpoint)]
        found = status.of_machine(now=NOW)
    assert [(each.node, each.reachable, each.error) for each in found.nodes] == [("amd64-1", True, None)]
    assert found.connected == {"slipway-dev": 1}


def test_connect_tells_what_to_type_on_the_platforms_that_there_are(authority, tmp_path, capsys):
    """A builder without ARM64 nodes is not asked for ARM64."""
    state = stack(authority, {**NODE, "endpoint": "tcp://127.0.0.1:1234"})
    bundle = tmp_path / "alice.slipway"
    bundle.write_text(access.invite(state, "alice", lifetime=timedelta(hours=12), now=NOW).to_text())

    assert cli.main(["connect", str(bundle)]) == 0
    assert capsys.readouterr().out == "docker buildx build --builder slipway-dev --platform linux/amd64 .\n"


def test_connecting_again_changes_nothing_and_disconnecting_leaves_nothing(authority):
    """Other builders of this user are not touched by either."""
    subprocess.run(
        ["buildx", "create", "--name", "mine", "--driver", "remote", "tcp://127.0.0.1:1"], check=True, capture_output=True
    )  # fmt: skip
    state = stack(authority, {**NODE, "endpoint": "tcp://127.0.0.1:1234"})
    access.connect_operator(state, now=NOW)
    first = credentials.read("slipway-dev")

    access.connect_operator(state, now=NOW)
    assert credentials.read("slipway-dev") == first

    assert access.disconnect([], everything=False) == ("slipway-dev",)
    assert (buildx.find("slipway-dev"), credentials.builders()) == (None, ())
    assert access.disconnect([], everything=False) == ()
    shown = subprocess.run(
        ["buildx", "inspect", "mine", "--timeout", "1ns"], capture_output=True, text=True, check=False
    )
    assert "tcp://127.0.0.1:1" in shown.stdout


def test_an_invitation_that_ended_or_was_tampered_with_is_refused(authority):
    """Before anything is written."""
    state = stack(authority, {**NODE, "endpoint": "tcp://127.0.0.1:1234"})
    bundle = access.invite(state, "alice", lifetime=timedelta(hours=1), now=NOW)
    other = access.invite(state, "bob", lifetime=timedelta(hours=1), now=NOW)

    with pytest.raises(InvalidSetting, match="bundle: it ended on ") as caught:
        access.connect_bundle(bundle, now=NOW + timedelta(hours=2))
    assert caught.value.hint == "ask for a new one: slipway invite alice"
    mixed = Bundle(
        name="alice",
        builders=bundle.builders,
        authority=bundle.authority,
        certificate=bundle.certificate,
        key=other.key,
    )
    with pytest.raises(InvalidSetting, match="do not belong together"):
        access.connect_bundle(mixed, now=NOW)
    assert credentials.builders() == ()


def test_an_invitation_to_a_platform_that_nobody_rents_leaves_nothing_behind(authority):
    """It is read to its end before anything is written."""
    state = stack(authority, {**NODE, "platform": "linux/riscv64", "endpoint": "tcp://127.0.0.1:1234"})

    with pytest.raises(InvalidSetting, match="platform 'linux/riscv64'"):
        access.connect_bundle(access.invite(state, "alice", lifetime=timedelta(hours=1), now=NOW), now=NOW)
    assert credentials.builders() == ()


def test_another_stacks_builder_of_the_same_name_is_not_taken_over(authority):
    """Nor a builder that the user made without slipway."""
    state = stack(authority, {**NODE, "endpoint": "tcp://127.0.0.1:1234"})
    access.connect_operator(state, now=NOW)
    other = certificates.create_authority("slipway-dev", now=NOW)

    with pytest.raises(InvalidSetting, match="connected to another stack's builder of this name") as caught:
        access.connect_operator(stack(other, {**NODE, "endpoint": "tcp://127.0.0.1:9"}), now=NOW)
    assert caught.value.hint.startswith("if it is no longer wanted: slipway disconnect slipway-dev")
    with pytest.raises(InvalidSetting, match="connected to another stack's builder of this name"):
        registration.register_operator("slipway-dev", [], other, now=NOW)  # as `pulumi up` does
    access.disconnect(["slipway-dev"], everything=False)
    subprocess.run(
        ["buildx", "create", "--name", "slipway-dev", "--driver", "remote", "tcp://127.0.0.1:1"], check=True, capture_output=True
    )  # fmt: skip
    with pytest.raises(BuildxFailed, match="buildx knows another builder of this name"):
        access.connect_operator(state, now=NOW)
    assert credentials.builders() == ()  # which would say that this machine is connected


def test_taking_down_ones_own_stack_leaves_another_stacks_builder_of_the_same_name(authority):
    """Also where its own registration was refused for that; what is its own goes."""
    mine = certificates.create_authority("slipway-dev", now=NOW, days=100)
    provider = _BuildxBuilderProvider()
    leaf = certificates.issue_client(authority, "ada", now=NOW, days=1)
    registration.register("dev", [Endpoint(endpoint="tcp://127.0.0.1:9", **NODE)], authority.certificate, leaf)

    provider.delete("dev", {"builder": "dev", "authority": mine.certificate})
    assert (credentials.builders(), buildx.find("dev") is None) == (("dev",), False)

    provider.delete("dev", {"builder": "dev", "authority": authority.certificate})
    assert (credentials.builders(), buildx.find("dev")) == ((), None)


def test_where_buildx_is_gone_the_rest_of_a_stack_can_be_taken_down(authority, monkeypatch, capsys):
    """It is told, and the credentials go; a server that stayed for it would go on costing."""
    leaf = certificates.issue_client(authority, "ada", now=NOW, days=1)
    registration.register("dev", [Endpoint(endpoint="tcp://127.0.0.1:9", **NODE)], authority.certificate, leaf)
    monkeypatch.setenv("PATH", "/nonexistent")

    _BuildxBuilderProvider().delete("dev", {"builder": "dev", "authority": authority.certificate})

    assert capsys.readouterr().err == (
        "dev is still in this machine's buildx: buildx: neither `docker buildx` nor `buildx` can be run\n"
    )
    assert credentials.builders() == ()


@pytest.mark.parametrize("name", ["", "-x", "a b", "a" * 64, "a/b", "../a"])
def test_names_that_no_certificate_can_bear_are_refused(authority, name):
    """The name is also the file's."""
    with pytest.raises(InvalidSetting, match="is no name to invite"):
        access.invite(stack(authority), name, lifetime=timedelta(days=1), now=NOW)


def test_no_invitation_outlives_the_authority(authority):
    """It would end earlier than it says."""
    state = stack(authority, {**NODE, "endpoint": "tcp://127.0.0.1:1234"})

    with pytest.raises(InvalidSetting, match="--for: the stack's authority ends before that"):
        access.invite(state, "alice", lifetime=timedelta(days=101), now=NOW)


def test_a_stack_that_never_came_up_has_nothing_to_connect_to(authority):
    """The line names the command."""
    with pytest.raises(StackFailed) as caught:
        access.connect_operator(stack(authority), now=NOW)
    assert (str(caught.value), caught.value.hint) == ("the stack has no builders yet", "bring it up first: slipway up")


def test_which_builders_to_disconnect_has_to_be_said_where_there_are_several(authority):
    """An unknown one is told beside those that there are."""
    leaf = certificates.issue_client(authority, "me", now=NOW, days=1)
    for builder in ("one", "two"):
        credentials.write(builder, authority.certificate, leaf)

    with pytest.raises(InvalidSetting, match="connected to several builders: name them, or --all"):
        access.disconnect([], everything=False)
    with pytest.raises(InvalidSetting, match="three: not connected on this machine") as caught:
        access.disconnect(["three"], everything=False)
    assert caught.value.hint == "connected: one, two"
    assert access.disconnect([], everything=True) == ("one", "two")


def test_status_asks_all_nodes_at_once_and_one_that_is_silent_hides_no_other(authority, tmp_path):
    """A machine that is not connected asks with a passing certificate; the days are those of the node's own."""
    with ExitStack() as servers:
        answering = servers.enter_context(serving(authority, tmp_path / "node", days=30))
        silent = servers.enter_context(socket.create_server(("127.0.0.1", 0)))
        nodes = [
            {"name": "arm64-1", "platform": "linux/arm64", "endpoint": f"tcp://127.0.0.1:{silent.getsockname()[1]}"},
            {**NODE, "endpoint": answering},
        ]
        began = datetime.now(UTC)
        found = status.of_stack(stack(authority, *nodes), now=NOW)

    assert [(each.node, each.reachable, each.certificate_days_left, each.error) for each in found.nodes] == [
        ("arm64-1", False, None, "no answer in time"),
        ("amd64-1", True, 30, None),
    ]
    assert found.connected == {"slipway-dev": None}
    assert datetime.now(UTC) - began < timedelta(seconds=status.DEADLINE_S + 3)
    assert credentials.builders() == ()


def test_a_colleague_in_the_project_sees_what_their_machine_is_connected_to(authority, tmp_path, monkeypatch, capsys):
    """Without login, stack or passphrase; with a stack named, it says why that cannot be read."""
    (tmp_path / "Pulumi.yaml").write_text("name: slipway\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "pulumi"))
    for name in ("PULUMI_BACKEND_URL", "PULUMI_STACK", "PULUMI_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving(authority, tmp_path / "node") as endpoint:
        access.connect_operator(stack(authority, {**NODE, "endpoint": endpoint}), now=NOW)

        assert cli.main(["status", "--format", "json"]) == 0
        out, err = capsys.readouterr()
        assert cli.main(["status", "--stack", "dev"]) == 1

    assert [node["reachable"] for node in json.loads(out)["nodes"]] == [True]
    assert err.endswith("; showing what this machine is connected to\n")
    assert capsys.readouterr().err.startswith("error: pulumi")


def test_a_stack_that_is_down_has_no_nodes_to_ask(authority):
    """Its outputs still name them."""
    state = stack(authority, {**NODE, "endpoint": "tcp://127.0.0.1:1"}, up=False)

    assert status.of_stack(state, now=NOW).nodes == ()


@pytest.mark.parametrize("undo", ["removed from buildx", "at another address", "of another stack", "without buildx"])
def test_a_machine_is_connected_if_it_can_build_on_the_stacks_nodes_as_they_are(authority, undo, tmp_path, monkeypatch):
    """A certificate alone does not make it so; the nodes are asked all the same, with a passing one where need be."""
    other = certificates.create_authority("slipway-dev", now=NOW)
    with serving(authority, tmp_path / "node") as endpoint:
        state = stack(authority, {**NODE, "endpoint": endpoint})
        known = stack(other if undo == "of another stack" else authority, {
            **NODE, "endpoint": "tcp://127.0.0.1:1" if undo == "at another address" else endpoint
        })  # fmt: skip
        access.connect_operator(known, now=NOW)
        if undo == "removed from buildx":
            buildx.unregister("slipway-dev")
        if undo == "without buildx":
            monkeypatch.setenv("PATH", "/nonexistent")

        found = status.of_stack(state, now=NOW)

    assert [(each.node, each.reachable) for each in found.nodes] == [("amd64-1", True)]
    assert found.connected == {"slipway-dev": None}


def test_without_buildx_a_colleague_is_told_so(authority, tmp_path, monkeypatch, capsys):
    """Not that there is nothing to see: what this machine is connected to only buildx can tell."""
    access.connect_operator(stack(authority, {**NODE, "endpoint": "tcp://127.0.0.1:1"}), now=NOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")

    assert cli.main(["status"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "error: buildx: neither `docker buildx` nor `buildx` can be run")
    assert cli.main(["status", "-s", "dev"]) == 1
    assert capsys.readouterr().err.startswith("error: .: this is not in a Slipway project\n")


def test_a_machine_whose_builders_buildx_has_lost_is_told_so(authority, tmp_path, monkeypatch, capsys):
    """It can build nothing, so status fails; where it never was connected, only what a registry did not say is unknown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"127.0.0.1:{closed.getsockname()[1]}/app"
    assert cli.main(["status", nowhere, "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert "\nslipway: this machine is connected to no builder\n" in err
    [unknown] = json.loads(out)["lagging_unknown"]
    assert unknown["reference"] == nowhere
    assert f"error: {unknown['error']}; which tags lag behind there is not known" in err
    credentials.write("lost", authority.certificate, certificates.issue_client(authority, "ada", now=NOW, days=1))

    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "slipway: buildx does not know lost any more; connect again"


def test_a_builder_that_buildx_has_lost_hides_no_other(authority, tmp_path):
    """And is not one that this machine is connected to."""
    leaf = certificates.issue_client(authority, "ada", now=NOW, days=1)
    with serving(authority, tmp_path / "node") as endpoint:
        registration.register("dev", [Endpoint(endpoint=endpoint, **NODE)], authority.certificate, leaf)
        credentials.write("lost", authority.certificate, leaf)

        found = status.of_machine(now=NOW)

    assert [(each.builder, each.reachable) for each in found.nodes] == [("dev", True)]
    assert found.connected == {"dev": 1, "lost": None}


def test_a_buildx_that_cannot_tell_the_versions_hides_no_node(authority, tmp_path, monkeypatch):
    """It waits for the nodes' own answers, and may fail; what is registered it tells all the same."""
    slow = tmp_path / "slow" / "buildx"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ncase "$*" in *5.0s*) exit 1 ;; esac\nexec {shutil.which("buildx")} "$@"\n')
    slow.chmod(0o755)
    with serving(authority, tmp_path / "node") as endpoint:
        access.connect_operator(stack(authority, {**NODE, "endpoint": endpoint}), now=NOW)
        monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")

        found = status.of_machine(now=NOW)

    assert [(each.node, each.reachable, each.buildkit) for each in found.nodes] == [("amd64-1", True, None)]


def _hold(authority, folder):
    leaf = certificates.issue_client(authority, "me", now=NOW, days=1)
    folder.mkdir()
    for name, content in (("ca.pem", authority.certificate), ("cert.pem", leaf.certificate), ("key.pem", leaf.key)):
        (folder / name).write_text(content)
    return folder


def test_why_a_node_cannot_be_reached_is_told_apart(authority, tmp_path):
    """Nobody there, a stranger there, and a node that does not let us in."""
    stranger = certificates.create_authority("another", now=NOW)
    ours = _hold(authority, tmp_path / "ours")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(NodeUnreachable, match="connection refused"):
        greeting.greet(f"tcp://127.0.0.1:{port}", ours)
    with (
        serving(Authority(certificate=stranger.certificate, key=stranger.key), tmp_path / "a") as endpoint,
        pytest.raises(NodeUnreachable, match="its certificate is not this stack's"),
    ):
        greeting.greet(endpoint, ours)
    with (
        serving(authority, tmp_path / "b", clients=stranger) as endpoint,
        pytest.raises(NodeUnreachable, match="it refused this machine's certificate"),
    ):
        greeting.greet(endpoint, ours)


@pytest.mark.parametrize(
    ("since", "reason"),
    [(timedelta(days=-10), "its certificate has expired"), (timedelta(days=2), "its certificate is not yet valid")],
)
def test_a_nodes_certificate_that_is_not_valid_now_is_no_strangers(authority, since, reason, tmp_path):
    """It is the stack's own: `slipway up` renews it, or a clock is wrong."""
    with (
        serving(authority, tmp_path / "node", since=NOW + since, days=5) as endpoint,
        pytest.raises(NodeUnreachable, match=f"^{reason}$"),
    ):
        greeting.greet(endpoint, _hold(authority, tmp_path / "ours"))


@pytest.mark.parametrize("damage", ["", "nonsense", None])
def test_a_certificate_of_this_machine_that_cannot_be_used_is_not_laid_to_the_node(authority, damage, tmp_path):
    """No node has refused it: none was asked."""
    ours = _hold(authority, tmp_path / "ours")
    (ours / "key.pem").unlink()
    if damage is not None:
        (ours / "key.pem").write_text(damage)

    with pytest.raises(NodeUnreachable, match=r"^this machine's certificate is gone or damaged, connect again$"):
        greeting.greet("tcp://127.0.0.1:1", ours)
