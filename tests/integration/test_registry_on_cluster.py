"""The registry that the program declares, on the local Kubernetes: pods that roll, pushes, the nightly job, the volume."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from builders import certificates
from scripts.localcloud import cluster, network

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(900)]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway"
ADDRESS = "198.51.100.8"
HOST = f"{ADDRESS}:30500"
PROGRAM = """
import json
from infra import registry_setting
from infra.components.registry import Registry
from infra.resources.keys import Authority
from builders import registry_program

authority = Authority("authority", subject="slipway-test", opts=pulumi.ResourceOptions())
setting = registry_setting.parse({setting!r})
registry = Registry(setting, stack="slipway-test", authority=authority, program=registry_program.pack(), protect=False)
pulumi.export("registryUsers", pulumi.Output.secret(registry.users))
pulumi.export("registryCollection", registry.collection)
"""


def _localcloud(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.localcloud", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module", name="kubeconfig")
def _kubeconfig(tmp_path_factory):
    assert network.namespaces() == [], "a local cloud is up on this host: python -m scripts.localcloud down"
    state = str(tmp_path_factory.mktemp("cluster"))
    try:
        _localcloud("up", "--state", state, "--port", _free_port(), "--control-port", _free_port())
        _localcloud("cluster", "--state", state)
        yield cluster.kubeconfig(Path(state))
    finally:
        _localcloud("down", "--state", state)


@pytest.fixture(name="kubectl")
def _kubectl(kubeconfig):
    def run(*arguments):
        command = [
            CACHE / "go/kubernetes/kubectl",
            "--kubeconfig",
            kubeconfig,
            "--namespace",
            "slipway-registry",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


class Client:
    """crane, logged in as ada, trusting the stack's authority alone."""

    def __init__(self, folder, stack):
        told = json.loads(stack.run("stack", "output", "--json", "--show-secrets"))
        (folder / "ca.crt").write_text(told["registryCollection"]["ca"])
        auth = base64.b64encode(f"ada:{told['registryUsers']['ada']}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {HOST: {"auth": auth}}}))
        self.folder = folder
        self.environment = {
            **os.environ,
            "SSL_CERT_FILE": str(folder / "ca.crt"),
            "SSL_CERT_DIR": str(folder / "nothing"),
            "DOCKER_CONFIG": str(folder),
        }

    def crane(self, *arguments, fails=False, **environment):
        """Run crane and return what it printed, or what it complained of."""
        command = [CACHE / "go/crane/crane", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**self.environment, **environment}, check=False
        )
        assert bool(done.returncode) is fails, done.stderr
        return done.stderr if fails else done.stdout

    def push(self, tag, content):
        """Push an image of one layer with one file; return its digest."""
        layer = self.folder / "layer.tar"
        with tarfile.open(layer, "w") as tar:
            member = tarfile.TarInfo("content")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        self.crane("append", "--new_layer", str(layer), "--new_tag", f"{HOST}/app:{tag}")
        return self.crane("digest", f"{HOST}/app:{tag}").strip()


