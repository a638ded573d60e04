"""Ways in to a cluster: what is wrong with a kubeconfig is told in one line."""

from __future__ import annotations

import ssl
import subprocess

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


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("cluster", {"proxy-url": "socks5://127.0.0.1:1080"}),
        ("user", {"auth-provider": {"name": "oidc"}}),
        ("user", {"username": "admin", "password": "secret"}),
        ("user", {"as": "somebody", "token": "t"}),
    ],
)
def test_what_of_a_kubeconfig_is_not_supported_is_refused_by_its_name(tmp_path, section, field):
    """Else the way would lead elsewhere, or in as somebody else."""
    config = _config()
    config[f"{section}s"][0][section] |= field

    with pytest.raises(PlaceUnreachable, match=f"{next(iter(field))} of its {section} is not supported") as refused:
        cluster.from_kubeconfig(_written(tmp_path, config), "")
    assert "name a context whose" in refused.value.hint


def test_one_kubeconfig_is_read_and_no_list(tmp_path, monkeypatch):
    """The first file alone would be another way in than kubectl's."""
    path = _written(tmp_path, _config(token="secret"))
    monkeypatch.setenv("KUBECONFIG", f"{path}:{tmp_path / 'more'}")

    with pytest.raises(PlaceUnreachable, match=r"KUBECONFIG lists 2 files") as refused:
        cluster.from_kubeconfig("", "")
    assert "--kubeconfig FILE" in refused.value.hint
    assert cluster.from_kubeconfig(path, "").token() == "secret"
    monkeypatch.setenv("KUBECONFIG", f"{path}:")
    assert cluster.from_kubeconfig("", "").token() == "secret"


def test_the_way_is_the_kubeconfig_s_alone(tmp_path, monkeypatch, serving):
    """Requests and commands go to the server without the environment's proxy, and its certificate is for `tls-server-name`."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    named = ["-subj", "/CN=api", "-addext", "subjectAltName=DNS:api.example"]
    pem = tmp_path / "pem"
    subprocess.run([*made, *named, "-keyout", pem, "-out", tmp_path / "ca"], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "ca").read_text())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "elsewhere.example")  # where it is empty, loopback is taken for listed
    config = _config()
    section = config["clusters"][0]["cluster"]

    with serving({"/api": {"kind": "APIVersions"}}, context) as server:
        section |= {"server": server, "certificate-authority": "ca", "tls-server-name": "api.example"}
        api = cluster.Api(cluster.from_kubeconfig(_written(tmp_path, config), ""))

        assert api.call("GET", "/api") == (200, {"kind": "APIVersions"})
        with pytest.raises(
            AccessDenied, match=r"no command may be run in it .no right to /api/v1/namespaces/apps/pods/p/"
        ):
            api.exec("apps", "p", "registry", ["true"], stdin=b"", timeout_s=5)
        del section["tls-server-name"]
        with pytest.raises(PlaceUnreachable, match="IP address mismatch"):
            cluster.Api(cluster.from_kubeconfig(_written(tmp_path, config), "")).call("GET", "/api")


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
