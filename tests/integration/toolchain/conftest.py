"""Stacks about the local cloud's API, and about a real API server without a cluster behind it.

That is etcd, kube-apiserver, and of the controllers those that end objects.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from tests.integration.conftest import PulumiStack, make_stack

TOKEN = "of-the-tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Where it is, and the requests of somebody who acts for the controllers that are not there."""

    url: str
    kubeconfig: Path
    ca: Path

    def call(self, method: str, path: str, body: Any = None, content: str = "application/merge-patch+json") -> Any:
        """Send a request as the administrator; None for what is not there."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        if body is not None:
            headers["Content-Type"] = content if method == "PATCH" else "application/json"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=headers, data=data)
        trust = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, context=trust, timeout=20) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(error.read().decode()) from error


def _free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session", name="api_server")
def _api_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kubernetes")
    tools = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway" / "go" / "kubernetes"
    assert (tools / "kube-apiserver").exists(), "no kube-apiserver: run scripts/setup"
    client_port, peer_port, port = _free_port(), _free_port(), _free_port()
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    key = ["openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048"]
    subprocess.run(key, check=True, capture_output=True)
    etcd = [
        tools / "etcd", f"--data-dir={folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{client_port}",
        f"--advertise-client-urls=http://127.0.0.1:{client_port}", f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        "--unsafe-no-fsync", "--log-level=error",
    ]  # fmt: skip
    server = [
        tools / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{client_port}", f"--secure-port={port}",
        "--bind-address=127.0.0.1", "--advertise-address=198.51.100.1",  # any: it would look for a default route
        f"--cert-dir={folder}/pki", f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
        f"--service-account-key-file={folder}/accounts.key", "--service-cluster-ip-range=10.96.0.0/16",
        f"--service-account-signing-key-file={folder}/accounts.key", "--disable-admission-plugins=ServiceAccount",
        "--service-account-issuer=https://kubernetes.default.svc",
    ]  # fmt: skip
    # What a delete waits for: dependents in the foreground, a claim that no pod uses, what is in a namespace.
    controllers = [
        tools / "kube-controller-manager", f"--kubeconfig={folder}/kubeconfig", "--leader-elect=false", "--secure-port=0",
        "--controllers=garbage-collector-controller,namespace-controller,persistentvolumeclaim-protection-controller",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in (etcd, server)]
        try:
            certificate = folder / "pki" / "apiserver.crt"
            api = ApiServer(url=f"https://127.0.0.1:{port}", kubeconfig=folder / "kubeconfig", ca=certificate)
            _wait(api, folder / "log", processes)
            api.kubeconfig.write_text(json.dumps(_kubeconfig(api)))
            processes.append(subprocess.Popen(controllers, stdout=log, stderr=log))
            yield api
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def _wait(api, log, processes):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert all(process.poll() is None for process in processes), log.read_text()[-2000:]
        try:
            if api.ca.exists() and api.call("GET", "/api/v1/namespaces/default"):
                return
        except (AssertionError, OSError):
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def _kubeconfig(api):
    authority = base64.b64encode(api.ca.read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": api.url, "certificate-authority-data": authority}},
            {"name": "gone", "cluster": {"server": "https://127.0.0.1:9"}},
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [
            {"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}},
            {"name": "gone", "context": {"cluster": "gone", "user": "admin"}},
        ],
        "current-context": "test",
    }


@pytest.fixture(name="kubernetes_stack")
def _kubernetes_stack(kubernetes_stack_for, api_server):
    """Give a stack with the API server as its cluster."""
    return kubernetes_stack_for(api_server.kubeconfig, api_server)


@dataclass(frozen=True, kw_only=True)
class Stack(PulumiStack):
    """A stack, and the cloud that it is about."""

    cloud: Any
    imports: ClassVar[str] = "import pulumi\nimport pulumi_hcloud as hcloud\n"

    def requests(self) -> list[dict[str, Any]]:
        """Return what the cloud was asked since it was last forgotten."""
        return httpx.get(f"{self.cloud.control}/history").json()["requests"]

    def forget(self) -> None:
        """Empty the history."""
        httpx.delete(f"{self.cloud.control}/history")

    def api(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Ask the cloud directly, as somebody with a browser would."""
        headers = {"Authorization": f"Bearer {self.cloud.token}"}
        answer = httpx.request(method, f"{self.cloud.endpoint}{path}", headers=headers, json=body or None)
        return answer.json() if answer.content else {}

    def control(self, method: str, path: str, **body: Any) -> None:
        """Turn a knob of the local cloud."""
        httpx.request(method, f"{self.cloud.control}{path}", json=body).raise_for_status()


@pytest.fixture(name="stack")
def _stack(tmp_path, localcloud):
    stack = make_stack(Stack, tmp_path, project="test", environment={}, cloud=localcloud)
    settings = {"endpoint": localcloud.endpoint, "pollFunction": "constant", "pollInterval": "20ms"}
    plain = [f"--plaintext=hcloud:{name}={value}" for name, value in settings.items()]
    stack.run("config", "set-all", *plain, f"--secret=hcloud:token={localcloud.token}")
    return stack
