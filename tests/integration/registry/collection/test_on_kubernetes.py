"""`slipway gc` on a real cluster: pulls and pushes go on through it, and whatever is lost in the middle, the registry comes back."""

from __future__ import annotations

import base64
import gc
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from scripts.benchmarks.registries import ACCEPT, Registry
from scripts.registry import archive, mode
from scripts.registry.collection import cluster, commands

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools,
    pytest.mark.timeout(300),
    # httpx leaves a socket open where a pod ends while it answers
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[4]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway"
NODE, PORT, SPACE = "198.51.100.8", 30500, "slipway-registry"
AMD64, ARM64 = "linux/amd64", "linux/arm64"
DAY = 86400
NOW = ("--now", "--max-share", "100")  # two thirds of what `images` pushes is garbage, and there may be little else
BOTH = pytest.mark.parametrize("registry", ["2.8", "3.1"], indirect=True)
CONFIG = {
    "version": 0.1,
    "log": {"level": "error"},
    "storage": {
        "filesystem": {"rootdirectory": "/var/lib/registry"},
        "cache": {"blobdescriptor": "inmemory"},
        "delete": {"enabled": True},
    },
    "http": {
        "addr": ":5000",
        "secret": "of this test",
        "draintimeout": "30s",
        "debug": {"addr": "127.0.0.1:5001", "prometheus": {"enabled": True, "path": "/metrics"}},
    },
}
RULES = [
    {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["registry"], "verbs": ["get", "patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
    {
        "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["registry-mode"],
        "verbs": ["get", "update", "delete"],
    },
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]  # fmt: skip


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _localcloud(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.localcloud", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """Give the state folder of a local cloud with a cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    ports = ("--port", str(_free_port()), "--control-port", str(_free_port()))
    try:
        _localcloud("up", "--state", str(folder), *ports)
        _localcloud("cluster", "--state", str(folder))
        yield folder
    finally:
        _localcloud("down", "--state", str(folder))


@pytest.fixture(scope="module")
def kubeconfig(state):
    """Give the file that leads to it."""
    return Path(json.loads(_localcloud("status", "--state", str(state), "--format", "json"))["kubeconfig"])


@pytest.fixture(scope="module")
def kubectl(kubeconfig):
    """Give a function that runs kubectl; a list is applied."""

    def run(*arguments, apply=None, check=True):
        if apply is not None:
            arguments = ("apply", "-f", "-", *arguments)
        done = subprocess.run(
            [CACHE / "go/kubernetes/kubectl", "--kubeconfig", kubeconfig, "-n", SPACE, *arguments],
            input=json.dumps({"apiVersion": "v1", "kind": "List", "items": apply}) if apply is not None else "",
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return run


def _thing(kind, name, version="v1", **rest):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": SPACE}, **rest}


def _deployment(version):
    program = ["registry", "serve", "/etc/slipway/config.yml"]
    container = {
        "name": "registry",
        "image": f"registry:{version[0]}",
        "command": ["sh", "-c", mode.ENTRYPOINT, "slipway", *program],
        "envFrom": [{"configMapRef": {"name": mode.config_map("registry"), "optional": True}}],
        "env": [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}],
        "readinessProbe": {"httpGet": {"path": "/v2/", "port": 5000}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/registry"},
            {"name": "config", "mountPath": "/etc/slipway"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 45,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "runAsNonRoot": True},
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "registry"}},
            {"name": "config", "configMap": {"name": "registry-config"}},
        ],
    }
    return _thing(
        "Deployment", "registry", "apps/v1",
        spec={
            "replicas": 1,
            "selector": {"matchLabels": {"app": "registry"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "registry"}}, "spec": pod},
        },
    )  # fmt: skip


