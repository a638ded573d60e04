"""The kubernetes plugin's rules: which change needs another object, when an object is ready, what a name is made of."""

from __future__ import annotations

import base64

import pytest

from scripts.toolchain.plugins.errors import InvalidConfiguration
from scripts.toolchain.plugins.kubernetes import configuration, objects, readiness
from scripts.toolchain.plugins.kubernetes.kinds import KINDS
from scripts.toolchain.plugins.values import UNKNOWN

TOKENS = {
    "kubernetes:core/v1:Namespace": "/api/v1/namespaces/a",
    "kubernetes:core/v1:PersistentVolumeClaim": "/api/v1/namespaces/n/persistentvolumeclaims/a",
    "kubernetes:core/v1:ConfigMap": "/api/v1/namespaces/n/configmaps/a",
    "kubernetes:core/v1:Secret": "/api/v1/namespaces/n/secrets/a",
    "kubernetes:core/v1:ServiceAccount": "/api/v1/namespaces/n/serviceaccounts/a",
    "kubernetes:core/v1:Service": "/api/v1/namespaces/n/services/a",
    "kubernetes:apps/v1:Deployment": "/apis/apps/v1/namespaces/n/deployments/a",
    "kubernetes:batch/v1:CronJob": "/apis/batch/v1/namespaces/n/cronjobs/a",
    "kubernetes:networking.k8s.io/v1:Ingress": "/apis/networking.k8s.io/v1/namespaces/n/ingresses/a",
    "kubernetes:networking.k8s.io/v1:NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/n/networkpolicies/a",
    "kubernetes:rbac.authorization.k8s.io/v1:Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles/a",
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": (
        "/apis/rbac.authorization.k8s.io/v1/namespaces/n/rolebindings/a"
    ),
}


def test_every_kind_has_the_vendors_token_and_the_servers_path():
    """Tokens are `kubernetes:<group>/<version>:<Kind>`, the core group by its name."""
    assert {token: kind.path("n" if kind.namespaced else None, "a") for token, kind in KINDS.items()} == TOKENS


def test_every_token_is_one_of_the_vendors_sdk():
    """So a program needs no change to run with the vendor's provider."""
    import importlib

    for token, kind in KINDS.items():
        group, version = token.split(":")[1].split("/")
        module = importlib.import_module(f"pulumi_kubernetes.{group.removesuffix('.k8s.io').split('.')[0]}.{version}")
        assert hasattr(module, kind.name)


REPLACED = [
    *((token, path) for token in TOKENS for path in ("metadata.name", "metadata.namespace")),
    ("kubernetes:core/v1:Secret", "data.password"),
    ("kubernetes:core/v1:Secret", "stringData"),
    ("kubernetes:core/v1:Secret", "type"),
    ("kubernetes:core/v1:ConfigMap", 'data["config.yml"]'),
    ("kubernetes:core/v1:ConfigMap", "binaryData.program"),
    ("kubernetes:apps/v1:Deployment", "spec.selector.matchLabels.app"),
    ("kubernetes:core/v1:PersistentVolumeClaim", "spec.accessModes[0]"),
    ("kubernetes:core/v1:PersistentVolumeClaim", "spec.selector"),
    ("kubernetes:core/v1:PersistentVolumeClaim", "spec.storageClassName"),
    ("kubernetes:core/v1:PersistentVolumeClaim", "spec.volumeName"),
    ("kubernetes:core/v1:PersistentVolumeClaim", "spec"),  # all of it at once
    ("kubernetes:core/v1:Service", "spec.clusterIP"),
    ("kubernetes:rbac.authorization.k8s.io/v1:RoleBinding", "roleRef.name"),
]
UPDATED = [
    *((token, "metadata.labels.a") for token in TOKENS),
    ("kubernetes:core/v1:PersistentVolumeClaim", "spec.resources.requests.storage"),
    ("kubernetes:apps/v1:Deployment", "spec.template.spec.containers[0].image"),
    ("kubernetes:core/v1:Service", "spec.ports[0].nodePort"),
    ("kubernetes:core/v1:Service", "spec.clusterIPs[0]"),
    ("kubernetes:batch/v1:CronJob", "spec.schedule"),
    ("kubernetes:networking.k8s.io/v1:Ingress", "spec.rules[0].host"),
    ("kubernetes:networking.k8s.io/v1:NetworkPolicy", "spec.podSelector"),
    ("kubernetes:rbac.authorization.k8s.io/v1:Role", "rules[0].verbs[0]"),
    ("kubernetes:rbac.authorization.k8s.io/v1:RoleBinding", "subjects[0].name"),
]


