"""The kubernetes plugin under the real engine, with the vendor's SDK in the program and a real API server."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]


def test_changes_are_applied_in_place_or_by_another_object(kubernetes_stack):
    """Labels in place; data of an auto-named ConfigMap by a second one before the first goes; what is left out is removed."""
    stack = kubernetes_stack
    program = """
    c = k8s.core.v1.ConfigMap("auto", metadata={{"labels": {labels}}}, data={data})
    pulumi.export("name", c.metadata.name)
    """
    stack.write(program.format(labels={"a": "1", "b": "2"}, data={"k": "v"}))
    stack.up()
    first = json.loads(stack.run("stack", "output", "--json"))["name"]
    stack.write(program.format(labels={"a": "3"}, data={"k": "v"}))

    assert "~ 1 updated" in stack.up()
    live = stack.api.call("GET", f"/api/v1/namespaces/default/configmaps/{first}")
    assert live["metadata"]["labels"] == {"a": "3"}
    stack.write(program.format(labels={"a": "3"}, data={"k": "w"}))
    said = stack.up()
    second = json.loads(stack.run("stack", "output", "--json"))["name"]
    assert "+-1 replaced" in said
    assert second != first
    assert stack.api.call("GET", f"/api/v1/namespaces/default/configmaps/{first}") is None
    stack.destroy()


def test_drift_is_undone_and_what_vanished_is_made_again(kubernetes_stack):
    """A refresh sees both; fields that others added are left."""
    stack = kubernetes_stack
    stack.write('k8s.core.v1.ConfigMap("c", metadata={"name": "drift"}, data={"k": "v"})')
    stack.up()
    path = "/api/v1/namespaces/default/configmaps/drift"
    stack.api.call("PATCH", f"{path}?fieldManager=somebody", {"metadata": {"labels": {"theirs": "x"}}})

    assert "1 unchanged" in stack.run("up", "--yes", "--skip-preview", "--refresh").replace(
        "2 unchanged", "1 unchanged"
    )
    stack.api.call("PATCH", f"{path}?fieldManager=somebody", {"data": {"k": "w"}})
    said = stack.run("up", "--yes", "--skip-preview", "--refresh", fails=True)
    assert 'conflict with "somebody"' in said
    assert "pulumi.com/patchForce" in said
    stack.api.call("DELETE", path)
    stack.run("up", "--yes", "--skip-preview", "--refresh")
    assert stack.api.call("GET", path)["data"] == {"k": "v"}
    stack.destroy()


def test_a_cluster_that_does_not_answer_is_named(kubernetes_stack):
    """In previews a warning, and an error when something has to be done."""
    stack = kubernetes_stack
    stack.write("""
    p = k8s.Provider("p", context="gone")
    k8s.core.v1.ConfigMap("c", metadata={"name": "c"}, opts=pulumi.ResourceOptions(provider=p))
    """)

    assert "https://127.0.0.1:9: no answer from the cluster" in stack.run("preview")
    said = stack.up(fails=True)
    assert "no answer from the cluster (connection refused); check kubeconfig, context and the network" in said


def test_a_kubeconfig_that_cannot_be_used_is_named(kubernetes_stack, tmp_path):
    """A context that is not in it, a file that is not there."""
    stack = kubernetes_stack
    stack.write("""
    p = k8s.Provider("p", context="other")
    k8s.core.v1.ConfigMap("c", metadata={"name": "c"}, opts=pulumi.ResourceOptions(provider=p))
    """)
    assert "give a kubeconfig and one of its contexts" in stack.run("preview", fails=True)

    missing = str(tmp_path / "missing")
    stack.write('k8s.core.v1.ConfigMap("c", metadata={"name": "c"})')
    assert "give a kubeconfig and one of its contexts" in stack.run("preview", fails=True, KUBECONFIG=missing)
