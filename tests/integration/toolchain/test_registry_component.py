"""infra.components.registry under the real engine and a real API server; the controllers' part is played here."""

from __future__ import annotations

import base64
import json
import threading

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]

PROGRAM = """
import json
from infra import registry_setting
from infra.components.registry import Registry
from infra.resources.keys import Authority
from builders import registry_program

authority = Authority("authority", subject="slipway-test", opts=pulumi.ResourceOptions(protect={protect}))
setting = registry_setting.parse(json.dumps({setting}))
registry = Registry(setting, stack={stack!r}, authority=authority, program=registry_program.pack(), protect={protect})
pulumi.export("trust", registry.trust)
pulumi.export("users", pulumi.Output.secret(registry.users))
pulumi.export("ca", authority.certificate)
"""


def _setting(namespace, **changes):
    return {
        "host": "198.51.100.8:30500",
        "context": "test",
        "namespace": namespace,
        "storage": {"size": "1Gi", "class": "late"},
        "service": {"nodePort": 30500},
        "users": ["ada"],
        **changes,
    }


def _write(stack, setting, *, protect=False, name="slipway-test"):
    stack.write(PROGRAM.format(setting=setting, protect=protect, stack=name))


@pytest.fixture(name="controllers")
def _controllers(api_server):
    """Say that every Deployment is available and every Service has an endpoint, once a second."""
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "late"}}
    classes = "/apis/storage.k8s.io/v1/storageclasses"
    if api_server.call("GET", f"{classes}/late") is None:
        mode = {"provisioner": "nobody", "volumeBindingMode": "WaitForFirstConsumer"}
        api_server.call("POST", classes, {**storage, **mode})
    ended = threading.Event()

    def play():
        while not ended.wait(0.5):
            for live in api_server.call("GET", "/apis/apps/v1/deployments")["items"]:
                _roll_out(api_server, live)
            for live in api_server.call("GET", "/api/v1/services")["items"]:
                _point(api_server, live)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


def _roll_out(api, live):
    conditions = [
        {"type": "Available", "status": "True"},
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
    ]
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), 1)
    status = {"observedGeneration": live["metadata"]["generation"], "conditions": conditions, **counts}
    namespace, name = live["metadata"]["namespace"], live["metadata"]["name"]
    api.call(
        "PATCH", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/status?fieldManager=play", {"status": status}
    )


def _point(api, live):
    namespace, name = live["metadata"]["namespace"], live["metadata"]["name"]
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    if live["spec"].get("selector") and api.call("GET", f"{path}/{name}") is None:
        slices = {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": ["10.1.1.1"], "conditions": {"ready": True}}], "ports": [],
        }  # fmt: skip
        api.call("POST", path, slices)


def _all(api, namespace):
    """Return the names of what is in a namespace, by kind."""
    paths = {
        "claims": f"/api/v1/namespaces/{namespace}/persistentvolumeclaims",
        "config maps": f"/api/v1/namespaces/{namespace}/configmaps",
        "secrets": f"/api/v1/namespaces/{namespace}/secrets",
        "accounts": f"/api/v1/namespaces/{namespace}/serviceaccounts",
        "services": f"/api/v1/namespaces/{namespace}/services",
        "deployments": f"/apis/apps/v1/namespaces/{namespace}/deployments",
        "jobs": f"/apis/batch/v1/namespaces/{namespace}/cronjobs",
        "policies": f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
        "ingresses": f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses",
        "roles": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
        "bindings": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    }
    found = {
        kind: sorted(each["metadata"]["name"] for each in api.call("GET", path)["items"])
        for kind, path in paths.items()
    }
    return {kind: names for kind, names in found.items() if names}