@pytest.mark.parametrize(("token", "path"), REPLACED)
def test_what_the_server_cannot_change_needs_another_object(token, path):
    """Name and namespace of everything, and each kind's own fields."""
    assert KINDS[token].replacing([path], mutable=False) == [path]


@pytest.mark.parametrize(("token", "path"), UPDATED)
def test_everything_else_is_updated_in_place(token, path):
    """No object is made anew for a change that the server takes."""
    assert KINDS[token].replacing([path], mutable=False) == []


@pytest.mark.parametrize("name", ["Secret", "ConfigMap"])
def test_data_is_changed_in_place_where_the_provider_may(name):
    """Data, but not the type of a Secret, which the server never changes."""
    kind = KINDS[f"kubernetes:core/v1:{name}"]

    assert kind.replacing(["data.a", "binaryData", "stringData.b"], mutable=True) == []
    assert KINDS["kubernetes:core/v1:Secret"].replacing(["type"], mutable=True) == ["type"]


def _deployment(*, replicas=1, generation=2, paused=False, **status):
    rolled = {
        "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
        "conditions": [
            {"type": "Available", "status": "True"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        ],
    }  # fmt: skip
    return {
        "metadata": {"name": "a", "namespace": "n", "generation": generation},
        "spec": {"replicas": replicas, "paused": paused},
        "status": {**rolled, **status},
    }


STUCK = [
    {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "has timed out"},
]
NOT_YET = [
    {"type": "Available", "status": "True"},
    {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
]
UNAVAILABLE = [{"type": "Available", "status": "False", "message": "minimum not met"}]


@pytest.mark.parametrize(
    ("live", "waiting_for", "is_final"),
    [
        (_deployment(), "", False),
        (_deployment(generation=3), "the controller to see the change", False),
        (_deployment(updatedReplicas=0), "its pods: 1 of 1 available, 0 new", False),
        (_deployment(replicas=2), "its pods: 1 of 2 available, 1 new", False),
        (_deployment(replicas=1, availableReplicas=0), "its pods: 0 of 1 available, 1 new", False),
        ({**_deployment(), "status": {**_deployment()["status"], "replicas": 2}}, "its pods: 1 of 1 available, 1 new", False),
        (_deployment(conditions=NOT_YET), "the new revision to be available", False),
        (_deployment(conditions=UNAVAILABLE), "minimum not met", False),
        (_deployment(conditions=STUCK), "has timed out", True),
        (_deployment(paused=True, updatedReplicas=0), "", False),
        ({"metadata": {"name": "a", "generation": 1}, "spec": {}}, "the controller to see the change", False),
    ],
)  # fmt: skip
def test_a_deployment_is_ready_when_its_newest_revision_alone_is_available(live, waiting_for, is_final):
    """Pods of an older revision that still run, or pods that are not there yet, keep it from being ready."""
    verdict = readiness.deployment(live)

    assert (verdict.waiting_for, verdict.is_final) == (waiting_for, is_final)


READY_SLICE = {"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]}
UNREADY_SLICE = {"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}]}
ADDRESS = {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}


@pytest.mark.parametrize(
    ("spec", "status", "slices", "waiting_for"),
    [
        ({"selector": {"a": "b"}}, {}, [READY_SLICE], ""),
        ({"selector": {"a": "b"}}, {}, [UNREADY_SLICE], "a ready pod behind it"),
        ({"selector": {"a": "b"}}, {}, [], "a ready pod behind it"),
        ({"selector": {"a": "b"}, "clusterIP": "None"}, {}, [], "a ready pod behind it"),
        ({"clusterIP": "None"}, {}, [], ""),
        ({"type": "ExternalName"}, {}, [], ""),
        ({"type": "LoadBalancer", "selector": {"a": "b"}}, {}, [READY_SLICE], "the load balancer's address"),
        ({"type": "LoadBalancer", "selector": {"a": "b"}}, ADDRESS, [READY_SLICE], ""),
    ],
)
def test_a_service_is_ready_when_something_answers_behind_it(spec, status, slices, waiting_for):
    """Not so a headless one without selector and an ExternalName; a load balancer needs its address too."""
    assert readiness.service({"spec": spec, "status": status}, slices).waiting_for == waiting_for


@pytest.mark.parametrize(
    ("status", "endless", "waiting_for"),
    [
        (ADDRESS, [], ""),
        ({}, [], "an address from the ingress controller"),
        (ADDRESS, ["web"], "endpoints of service web"),
    ],
)
def test_an_ingress_is_ready_with_an_address_and_something_behind_every_path(status, endless, waiting_for):
    """The services are those of its paths and its default backend."""
    live = {
        "spec": {
            "defaultBackend": {"service": {"name": "rest"}},
            "rules": [{"http": {"paths": [{"backend": {"service": {"name": "web"}}}]}}],
        },
        "status": status,
    }

    assert readiness.backends(live) == {"rest", "web"}
    assert readiness.ingress(live, endless).waiting_for == waiting_for


@pytest.mark.parametrize(
    ("phase", "storage_class", "waiting_for", "is_final"),
    [
        ("Bound", None, "", False),
        ("Pending", {"volumeBindingMode": "WaitForFirstConsumer"}, "", False),
        ("Pending", {"volumeBindingMode": "Immediate"}, "a volume", False),
        ("Pending", None, "a volume, and there is no storage class of that name", False),
        ("Lost", None, "the volume that it was bound to and that is gone", True),
    ],
)
def test_a_claim_is_ready_when_bound_or_left_to_its_first_pod(phase, storage_class, waiting_for, is_final):
    """A class that binds late binds nothing before a pod asks for it."""
    verdict = readiness.claim({"status": {"phase": phase}}, storage_class)

    assert (verdict.waiting_for, verdict.is_final) == (waiting_for, is_final)


def test_what_pods_say_is_told():
    """An image that cannot be pulled, a container that ends, a pod that no node takes."""
    pods = [
        {
            "metadata": {"name": "one"},
            "status": {
                "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}],
            },
        },
        {
            "metadata": {"name": "two"},
            "status": {
                "containerStatuses": [
                    {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
                    {
                        "name": "d",
                        "state": {"running": {}},
                        "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}},
                    },
                    {"name": "e", "state": {"waiting": {"reason": "ContainerCreating"}}},
                ]
            },
        },
    ]

    assert readiness.pod_problems(pods) == [
        "pod one: 0/1 nodes are available",
        "pod two, container c: ImagePullBackOff: no such image",
        "pod two, container d: Error (exit 2)",
    ]


CONFIG_MAP, SECRET = KINDS["kubernetes:core/v1:ConfigMap"], KINDS["kubernetes:core/v1:Secret"]


def test_a_name_left_out_is_made_marked_and_kept():
    """The annotation tells later runs that the name is theirs to keep, whatever they would make themselves."""
    made = objects.complete(CONFIG_MAP, {}, old={}, name="a-1234abcd", namespace="n")

    assert made["metadata"] == {
        "namespace": "n", "name": "a-1234abcd", "annotations": {"pulumi.com/autonamed": "true"},
    }  # fmt: skip
    assert objects.complete(CONFIG_MAP, {}, old=made, name="a-ffffffff", namespace="n") == made


def test_a_name_that_the_program_had_given_is_not_kept():
    """It was not made here: leaving it out asks for a made one."""
    old = {"metadata": {"name": "given", "namespace": "n"}}

    assert objects.complete(CONFIG_MAP, {}, old=old, name="a-1", namespace="n")["metadata"]["name"] == "a-1"


def test_a_namespace_that_is_not_known_yet_stays_so():
    """It is another resource's output."""
    made = objects.complete(CONFIG_MAP, {"metadata": {"namespace": UNKNOWN}}, old={}, name="a", namespace="n")

    assert made["metadata"]["namespace"] is UNKNOWN


def test_text_of_a_secret_is_sent_as_data_and_nulls_and_status_are_not_sent():
    """The server keeps data alone, and a field that is null is one that was left out."""
    sent = objects.to_apply(
        SECRET, {"stringData": {"a": "b"}, "data": {"c": "ZA=="}, "type": None, "status": {}, "metadata": {"name": "s"}}
    )

    assert sent == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"a": base64.b64encode(b"b").decode(), "c": "ZA=="},
    }


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"stringData": {"port": 5}}, {"data": {"port": 5}}),
        ({"stringData": "text"}, {"stringData": "text"}),
        ({"stringData": {"a": "b"}, "data": ["c"]}, {"stringData": {"a": "b"}, "data": ["c"]}),
    ],
)
def test_what_is_no_text_of_a_secret_is_the_server_s_to_refuse(given, sent):
    """A number where a text should be is a line of the server's, and no traceback."""
    assert objects.to_apply(SECRET, given) == {"apiVersion": "v1", "kind": "Secret", **sent}


