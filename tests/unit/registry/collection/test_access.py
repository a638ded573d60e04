"""Ways in to a cluster: what is wrong with a kubeconfig is told in one line."""

from __future__ import annotations

import pytest
import yaml

from scripts.registry.collection import cluster
from scripts.registry.errors import AccessDenied, PlaceUnreachable


def _config(**user):
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "apps"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1/prefix/"}}],
        "users": [{"name": "u", "user": user}],
    }


def _written(tmp_path, config):
    file = tmp_path / "config"
    file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return str(file)


def test_a_kubeconfig_is_read(tmp_path, monkeypatch):
    """By its name, or as $KUBECONFIG; a token comes from the user, a file, or a command."""
    path = _written(tmp_path, _config(token="secret"))
    monkeypatch.setenv("KUBECONFIG", path)

    found = cluster.from_kubeconfig("", "")

    assert (found.server, found.namespace, found.token()) == ("http://127.0.0.1:1/prefix", "apps", "secret")
    assert "secret" not in repr(found)
    content = yaml.safe_dump(_config(token="secret"))
    assert cluster.from_kubeconfig("", "", content=content).token() == "secret"
    with pytest.raises(PlaceUnreachable, match="kubeconfig of the stack: context 'there'"):
        cluster.from_kubeconfig("", "there", content=content)


def test_a_login_command_is_run(tmp_path):
    """As cloud providers' kubeconfigs have one."""
    told = '{"status": {"token": "t"}}'
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo", "args": [told]}

    assert cluster.from_kubeconfig(_written(tmp_path, _config(exec=plugin)), "").token() == "t"
    with pytest.raises(AccessDenied, match="its login command false gave no token"):
        cluster.from_kubeconfig(_written(tmp_path, _config(exec=plugin | {"command": "false"})), "").token()


@pytest.mark.parametrize(
    ("config", "context", "said"),
    [
        ("a: [", "", "it cannot be read as one"),
        ("", "", "it cannot be read as one"),
        ({"contexts": []}, "", "current-context is missing"),
        (_config(), "other", "context 'other' is missing"),
        (_config() | {"users": None}, "", "user 'u' is missing"),
    ],
)
def test_a_wrong_kubeconfig_is_told(tmp_path, config, context, said):
    """And which part of it."""
    with pytest.raises(PlaceUnreachable, match=said):
        cluster.from_kubeconfig(_written(tmp_path, config), context)


def test_an_absent_kubeconfig_is_told(tmp_path):
    """With its name."""
    with pytest.raises(PlaceUnreachable, match=r"nowhere: no such file"):
        cluster.from_kubeconfig(str(tmp_path / "nowhere"), "")


def test_outside_a_cluster_there_is_no_service_account():
    """And what to do then."""
    with pytest.raises(PlaceUnreachable, match="this is no pod with a service account"):
        cluster.in_cluster()


def test_an_api_server_that_is_away_is_told(tmp_path, monkeypatch):
    """After a few tries."""
    monkeypatch.setattr(cluster, "_PAUSE_S", 0)
    api = cluster.Api(cluster.from_kubeconfig(_written(tmp_path, _config()), ""))

    with pytest.raises(PlaceUnreachable, match=r"http://127.0.0.1:1/prefix: no answer \(Connection refused\)"):
        api.call("GET", "/api")
