"""infra.registry_objects: what is declared of the registry, and what it must never lack."""

import argparse
import json
import signal
import subprocess
import time

import pytest

from infra import registry_objects, registry_setting
from infra.registry_objects import Objects
from scripts.registry.collection import command
from tests.unit.infra.conftest import BEHIND, LEAST, PEM

NAMED = {**LEAST, "host": "registry.example.com:30500", "tls": {"secret": "mine"}}


def _objects(given=None, **changes):
    setting = registry_setting.parse(json.dumps({**(given or LEAST), **changes}))
    return Objects(setting=setting, stack="slipway-prod", entrypoint="ENTRY", mode="registry-mode", program="p.pyz")


def _pods(objects):
    job = objects.collection(address="10.96.0.9")["jobTemplate"]["spec"]["template"]
    return [objects.deployment(applied="d")["template"], job]


@pytest.mark.parametrize("given", [LEAST, BEHIND, {**LEAST, "users": ["ada"]}])
@pytest.mark.parametrize("which", [0, 1])
def test_pods_have_no_rights_on_their_node(given, which):
    """No root, no capability, nothing to write but volumes, the runtime's seccomp profile, limits."""
    spec = _pods(_objects(given))[which]["spec"]
    (container,) = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert spec["enableServiceLinks"] is False
    assert "@sha256:" in container["image"]