def _slipway(stack, *arguments):
    """Run slipway in the stack's folder, with no login of Docker's."""
    done = subprocess.run(
        [sys.executable, "-m", "builders.cli", "-C", stack.folder, *arguments],
        env={**stack.environment, "DOCKER_CONFIG": str(stack.folder / "nothing")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _collect_by_job(kubectl, name):
    """Run the nightly job now."""
    kubectl("create", "job", "--from=cronjob/registry-gc", name)
    try:
        kubectl("wait", f"job/{name}", "--for=condition=Complete", "--timeout=240s")
    except AssertionError:
        pytest.fail(kubectl("logs", f"job/{name}", "--tail=40") + kubectl("get", "events"))
    assert "tags verified" in kubectl("logs", f"job/{name}")


def _give_certificate(host, secret, kubectl, folder):
    """Put a certificate by another authority into a Secret, as a team's own tools do; the authority's file."""
    now = datetime.now(UTC)
    authority = certificates.create_authority("a team's own", now=now)
    leaf = certificates.issue_server(authority, [host], now=now, days=9)
    for name, content in (("tls.crt", leaf.certificate), ("tls.key", leaf.key), ("team.crt", authority.certificate)):
        (folder / name).write_text(content)
    kubectl("create", "secret", "tls", secret, f"--cert={folder}/tls.crt", f"--key={folder}/tls.key")
    return folder / "team.crt"


def test_the_registry_serves_collects_and_outlives_its_stack(kubeconfig, kubectl, kubernetes_stack_for, tmp_path):
    """From nothing to a push over verified TLS; the job runs with its own rights, and the operator's `slipway gc` needs to be
    told nothing; a Secret of the team's own does for TLS; the images are there after a destroy.
    """
    images = json.loads((CACHE / "cluster/images.json").read_text())
    digests = {name: images[f"docker.io/library/{name}"] for name in ("registry:2", "python:3.11-slim")}
    setting = {
        "host": HOST,
        "context": "localcloud",
        "storage": {"size": "1Gi"},
        "service": {"nodePort": 30500},
        "users": ["ada"],
        "collection": {"grace": "1s"},
        "images": {
            "registry": f"docker.io/library/registry:2@{digests['registry:2']}",
            "python": f"docker.io/library/python:3.11-slim@{digests['python:3.11-slim']}",
        },
    }
    stack = kubernetes_stack_for(kubeconfig)
    stack.write(PROGRAM.format(setting=json.dumps(setting)))

    stack.up()

    client = Client(tmp_path, stack)
    gone = client.push("1", "what no tag needs")
    kept = client.push("1", "what the tag names")
    (tmp_path / "anonymous").mkdir()
    assert "UNAUTHORIZED" in client.crane(
        "digest", f"{HOST}/app:1", fails=True, DOCKER_CONFIG=str(tmp_path / "anonymous")
    )
    again = stack.run("up", "--yes", "--skip-preview", "--refresh")
    assert " updated" not in again
    assert " created" not in again
    assert "registry-gc" in kubectl("get", "cronjobs,networkpolicies", "--output", "name")

    _collect_by_job(kubectl, "tonight")
    assert "MANIFEST_UNKNOWN" in client.crane("manifest", f"{HOST}/app@{gone}", fails=True)
    assert client.crane("digest", f"{HOST}/app:1").strip() == kept
    after = stack.run("up", "--yes", "--skip-preview", "--refresh")
    assert " updated" not in after

    stack.write(PROGRAM.format(setting=json.dumps({**setting, "users": ["ada", "ci"]})))
    stack.up()
    assert client.crane("digest", f"{HOST}/app:1").strip() == kept
    assert client.push("2", "after the roll")
    assert client.push("2", "over it")
    collected = _slipway(stack, "gc", "--now", "--no-backup", "--max-share", "80")
    assert "3 blobs, 1 manifests, 0 tags" in collected

    assert client.push("2", "over that")
    ca = _give_certificate("registry.test", "mine", kubectl, tmp_path)
    named = {**setting, "host": "registry.test:30500", "tls": {"secret": "mine", "ca": ca.read_text()}}
    stack.write(PROGRAM.format(setting=json.dumps(named)))
    stack.up()
    trusting = ssl.create_default_context(cafile=str(ca))
    with socket.create_connection((ADDRESS, 30500)) as plain:
        trusting.wrap_socket(plain, server_hostname="registry.test").close()
    _collect_by_job(kubectl, "over-the-given-certificate")

    volume = kubectl("get", "pvc/registry", "--output", "jsonpath={.spec.volumeName}")
    stack.destroy()
    assert kubectl("get", "deployments,services,cronjobs,secrets", "--output", "name") == "secret/mine\n"
    stack.write(PROGRAM.format(setting=json.dumps(setting)))
    stack.up()
    assert kubectl("get", "pvc/registry", "--output", "jsonpath={.spec.volumeName}") == volume
    anew = Client(tmp_path, stack)
    assert anew.crane("digest", f"{HOST}/app:1").strip() == kept