def test_a_specification_of_another_shape_is_the_server_s_to_refuse():
    """It is planned as it is given."""
    assert objects.planned(KINDS["kubernetes:core/v1:Service"], {"spec": ["port"]})["spec"] == ["port"]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": None}, {"a": 2}, {"a": "update"}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, {"a.b[1]": "update"}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": "update"}),
        ({"a": {"x/y.z": "1"}}, {"a": {}}, {'a["x/y.z"]': "delete"}),
        ({}, {"a": {}}, {"a": "add"}),
        ({"a": UNKNOWN}, {"a": UNKNOWN}, {}),
    ],
)
def test_differences_are_told_by_path(old, new, changed):
    """Added, deleted, updated; the engine shows them so."""
    assert objects.changed_paths(old, new) == changed


@pytest.mark.parametrize(
    ("annotation", "value", "problem"),
    [
        ("pulumi.com/waitFor", "condition=Ready", "not covered by this provider"),
        ("pulumi.com/replaceUnready", "true", "not covered by this provider"),
        ("pulumi.com/timeoutSeconds", "10s", "expected a number of seconds"),
        ("pulumi.com/deletionPropagationPolicy", "none", "expected one of foreground, background, orphan"),
    ],
)
def test_an_annotation_that_cannot_be_obeyed_is_refused(annotation, value, problem):
    """Silence would look like obedience."""
    inputs = {"metadata": {"annotations": {annotation: value}}}

    assert objects.problems(CONFIG_MAP, inputs) == {f"metadata.annotations[{annotation}]": problem}