def test_the_registry_is_rolled_without_a_gap_on_one_node():
    """The second pod is there before the first goes, which serves for three seconds more; the claim is one node's."""
    spec = _objects().deployment(applied="d")
    (container,) = spec["template"]["spec"]["containers"]

    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 3}}}
    assert container["readinessProbe"]["periodSeconds"] == 1
    assert _objects().claim()["accessModes"] == ["ReadWriteOnce"]
    (beside,) = spec["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert beside["topologyKey"] == "kubernetes.io/hostname"
    assert (
        beside["labelSelector"]["matchLabels"]
        == spec["selector"]["matchLabels"]
        == spec["template"]["metadata"]["labels"]
    )


def test_a_certificate_that_somebody_else_renews_is_watched():
    """That of the stack's authority rolls the pod by itself."""

    def entrypoint(given):
        (container,) = _objects(given).deployment(applied="d")["template"]["spec"]["containers"]
        return container["command"][2]

    assert entrypoint(NAMED) == registry_objects.ends_on_change("/etc/slipway/tls/tls.crt") + "ENTRY"
    assert entrypoint(LEAST) == entrypoint(BEHIND) == "ENTRY"


def test_what_watches_a_file_ends_its_process_once_the_file_is_another(tmp_path):
    """Written as Kubernetes writes a Secret: a new folder under the same link."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tls.crt").write_text(name)
    (tmp_path / "data").symlink_to("old")
    script = registry_objects.ends_on_change(f"{tmp_path}/data/tls.crt", every_s=1) + 'exec "$@"'

    with subprocess.Popen(["sh", "-c", script, "slipway", "sleep", "60"]) as process:
        time.sleep(1.5)
        assert process.poll() is None
        (tmp_path / "link").symlink_to("new")
        (tmp_path / "link").rename(tmp_path / "data")

        assert process.wait(10) == -signal.SIGTERM


def test_the_registry_takes_its_mode_from_a_config_map_that_need_not_be_there():
    """The collection makes and removes it; the entrypoint obeys its expiry."""
    (container,) = _objects().deployment(applied="d")["template"]["spec"]["containers"]

    assert container["envFrom"] == [{"configMapRef": {"name": "registry-mode", "optional": True}}]
    assert container["command"][:4] == ["sh", "-c", "ENTRY", "slipway"]
    assert container["command"][4:6] == ["registry", "serve"]
    assert "maintenance" not in json.loads(_objects().configuration())["storage"]


@pytest.mark.parametrize(
    ("objects", "has_tls", "has_users"),
    [(_objects(), True, False), (_objects(BEHIND), False, False), (_objects(users=["ada"]), True, True)],
)
def test_the_registry_reads_what_is_mounted(objects, has_tls, has_users):
    """Every path of its configuration lies in a mount; probes speak as it does."""
    configuration = json.loads(objects.configuration())
    (container,) = objects.deployment(applied="d")["template"]["spec"]["containers"]
    folders = [mount["mountPath"] for mount in container["volumeMounts"]]
    paths = [configuration["storage"]["filesystem"]["rootdirectory"]]
    paths += [configuration["http"]["tls"][key] for key in ("certificate", "key")] if has_tls else []
    paths += [configuration["auth"]["htpasswd"]["path"]] if has_users else []

    assert all(any(path == folder or path.startswith(f"{folder}/") for folder in folders) for path in paths)
    assert ("tls" in configuration["http"], "auth" in configuration) == (has_tls, has_users)
    assert container["readinessProbe"]["httpGet"]["scheme"] == ("HTTPS" if has_tls else "HTTP")


def test_what_the_registry_reads_at_its_start_is_in_its_template():
    """So a new certificate or user makes new pods."""
    assert _objects().deployment(applied="d")["template"]["metadata"]["annotations"] == {"slipway/applied": "d"}


@pytest.mark.parametrize(
    ("objects", "kind", "node_port"), [(_objects(), "NodePort", 30500), (_objects(BEHIND), "ClusterIP", None)]
)
def test_the_service_is_a_port_of_the_nodes_or_behind_an_ingress(objects, kind, node_port):
    """Either way it is the registry's pods."""
    service = objects.service()

    assert (service["type"], service["ports"][0].get("nodePort")) == (kind, node_port)
    assert service["selector"] == objects.deployment(applied="d")["selector"]["matchLabels"]


def test_an_ingress_leads_the_host_here_and_takes_layers():
    """Its certificate is the stack's own, or made by whoever obeys the annotations."""
    objects = _objects(BEHIND, tls={"annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"}})

    assert objects.ingress()["rules"][0]["host"] == "registry.example.com"
    assert objects.ingress()["tls"] == [{"hosts": ["registry.example.com"], "secretName": "registry-tls"}]
    assert objects.ingress_annotations()["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert objects.ingress_annotations()["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"


@pytest.mark.parametrize(
    ("objects", "reached", "trust"),
    [
        (_objects(), "registry.slipway-registry.svc:5000", ["--ca", "/etc/slipway/ca/ca.crt"]),
        (_objects(BEHIND), "registry.slipway-registry.svc:5000", ["--plain-http"]),
        (_objects(NAMED), "registry.example.com:5000", []),
        (_objects(NAMED, tls={"secret": "mine", "ca": PEM}), "registry.example.com:5000", ["--ca", "/etc/slipway/ca/ca.crt"]),
    ],
)  # fmt: skip
def test_the_job_reaches_the_registry_by_a_name_that_its_certificate_speaks_for(objects, reached, trust):
    """Mapped to the Service's address in the pod, so that no name server is needed."""
    arguments = objects.arguments()
    pod = objects.collection(address="10.96.0.9")["jobTemplate"]["spec"]["template"]["spec"]

    assert arguments[:7] == [
        "gc",
        reached,
        "--in-cluster",
        "--namespace",
        "slipway-registry",
        "--deployment",
        "registry",
    ]
    assert arguments[7:] == [*trust, "--grace=24h"]
    assert pod["hostAliases"] == [{"ip": "10.96.0.9", "hostnames": [reached.partition(":")[0]]}]
    assert ("ca" in [volume["name"] for volume in pod["volumes"]]) is ("--ca" in trust)
    assert objects.setting.tls.kind != "authority" or reached.partition(":")[0] in objects.certified_names


def test_the_job_keeps_what_the_setting_says():
    """Retention is off until asked for."""
    given = {"keepLast": 10, "keepMatching": "-(rc|beta)$", "keepWithin": "90d", "grace": "2d"}
    objects = _objects(collection=given, context="prod")
    job, operator = argparse.ArgumentParser(), argparse.ArgumentParser()
    command.take(job)
    command.take(operator)

    for options in (job.parse_args(objects.arguments()[1:]), operator.parse_args(objects.operator_arguments())):
        assert (options.keep_last, options.keep_matching) == (10, ["-(rc|beta)$"])
        assert (options.keep_within, options.grace) == ("90d", "2d")
        assert (options.namespace, options.deployment) == ("slipway-registry", "registry")


def test_an_operator_reaches_the_registry_by_the_name_that_clients_type():
    """The setting's context leads to the cluster."""
    assert _objects(namespace="images", context="prod").operator_arguments() == [
        "198.51.100.8:30500", "--namespace", "images", "--deployment", "registry", "--context=prod", "--grace=24h",
    ]  # fmt: skip


def test_no_two_jobs_run_at_once():
    """And one that cannot start for an hour is left to the next night."""
    job = _objects(collection={"schedule": "0 1 * * *", "timeZone": "Europe/Berlin"}).collection(address="10.96.0.9")

    assert (job["concurrencyPolicy"], job["startingDeadlineSeconds"]) == ("Forbid", 3600)
    assert (job["schedule"], job["timeZone"]) == ("0 1 * * *", "Europe/Berlin")
    assert job["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_job_may_touch_its_own_registry_alone():
    """One Deployment, one ConfigMap; nothing of Secrets."""
    rules = {(rule["resources"][0], tuple(rule.get("resourceNames", ()))): rule["verbs"] for rule in _objects().role()}

    assert rules == {
        ("deployments", ("registry",)): ["get", "patch"],
        ("pods", ()): ["get", "list"],
        ("pods/exec", ()): ["create", "get"],
        ("configmaps", ()): ["create"],
        ("configmaps", ("registry-mode",)): ["get", "update", "patch", "delete"],
        ("events", ()): ["create"],
    }


def test_nobody_reaches_the_job_and_the_registry_reaches_nobody():
    """The job reaches the registry and an API server's ports."""
    registry, job = _objects().registry_policy(), _objects().collection_policy()

    assert registry["policyTypes"] == job["policyTypes"] == ["Ingress", "Egress"]
    assert registry["ingress"] == [{"ports": [{"protocol": "TCP", "port": 5000}]}]
    assert "egress" not in registry
    assert "ingress" not in job
    assert job["egress"][0]["to"] == [{"podSelector": {"matchLabels": _objects().service()["selector"]}}]


def test_every_object_is_its_stacks():
    """One field manager for all of them, and a label that another stack would have to take from it."""
    metadata = _objects().metadata("registry")

    assert metadata["labels"]["slipway-stack"] == "slipway-prod"
    assert metadata["annotations"]["pulumi.com/patchFieldManager"] == "slipway-prod"
    assert metadata["namespace"] == "slipway-registry"
    assert "namespace" not in _objects().namespace()


def test_nodes_and_docker_are_told_what_to_trust():
    """The folder is named for the host as clients type it."""
    lines = _objects().trust(PEM)

    assert "/etc/containerd/certs.d/198.51.100.8:30500/hosts.toml" in lines
    assert '[host."https://198.51.100.8:30500"]' in lines
    assert "/etc/docker/certs.d/198.51.100.8:30500/ca.crt" in lines
    assert lines.count("-----BEGIN CERTIFICATE-----") == 2
