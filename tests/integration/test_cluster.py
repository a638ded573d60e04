"""The local Kubernetes as it is: pods, volumes, services, names, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from scripts.localcloud import cgroups, cluster, network

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(240)]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway"
NODE = "198.51.100.8"


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


PORTS = ("--port", str(_free_port()), "--control-port", str(_free_port()))


def _localcloud(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.localcloud", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def state(tmp_path_factory, traces):
    """Give the state folder of a local cloud with a cluster; afterwards the host must be as it was."""
    assert network.namespaces() == [], "a local cloud is up on this host: python -m scripts.localcloud down"
    folder = tmp_path_factory.mktemp("cluster")
    before = traces(folder)
    try:
        _localcloud("up", "--state", str(folder), *PORTS)
        _localcloud("cluster", "--state", str(folder))
        yield folder
    finally:
        _localcloud("down", "--state", str(folder))
    assert traces(folder) == before


@pytest.fixture(scope="module")
def kubectl(state):
    """Give a function that runs kubectl and returns what it prints; a mapping or list is applied first."""

    def run(*arguments, apply=None):
        if apply is not None:
            things = {"apiVersion": "v1", "kind": "List", "items": apply}
            arguments = ("apply", "-f", "-", *arguments)
        done = subprocess.run(
            [CACHE / "go/kubernetes/kubectl", "--kubeconfig", cluster.kubeconfig(state), *arguments],
            input=json.dumps(things) if apply is not None else "",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def images():
    """Give the digests of the images that the node has, by name."""
    return json.loads((CACHE / "cluster/images.json").read_text())


def _pod(name, command, *, mounts=(), image="busybox:1", **spec):
    container = {"name": "main", "image": image, "command": ["sh", "-c", command], "volumeMounts": list(mounts)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, **spec},
    }


def _claim(name, **spec):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }


def _with_claim(name):
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]}


DATA = ({"name": "data", "mountPath": "/data"},)


def _service(name, kind="ClusterIP", **port):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": kind, "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080, **port}]},
    }


def _wait(kubectl, thing, what):
    kubectl("wait", thing, f"--for={what}", "--timeout=60s")


def _succeeded(kubectl, name):
    _wait(kubectl, f"pod/{name}", "jsonpath={.status.phase}=Succeeded")
    return kubectl("logs", name)


def _eventually(holds, deadline_s=15.0):
    deadline = time.monotonic() + deadline_s
    while not (answer := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def _volume_folders(state):
    return {path.name for path in (state / "cluster/disk/var/lib/volumes").iterdir()}


def test_the_cluster_is_said_once_and_made_once(state, kubectl):
    """A second `cluster` changes nothing and says so; `status` tells the kubeconfig; the node is Ready."""
    node = cgroups.init_pid(cluster.MACHINE)

    again = _localcloud("cluster", "--state", str(state))
    status = json.loads(_localcloud("status", "--state", str(state), "--format", "json"))

    assert again.splitlines()[0] == f"cluster is ready already (node-1, {NODE})"
    assert again.splitlines()[-1] == f"next      export KUBECONFIG={cluster.kubeconfig(state)}"
    assert status["kubeconfig"] == str(cluster.kubeconfig(state))
    assert status["machines"] == []
    assert cgroups.init_pid(cluster.MACHINE) == node
    assert kubectl("get", "node", "-o", "name") == "node/node-1\n"
    _wait(kubectl, "node/node-1", "condition=Ready")


def test_a_claim_without_a_class_gets_a_volume_that_goes_with_it(state, kubectl):
    """The next pod finds what the first has written; with the claim, folder and volume are gone."""
    before = _volume_folders(state)
    kubectl(apply=[_claim("data"), _pod("writer", "echo kept > /data/file", mounts=DATA, **_with_claim("data"))])
    _succeeded(kubectl, "writer")
    kubectl(apply=[_pod("reader", "cat /data/file", mounts=DATA, **_with_claim("data"))])
    assert _succeeded(kubectl, "reader") == "kept\n"
    (made,) = _volume_folders(state) - before
    kubectl("delete", "pod/writer", "pod/reader", "pvc/data", "--wait")

    assert _eventually(lambda: made not in _volume_folders(state))
    assert _eventually(lambda: made not in kubectl("get", "pv", "-o", "name"))


def test_a_retained_volume_outlives_its_claim_and_is_taken_again(state, kubectl):
    """Its folder stays; a claim that names the volume, once it is free again, finds the files."""
    before = _volume_folders(state)
    retained = {"storageClassName": "local-retain"}
    kubectl(
        apply=[_claim("kept", **retained), _pod("first", "echo old > /data/file", mounts=DATA, **_with_claim("kept"))]
    )
    _succeeded(kubectl, "first")
    (volume,) = _volume_folders(state) - before
    kubectl("delete", "pod/first", "pvc/kept", "--wait")
    _wait(kubectl, f"pv/{volume}", "jsonpath={.status.phase}=Released")

    kubectl("patch", "pv", volume, "--type=json", "-p", '[{"op": "remove", "path": "/spec/claimRef"}]')
    kubectl(apply=[_claim("again", volumeName=volume, **retained)])
    kubectl(apply=[_pod("second", "cat /data/file", mounts=DATA, **_with_claim("again"))])

    assert _succeeded(kubectl, "second") == "old\n"


def test_a_pod_without_rights_writes_to_its_volume_alone(kubectl):
    """Another user, read-only root, no capabilities, the default seccomp profile: the volume belongs to its group."""
    rights = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "runAsNonRoot": True}
    pod = _pod("modest", "id -u; touch /data/x && touch /x", mounts=DATA, **_with_claim("modest"))
    pod["spec"]["securityContext"] = {**rights, "seccompProfile": {"type": "RuntimeDefault"}}
    pod["spec"]["containers"][0]["securityContext"] = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    kubectl(apply=[_claim("modest"), pod])
    _wait(kubectl, "pod/modest", "jsonpath={.status.phase}=Failed")

    assert kubectl("logs", "modest").splitlines() == ["1000", "touch: /x: Read-only file system"]


def test_exec_runs_inside_the_pod(kubectl):
    """With standard input, output and the command's exit code."""
    kubectl(apply=[_pod("shell", "sleep 600")])
    _wait(kubectl, "pod/shell", "condition=Ready")

    assert kubectl("exec", "shell", "--", "hostname") == "shell\n"
    with pytest.raises(AssertionError, match="exit code 3"):
        kubectl("exec", "shell", "--", "sh", "-c", "exit 3")


