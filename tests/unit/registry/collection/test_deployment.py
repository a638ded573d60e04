"""The Deployment that is collected: where commands run."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from scripts.registry.collection.cluster import Access, Api
from scripts.registry.collection.deployment import DeploymentKeeper

PROXY = {"name": "istio-proxy"}
TAKES_MODE = {"envFrom": [{"secretRef": {"name": "registry-mode"}}, {"configMapRef": {"name": "registry-mode"}}]}


@pytest.fixture
def api():
    """An API server that has what it is given by path, whatever the query."""
    objects = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = json.dumps(objects[self.path.partition("?")[0]]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments):
            """Be silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        api = Api(Access(server=f"http://127.0.0.1:{server.server_port}", namespace="apps", context=None))
        yield api, objects
        server.shutdown()
        serving.join()


@pytest.mark.parametrize(
    ("template", "injected", "found"),
    [
        ([{"name": "registry"}], [PROXY, {"name": "registry"}], "registry"),
        ([{"name": "logs"}, {"name": "store", **TAKES_MODE}], [{"name": "logs"}, PROXY, {"name": "store"}], "store"),
        ([{"name": "registry", "envFrom": [{"prefix": "X"}]}, {"name": "logs"}], [{"name": "registry"}], "registry"),
    ],
)
def test_commands_run_in_the_registry_s_container(api, template, injected, found):
    """It takes the mode, or is the Deployment's first; a mesh puts a proxy before it in the pod."""
    api, objects = api
    labels = {"app": "registry"}
    objects["/apis/apps/v1/namespaces/apps/deployments/registry"] = {
        "spec": {"selector": {"matchLabels": labels}, "template": {"spec": {"containers": template}}}
    }
    pod = {"metadata": {"name": "registry-1"}, "spec": {"containers": injected}}
    objects["/api/v1/namespaces/apps/pods"] = {"items": [pod]}

    keeper = DeploymentKeeper(api, namespace="apps", name="registry", say=print)

    assert keeper.place.find() == ("registry-1", found)
