"""The local Kubernetes on paper: its node's files, its identities, its first objects."""

import base64
import json
import re

import pytest

from scripts.localcloud import kubernetes, network
from scripts.localcloud.settings import Settings

KEYS = {f"{name}.{kind}": f"{name} {kind}\n" for name in ("ca", *kubernetes.IDENTITIES) for kind in ("crt", "key")}
FILES = kubernetes.render_files(KEYS)


def test_the_node_s_address_is_nobody_else_s():
    """Neither a server nor a test host is ever given it, and the hub routes to it."""
    last = int(kubernetes.ADDRESS.rpartition(".")[2])

    assert last < Settings().reserved_ipv4
    assert last not in network.TEST_HOSTS
    assert str(network.IPV4[last]) == kubernetes.ADDRESS


def test_every_unit_is_started_at_boot():
    """A service whose link is missing would be found out by a cluster that is never ready."""
    wanted = {path.rpartition("/")[2] for path in kubernetes.render_links() if "/multi-user.target.wants/" in path}

    assert wanted == {f"{name}.service" for name in kubernetes.UNITS}
    assert {f"etc/systemd/system/{unit}" for unit in wanted} <= FILES.keys()


def test_a_unit_waits_for_units_that_exist():
    """A misspelt name would be waited for by nobody."""
    lines = [line for text in kubernetes.UNITS.values() for line in text.splitlines()]
    named = {unit for line in lines if line.startswith(("After=", "Wants=")) for unit in line.split("=")[1].split()}

    assert named <= {f"{name}.service" for name in kubernetes.UNITS}


def test_every_file_that_a_unit_names_is_on_the_disk():
    """Certificates, keys and configurations: each option's file is rendered under that name."""
    text = "".join(kubernetes.UNITS.values()) + "".join(
        FILES[f"etc/kubernetes/{name}"] for name in ("kubelet.json", "Corefile")
    )
    named = set(re.findall(r"/(etc/kubernetes/[\w./-]+)", text))

    assert named
    assert named <= FILES.keys()


@pytest.mark.parametrize("name", ["controller-manager", "scheduler", "proxy", "kubelet", "coredns", "volumes"])
def test_a_service_has_a_kubeconfig_of_its_own_identity(name):
    """It names files of the node, and reaches the API server without leaving it."""
    config = json.loads(FILES[f"etc/kubernetes/{name}.conf"])

    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert config["users"][0]["user"] == {
        "client-certificate": f"/etc/kubernetes/pki/{name}.crt",
        "client-key": f"/etc/kubernetes/pki/{name}.key",
    }


def test_the_user_s_kubeconfig_is_whole():
    """It can be copied anywhere: keys are inside, and the address is the one that the host reaches."""
    config = kubernetes.render_kubeconfig("admin", kubernetes.ADDRESS, KEYS)

    assert config["clusters"][0]["cluster"] == {
        "server": "https://198.51.100.8:6443",
        "certificate-authority-data": base64.b64encode(b"ca crt\n").decode(),
    }
    assert config["users"][0]["user"]["client-key-data"] == base64.b64encode(b"admin key\n").decode()


def test_one_storage_class_is_the_default_and_one_retains():
    """Claims that name no class get a volume that goes with them."""
    classes = {
        thing["metadata"]["name"]: thing for thing in kubernetes.objects().values() if thing["kind"] == "StorageClass"
    }

    assert {name: thing["reclaimPolicy"] for name, thing in classes.items()} == {
        "local": "Delete",
        "local-retain": "Retain",
    }
    assert [name for name, thing in classes.items() if "annotations" in thing["metadata"]] == ["local"]
    assert {thing["volumeBindingMode"] for thing in classes.values()} == {"WaitForFirstConsumer"}


def test_an_object_lies_at_the_path_of_its_name():
    """An apply to another path would make another object."""
    for path, thing in kubernetes.objects().items():
        assert path.rpartition("/")[2] == thing["metadata"]["name"]
        assert path.startswith(
            f"/api/{thing['apiVersion']}/" if thing["apiVersion"] == "v1" else f"/apis/{thing['apiVersion']}/"
        )