@pytest.fixture(scope="module")
def web(kubectl):
    """Serve a page by a pod behind a ClusterIP and a NodePort."""
    kubectl(
        apply=[
            _pod("web", "mkdir /www && echo hello > /www/index.html && exec httpd -f -p 8080 -h /www"),
            _service("web", "NodePort", nodePort=30080),
        ]
    )
    _wait(kubectl, "pod/web", "condition=Ready")
    for _ in range(100):  # the node's rules follow a moment after
        if kubectl("exec", "web", "--", "sh", "-c", "wget -qO- http://web.default || true"):
            break
        time.sleep(0.2)


@pytest.mark.usefixtures("web")
def test_a_service_is_reached_by_its_name(kubectl):
    """From another pod, by its short and by its full name; a name that is none is refused."""
    tries = [
        f"wget -qO- http://{name} 2>&1 || echo none" for name in ("web", "web.default.svc.cluster.local", "no-such")
    ]
    kubectl(apply=[_pod("caller", "; ".join(tries))])

    assert _succeeded(kubectl, "caller").splitlines() == ["hello", "hello", "wget: bad address 'no-such'", "none"]


@pytest.mark.usefixtures("web")
def test_a_pod_reaches_itself_through_its_service(kubectl):
    """The way out and back in is the same link."""
    assert kubectl("exec", "web", "--", "wget", "-qO-", "http://web.default") == "hello\n"