@pytest.mark.usefixtures("controllers")
def test_a_registry_is_declared_whole_kept_and_taken_up_again(kubernetes_stack):
    """A second up changes nothing; a new user rolls the pods; what is protected is kept; the claim outlives its stack."""
    stack = kubernetes_stack
    api = stack.api
    _write(stack, _setting("whole-registry"), protect=True)

    stack.up()

    assert _all(api, "whole-registry") == {
        "claims": ["registry"],
        "config maps": ["registry-config", "registry-program"],
        "secrets": ["registry-gc-login", "registry-http", "registry-tls", "registry-users"],
        "accounts": ["registry-gc"],
        "services": ["registry"],
        "deployments": ["registry"],
        "jobs": ["registry-gc"],
        "policies": ["registry", "registry-gc"],
        "roles": ["registry-gc"],
        "bindings": ["registry-gc"],
    }
    told = json.loads(stack.run("stack", "output", "--json", "--show-secrets"))
    assert told["users"].keys() == {"ada"}
    assert told["ca"].strip() in told["trust"]
    assert told["users"]["ada"] not in stack.run("stack", "export")
    login = api.call("GET", "/api/v1/namespaces/whole-registry/secrets/registry-gc-login")["data"]["config.json"]
    assert "registry.whole-registry.svc:5000" in base64.b64decode(login).decode()
    assert " created" not in (again := stack.run("up", "--yes", "--skip-preview", "--refresh"))
    assert " updated" not in again

    deployment = "/apis/apps/v1/namespaces/whole-registry/deployments/registry"
    before = api.call("GET", deployment)["spec"]["template"]
    _write(stack, _setting("whole-registry", users=["ada", "ci"]), protect=True)
    stack.up()
    after = api.call("GET", deployment)["spec"]["template"]
    assert after["metadata"]["annotations"] != before["metadata"]["annotations"]
    assert after["spec"] == before["spec"]

    everything = _all(api, "whole-registry")
    stack.run("destroy", "--yes", "--skip-preview", "--exclude-protected")
    assert _all(api, "whole-registry") == everything
    assert "cannot be deleted" in stack.destroy(fails=True)
    assert _all(api, "whole-registry") == everything

    _write(stack, _setting("whole-registry"), protect=False)
    stack.up()
    uid = api.call("GET", "/api/v1/namespaces/whole-registry/persistentvolumeclaims/registry")["metadata"]["uid"]
    stack.destroy()
    assert _all(api, "whole-registry") == {"claims": ["registry"]}
    stack.up()
    taken_up = api.call("GET", "/api/v1/namespaces/whole-registry/persistentvolumeclaims/registry")
    assert taken_up["metadata"]["uid"] == uid
    stack.destroy()


@pytest.mark.usefixtures("controllers")
def test_the_volume_of_another_stack_is_refused(kubernetes_stack):
    """By the label that its field manager holds; nothing of it is changed."""
    stack = kubernetes_stack
    api = stack.api
    _write(stack, _setting("of-ada", service={"nodePort": 30501}), name="slipway-ada")
    stack.up()
    claim = "/api/v1/namespaces/of-ada/persistentvolumeclaims/registry"
    before = api.call("GET", claim)

    stack.run("stack", "init", "bob")
    _write(stack, _setting("of-ada", service={"nodePort": 30501}), name="slipway-bob")
    said = stack.up(fails=True)

    assert 'conflicts with "slipway-ada": - .metadata.' in said
    assert ".metadata.labels.slipway-stack" in said
    assert api.call("GET", claim)["metadata"]["labels"] == before["metadata"]["labels"]
    stack.run("stack", "select", "dev")
    _write(stack, _setting("of-ada", service={"nodePort": 30501}), name="slipway-ada")
    assert "unchanged" in stack.up()
    stack.destroy()


@pytest.mark.usefixtures("controllers")
def test_an_ingress_comes_and_goes_with_its_setting(kubernetes_stack):
    """Also while the rest is protected: it is kept for as long as something protected needs it."""
    stack = kubernetes_stack
    api = stack.api
    behind = {"host": "r.example.com", "service": {"ingress": {"class": "nginx"}}}
    _write(stack, _setting("ingress", **behind), protect=True)
    stack.up()
    assert _all(api, "ingress")["ingresses"] == ["registry"]
    stack.run("destroy", "--yes", "--skip-preview", "--exclude-protected")
    assert _all(api, "ingress")["ingresses"] == ["registry"]

    _write(stack, _setting("ingress", service={"nodePort": 30502}), protect=True)
    stack.up()
    assert "ingresses" not in _all(api, "ingress")
    _write(stack, _setting("ingress", service={"nodePort": 30502}), protect=False)
    stack.up()
    stack.destroy()