@pytest.fixture(scope="module", params=["2.8"])
def registry(request, state, kubectl, tmp_path_factory):
    """A registry on the cluster, of 2.8 where a test does not ask for another, with rights for a job."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    port = {"port": 5000, "targetPort": 5000, "nodePort": PORT}
    before = {path.name for path in _volumes(state)}
    kubectl(
        apply=[
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
            _thing("ConfigMap", "registry-config", data={"config.yml": json.dumps(CONFIG)}),
            _thing("PersistentVolumeClaim", "registry", spec=claim),
            _deployment(request.param),
            _thing("Service", "registry", spec={"type": "NodePort", "selector": {"app": "registry"}, "ports": [port]}),
            _thing("ServiceAccount", "registry-gc"),
            _thing("Role", "registry-gc", "rbac.authorization.k8s.io/v1", rules=RULES),
            _thing(
                "RoleBinding", "registry-gc", "rbac.authorization.k8s.io/v1",
                roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "registry-gc"},
                subjects=[{"kind": "ServiceAccount", "name": "registry-gc", "namespace": SPACE}],
            ),
        ]
    )  # fmt: skip
    kubectl("rollout", "status", "deployment/registry", "--timeout=90s")
    _wait_until_one_pod(kubectl, 90)
    found = Registry(version=request.param, home=tmp_path_factory.mktemp("unused"), host=f"{NODE}:{PORT}")
    _wait_until_writable(found, 30)
    (found.volume,) = [path for path in _volumes(state) if path.name not in before]
    yield found
    found.stop()
    gc.collect()
    kubectl("delete", "namespace", SPACE, "--wait", "--timeout=120s")


def _volumes(state):
    folder = state / "cluster/disk/var/lib/volumes"
    return list(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def files(registry, storage, kubectl):
    """Its files; what the test leaves behind is made usual again."""
    found = storage.__new__(storage)
    found.folder = registry.volume / "docker/registry/v2"
    _wait_until_one_pod(kubectl, 90)  # the test before may have left one that ends
    yield found
    gc.collect()  # while that warning is ignored
    kubectl("delete", "configmap", "registry-mode", "--ignore-not-found")


@pytest.fixture(autouse=True)
def images(registry, files):
    """Tags of two platforms that were written twice, a month ago."""
    for name in ("app", "team/app"):
        for text in ("old", "new", str(time.monotonic_ns())):
            registry.push_index(name, "1", [AMD64, ARM64], attest=True, text=text)
    files.age(30 * DAY)


def _command(*options, kubeconfig):
    place = ("--kubeconfig", kubeconfig, "--namespace", SPACE, "--deployment", "registry")
    return [sys.executable, "-m", "scripts.registry", "gc", f"{NODE}:{PORT}", "--plain-http", *place, *NOW, *options]


@pytest.fixture
def collect(kubeconfig):
    """Collect there; a failure shows what it said."""

    def run(*options, check=True, kubeconfig=kubeconfig):
        done = subprocess.run(
            [str(each) for each in _command(*options, kubeconfig=kubeconfig)],
            cwd=ROOT, env={**os.environ, "DOCKER_CONFIG": "/nonexistent"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    return run


@pytest.fixture
def collect_until(kubeconfig):
    """Collect, and do something once a step is told; the exit code, and what was said after that."""

    def run(step, act, *options, kubeconfig=kubeconfig):
        with subprocess.Popen(
            [str(each) for each in _command(*options, kubeconfig=kubeconfig)],
            cwd=ROOT, env={**os.environ, "DOCKER_CONFIG": "/nonexistent"}, stderr=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            for line in process.stderr:
                if line.startswith(f"slipway: {step}"):
                    act(process)
                    break
            rest = process.stderr.read()
            return process.wait(), rest

    return run


def _writable(registry):
    connection = http.client.HTTPConnection(registry.host, timeout=10)
    try:
        connection.request("POST", "/v2/app/blobs/uploads/", headers={"Content-Length": "0"})
        with connection.getresponse() as answer:
            return answer.status == 202
    except (OSError, http.client.HTTPException):  # its pod starts just now, or ends
        return False
    finally:
        connection.close()


def _wait_until_writable(registry, within_s):
    deadline = time.monotonic() + within_s
    while not _writable(registry):
        assert time.monotonic() < deadline, "the registry takes no writes"
        time.sleep(0.2)


def _wait_until_one_pod(kubectl, within_s):
    deadline = time.monotonic() + within_s
    while len(kubectl("get", "pods", "-l", "app=registry", "-o", "name").split()) != 1:
        assert time.monotonic() < deadline, "the registry has more than one pod"
        time.sleep(0.5)


def _whole(registry):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.registry", "verify", "--deep", "--plain-http"]
        + [registry.name(name, "1") for name in ("app", "team/app")],
        cwd=ROOT, env={**os.environ, "DOCKER_CONFIG": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


class _Client(threading.Thread):
    """Goes on in a thread of its own while it is entered."""

    def __init__(self, registry):
        super().__init__(daemon=True)
        self.registry, self.stopped = registry, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


class _Puller(_Client):
    """Pull all tags in a loop, as containerd does: manifest by tag, each child, each blob.

    A 500 is asked again for a second (2.8 truncates a link before it writes it, so whoever reads while the same manifest
    is written again may see it empty: for up to 100 ms, 27 answers, on a disk that syncs much else). What was sent on a
    kept connection that ends just then, told by its end or by a reset, is asked again on a new one, as Go's client does.
    """

    def __init__(self, registry):
        super().__init__(registry)
        self.pulls, self.failed = 0, []

    def run(self):
        while not self.stopped.is_set():
            for name in ("app", "team/app"):
                try:
                    self._pull(name)
                except (httpx.HTTPError, AssertionError) as error:
                    self.failed.append(repr(error))
            time.sleep(0.05)  # the registry shares two cores with the rest of the cluster

    def _pull(self, name):
        index = self._get(f"{name}/manifests/1").json()
        for child in index["manifests"]:
            image = self._get(f"{name}/manifests/{child['digest']}").json()
            for blob in (image["config"], *image["layers"]):
                self._get(f"{name}/blobs/{blob['digest']}")

    def _get(self, path):
        try:
            answer = self.registry.request("GET", path, headers=ACCEPT)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            answer = httpx.get(f"http://{self.registry.host}/v2/{path}", headers=ACCEPT)
        deadline = time.monotonic() + 1
        while answer.status_code == 500 and time.monotonic() < deadline:
            time.sleep(0.05)
            answer = self.registry.request("GET", path, headers=ACCEPT)
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        self.pulls += 1
        return answer


class _Pusher(_Client):
    """Push images in a loop as a client does that tries again: each that was acknowledged is remembered."""

    def __init__(self, registry):
        super().__init__(registry)
        self.pushed, self.refused = {}, 0

    def run(self):
        number = 0
        while not self.stopped.is_set():
            number += 1
            while not self.stopped.is_set():
                try:
                    tag = f"push-{number}"
                    self.pushed[tag] = self.registry.push_index("pushed", tag, [AMD64, ARM64], text=str(number))
                    break
                except Exception:  # noqa: BLE001 - refused, in whatever way: tried again
                    self.refused += 1
                    time.sleep(0.2)
            time.sleep(0.05)


def test_every_command_in_a_pod_is_sent_its_stdin_and_its_end_is_told(registry, kubectl, kubeconfig):  # noqa: ARG001
    """A hundred one after the other, then one of megabytes both ways, and ten that refuse to use what they are sent."""
    api = cluster.Api(cluster.from_kubeconfig(str(kubeconfig), ""))
    pod = kubectl("get", "pods", "-l", "app=registry", "-o", "jsonpath={.items[0].metadata.name}")
    run = partial(api.exec, SPACE, pod, "registry", timeout_s=60)

    for number in range(100):
        sent = f"line {number:03}\n".encode()
        assert run(["sh", "-c", "head -c 9 | while read -r line; do echo $line; done"], stdin=sent).out == sent
    much = b"x" * 5_000_000
    assert run(["sh", "-c", "head -c 5000000 > /tmp/much; cat /tmp/much"], stdin=much).out == much
    for _ in range(10):
        refused = run(["sh", "-c", commands.REMOVE, "slipway", "1", "0", str(len(much))], stdin=much)
        assert (refused.code, refused.err.strip()) == (4, b"the registry is not read-only any more")


@BOTH
def test_pulls_and_pushes_go_on_through_a_collection(registry, files, collect, kubectl):
    """No pull fails; every push that was acknowledged is there whole; what was garbage is freed; an event tells."""
    before = files.blobs()
    with _Puller(registry) as puller, _Pusher(registry) as pusher:
        time.sleep(1)
        done = json.loads(collect("--format", "json").stdout)
        time.sleep(1)

    assert puller.failed == []
    assert puller.pulls > 100
    assert len(before - files.blobs()) == done["freed"]["blobs"] > 5
    assert pusher.pushed
    for tag, digest in pusher.pushed.items():
        body = registry.get("pushed", tag)
        assert json.loads(body)
        assert registry.get("pushed", digest) == body
        for child in json.loads(body)["manifests"]:
            image = json.loads(registry.get("pushed", child["digest"]))
            for blob in (image["config"], *image["layers"]):
                assert registry.request("GET", f"pushed/blobs/{blob['digest']}").status_code == 200
    _whole(registry)
    assert "Collected" in kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
    assert "registry-mode" not in kubectl("get", "configmaps", "-o", "name")


def test_it_waits_for_quiet_by_the_registry_s_own_count(registry, kubeconfig):
    """A push keeps it waiting; it begins when nobody has pushed for as long as was asked for."""
    command = [str(each) for each in _command("--quiet", "6s", kubeconfig=kubeconfig) if each != "--now"]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "DOCKER_CONFIG": "/nonexistent"}, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        for line in process.stderr:
            if line.startswith("slipway: waiting until nobody"):
                break
        for number in range(4):
            registry.push_image("app", AMD64, tag="busy", text=str(number))
            time.sleep(2)
        last = time.monotonic()
        for line in process.stderr:
            if line.startswith("slipway: rolling the registry to read-only"):
                break
        waited = time.monotonic() - last
        process.stderr.read()

        assert process.wait() == 0
    assert waited > 3


def test_a_second_collection_is_turned_away(registry, collect, collect_until):
    """While the first one renews its count; the first one ends as if there had been no second."""
    second = []

    code, _ = collect_until("rolling the registry to", lambda _process: second.append(collect(check=False)))

    assert code == 0
    assert second[0].returncode == 1
    assert "another collection is at work" in second[0].stderr
    assert _writable(registry)


@pytest.mark.parametrize("step", ["removing", "sweeping"])
def test_the_next_run_completes_what_a_killed_one_left(registry, collect, collect_until, step):
    """It waits until the owner is dead for sure, restores the registry, and collects."""
    code, rest = collect_until(step, lambda process: process.kill())
    _whole(registry)

    collect()

    assert code == -signal.SIGKILL, rest
    assert _writable(registry)
    _whole(registry)
    assert json.loads(collect("--dry-run", "--format", "json").stdout)["planned"]["blobs"] == 0


def test_the_registry_becomes_writable_by_itself(registry, collect_until):
    """At the expiry of the mode that a killed run left, without anybody."""
    collect_until("removing", lambda process: process.kill(), "--stop-limit", "40s")

    assert not _writable(registry)
    _wait_until_writable(registry, 90)
    _whole(registry)


def test_it_restores_the_registry_when_it_is_told_to_stop(registry, collect_until):
    """SIGTERM, as Kubernetes ends a job at its deadline."""
    code, rest = collect_until("asking the registry's own", lambda process: process.terminate())

    assert code == 130
    assert "restoring the registry" in rest
    _wait_until_writable(registry, 20)  # its pod is ready; that the Service leads there was not waited for


def test_a_pod_that_is_deleted_in_the_middle_stops_it(registry, collect, collect_until, kubectl):
    """The new pod is read-only too until the run has restored it; then writes are taken, and the next run collects."""
    code, rest = collect_until(
        "removing", lambda _process: kubectl("delete", "pod", "-l", "app=registry", "--wait=false", "--grace-period=1")
    )

    _wait_until_writable(registry, 60)
    _whole(registry)
    if code:
        assert "error: " in rest
    collect()
    _whole(registry)


class _Door:
    """A way to the API server that can be cut and closed."""

    def __init__(self, target):
        self.target, self.open, self.pairs = target, True, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(self.target)
            self.pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close_for(self, seconds):
        self.open = False
        for each in self.pairs:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        threading.Timer(seconds, lambda: setattr(self, "open", True)).start()

    def stop(self):
        self.listener.close()
        for each in self.pairs:
            each.close()


@pytest.mark.parametrize("step", ["removing", "sweeping"])
def test_an_api_server_that_is_away_for_a_while_costs_no_more_than_the_run(
    registry, collect_until, kubeconfig, tmp_path, step
):
    """All streams break and nothing answers for 20 seconds: an error, or the run goes on; then writes are taken."""
    text = kubeconfig.read_text()
    server = re.search(r"https://([\d.]+):(\d+)", text)
    door = _Door((server[1], int(server[2])))
    (tmp_path / "config").write_text(text.replace(server[0], f"https://127.0.0.1:{door.port}"))

    code, rest = collect_until(step, lambda _process: door.close_for(20), kubeconfig=tmp_path / "config")
    door.stop()

    _wait_until_writable(registry, 60)
    _whole(registry)
    assert code in {0, 1}
    assert code == 0 or "error: " in rest


def test_what_is_not_there_is_told(collect):
    """A namespace or Deployment of another name, and nothing else is made there."""
    done = collect("--deployment", "registrry", check=False)

    assert done.returncode == 1
    assert f"error: deployment {SPACE}/registrry: there is none" in done.stderr


def test_more_than_one_replica_is_refused(collect, kubectl):
    """All but one would go on writing."""
    kubectl("scale", "deployment", "registry", "--replicas", "2")
    try:
        done = collect(check=False)
    finally:
        kubectl("scale", "deployment", "registry", "--replicas", "1")
        _wait_until_one_pod(kubectl, 90)

    assert done.returncode == 1
    assert "it has 2 replicas" in done.stderr


def test_a_collection_that_would_delete_too_much_is_refused(registry, files, collect):
    """Before anything is deleted, and the registry takes pushes afterwards."""
    before = files.blobs()

    done = collect("--max-share", "1", check=False)

    assert (done.returncode, "more than 1%; nothing was deleted" in done.stderr) == (1, True)
    assert files.blobs() == before
    assert _writable(registry)


def test_a_roll_that_somebody_else_has_begun_is_waited_for(collect, kubectl, files):
    """Of two pods neither is the one to collect in."""
    kubectl("rollout", "restart", "deployment/registry")
    deadline = time.monotonic() + 30
    while len(kubectl("get", "pods", "-l", "app=registry", "-o", "name").split()) != 2:
        assert time.monotonic() < deadline, "the second pod did not come"
    before = files.blobs()

    collect()

    assert before - files.blobs()


@BOTH
def test_a_job_with_these_rights_alone_collects(registry, kubectl, tmp_path):
    """As one file in a ConfigMap, with a service account."""
    archive.write(tmp_path / "program.pyz")
    program = base64.b64encode((tmp_path / "program.pyz").read_bytes()).decode()
    command = ["python3", "/opt/slipway/slipway-registry.pyz", "gc", "registry:5000", "--plain-http", "--in-cluster"]
    command += ["--deployment", "registry", *NOW, "--format", "json"]
    pod = {
        "serviceAccountName": "registry-gc",
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "gc",
                "image": "python:3.11-slim",
                "command": command,
                "volumeMounts": [{"name": "program", "mountPath": "/opt/slipway"}],
            }
        ],
        "volumes": [{"name": "program", "configMap": {"name": "program"}}],
    }
    things = _thing("ConfigMap", "program", binaryData={"slipway-registry.pyz": program})
    job = _thing("Job", "gc", "batch/v1", spec={"backoffLimit": 0, "template": {"spec": pod}})
    kubectl("--server-side", apply=[things, job])
    try:
        kubectl("wait", "job/gc", "--for=condition=Complete", "--timeout=120s", check=False)
        printed = kubectl("logs", "job/gc", check=False)
        described = kubectl("describe", "pods", "-l", "job-name=gc")
    finally:
        kubectl("delete", "job/gc", "--wait")

    assert "{\n" in printed, printed + described
    found = json.loads(printed[printed.index("{\n") :])
    assert found["freed"]["blobs"] > 5
    _whole(registry)