@pytest.mark.usefixtures("web")
def test_a_node_port_is_reached_from_the_host_and_from_another_machine(state):
    """Servers and test hosts reach it at the node's address."""
    _localcloud("host", "--state", str(state), "peer", "198.51.100.3")
    url = f"http://{NODE}:30080/"
    ask = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).read().decode(), end='')"

    assert _eventually(lambda: _answer(url)) == b"hello\n"
    peer = subprocess.run(
        ["ip", "netns", "exec", "slipway-peer", sys.executable, "-c", ask], capture_output=True, text=True, check=False
    )
    assert (peer.stdout, peer.stderr) == ("hello\n", "")


def _answer(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.read()
    except OSError:
        return None


@pytest.mark.parametrize(
    ("image", "port"), [("docker.io/library/registry:2", 30502), ("docker.io/library/registry:3", 30503)]
)
def test_a_registry_answers_from_its_image_by_digest(kubectl, images, image, port):
    """The image serves with its own entry point, and needs no registry to come from."""
    name, reference = f"registry{image[-1]}", f"{image.rpartition(':')[0]}@{images[image]}"
    pod = _pod(name, "", image=reference, enableServiceLinks=False)
    del pod["spec"]["containers"][0]["command"]
    kubectl(apply=[pod, _service(name, "NodePort", targetPort=5000, nodePort=port)])
    _wait(kubectl, f"pod/{name}", "condition=Ready")

    assert _eventually(lambda: _answer(f"http://{NODE}:{port}/v2/")) == b"{}"
    assert kubectl("exec", name, "--", "registry", "--version").startswith("registry ")


def test_a_cron_job_s_job_runs_python_and_speaks_to_the_api_server(kubectl):
    """With its service account's token, the cluster's authority, and a network policy that changes nothing for it."""
    program = (
        "import ssl, urllib.request, pathlib; account = pathlib.Path('/var/run/secrets/kubernetes.io/serviceaccount');"
        "request = urllib.request.Request('https://kubernetes.default.svc/version',"
        " headers={'Authorization': 'Bearer ' + (account / 'token').read_text()});"
        "tls = ssl.create_default_context(cafile=account / 'ca.crt');"
        "print(urllib.request.urlopen(request, context=tls, timeout=10).status)"
    )
    container = {"name": "main", "image": "python:3.11-slim", "command": ["python3", "-c", program]}
    job = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    kubectl(
        apply=[
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "metadata": {"name": "nightly"},
                "spec": {"schedule": "0 3 * * *", "timeZone": "Europe/Berlin", "jobTemplate": {"spec": job}},
            },
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "only-web"},
                "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [{}]},
            },
        ]
    )

    kubectl("create", "job", "now", "--from=cronjob/nightly")

    _wait(kubectl, "job/now", "condition=Complete")
    assert kubectl("logs", "job/now") == "200\n"


@pytest.mark.parametrize("moment_s", [0.4, 1.5, 4.0])
def test_killed_at_any_moment_the_next_command_finishes_or_undoes(state, kubectl, traces, moment_s):
    """`down` after SIGKILL of `cluster` leaves nothing; `cluster` after it is ready, and has what it had before."""
    kubectl("create", "configmap", f"before-{moment_s}")
    _localcloud("down", "--state", str(state))
    nothing = traces(state)
    assert (nothing["groups"], nothing["namespaces"], nothing["processes"]) == ([], [], [])

    for then in ("down", "cluster"):
        _localcloud("up", "--state", str(state), *PORTS)
        command = [sys.executable, "-m", "scripts.localcloud", "cluster", "--state", str(state)]
        killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(moment_s)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        _localcloud(then, "--state", str(state))
        if then == "down":
            assert traces(state) == nothing

    assert kubectl("get", "configmap", f"before-{moment_s}", "-o", "name") == f"configmap/before-{moment_s}\n"
    _wait(kubectl, "node/node-1", "condition=Ready")
