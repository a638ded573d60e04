"""The Deployment that is collected: where commands run."""

from __future__ import annotations

import pytest

from scripts.registry.collection.cluster import Access, Api
from scripts.registry.collection.deployment import DeploymentKeeper

PROXY = {"name": "istio-proxy"}
TAKES_MODE = {"envFrom": [{"secretRef": {"name": "registry-mode"}}, {"configMapRef": {"name": "registry-mode"}}]}


@pytest.mark.parametrize(
    ("template", "injected", "found"),
    [
        ([{"name": "registry"}], [PROXY, {"name": "registry"}], "registry"),
        ([{"name": "logs"}, {"name": "store", **TAKES_MODE}], [{"name": "logs"}, PROXY, {"name": "store"}], "store"),
        ([{"name": "registry", "envFrom": [{"prefix": "X"}]}, {"name": "logs"}], [{"name": "registry"}], "registry"),
    ],
)
def test_commands_run_in_the_registry_s_container(serving, template, injected, found):
    """It takes the mode, or is the Deployment's first; a mesh puts a proxy before it in the pod."""
    deployment = {
        "spec": {"selector": {"matchLabels": {"app": "registry"}}, "template": {"spec": {"containers": template}}}
    }
    pod = {"metadata": {"name": "registry-1"}, "spec": {"containers": injected}}
    objects = {
        "/apis/apps/v1/namespaces/apps/deployments/registry": deployment,
        "/api/v1/namespaces/apps/pods": {"items": [pod]},
    }

    with serving(objects) as server:
        api = Api(Access(server=server, namespace="apps", context=None))
        keeper = DeploymentKeeper(api, namespace="apps", name="registry", say=print)

        assert keeper.place.find() == ("registry-1", found)