def test_configuration_wins_over_the_environment_and_flags_come_as_text():
    """The SDK sends JSON text."""
    environment = {"PULUMI_K8S_DELETE_UNREACHABLE": "true", "PULUMI_K8S_ENABLE_SECRET_MUTABLE": "true"}

    loaded = configuration.load({"enableSecretMutable": "false", "namespace": "n", "context": "c"}, environment)

    assert (loaded.secret_mutable, loaded.delete_unreachable) == (False, True)
    assert (loaded.namespace, loaded.context, loaded.is_known) == ("n", "c", True)
    assert "kubeconfig" not in repr(configuration.load({"kubeconfig": "secret: 1\n"}, {}))


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"renderYamlToDirectory": "x"}, "kubernetes:renderYamlToDirectory: not covered by this provider"),
        ({"enableServerSideApply": "false"}, "kubernetes:enableServerSideApply: this provider knows server-side apply alone"),
        ({"deleteUnreachable": "maybe"}, "kubernetes:deleteUnreachable: expected true or false"),
        ({"context": 5}, "kubernetes:context: expected a string"),
    ],
)  # fmt: skip
def test_what_cannot_be_configured_is_told(inputs, told):
    """By key, with what is known."""
    with pytest.raises(InvalidConfiguration, match=f"^{told}"):
        configuration.load(inputs, {})


def test_a_cluster_that_the_program_has_yet_to_make_is_not_known():
    """So the default one is not asked instead."""
    assert configuration.load({"kubeconfig": UNKNOWN}, {}).is_known is False
