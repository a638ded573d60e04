"""The registry's Kubernetes objects as values (pure), in the API's own words; infra.components.registry declares them.

What only exists later (an address, a digest) arrives as an argument and is put in its place as it is.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.registry_setting import COLLECTOR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.registry_setting import RegistrySetting

NAME = "registry"
COLLECTION = "registry-gc"
CONFIGURATION, PROGRAM = "registry-config", "registry-program"
TLS, USERS, HTTP, LOGIN = "registry-tls", "registry-users", "registry-http", "registry-gc-login"
PORT, METRICS_PORT = 5000, 5001

_USER_ID = 1000
_STORE = "/var/lib/registry"
_CONFIG_FOLDER, _TLS_FOLDER, _USERS_FOLDER = "/etc/slipway/registry", "/etc/slipway/tls", "/etc/slipway/users"
_PROGRAM_FOLDER, _LOGIN_FOLDER, _CA_FOLDER = "/opt/slipway", "/etc/slipway/login", "/etc/slipway/ca"
_DRAIN_S = 30  # a push under way goes on for so long after the pod was told to end
_API_PORTS = (443, 6443, 8443, 16443)  # of API servers behind their Service, as distributions have them
_APPLIED = "slipway/applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """Renders the objects of one registry; `stack` tells whose they are, `program` is the job's file by its name."""

    setting: RegistrySetting
    stack: str
    entrypoint: str
    mode: str
    program: str

    def metadata(
        self, name: str, component: str = NAME, annotations: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return name, namespace and labels of an object.

        All are applied by one field manager of the stack's, so that a stack made anew goes on with what an older one of its
        name left, and the server refuses another stack's: the label is held by another manager.
        """
        return {
            "name": name,
            "namespace": self.setting.namespace,
            "labels": {**_labels(component), "slipway-stack": self.stack},
            "annotations": {"pulumi.com/patchFieldManager": self.stack, **(annotations or {})},
        }

    def namespace(self) -> dict[str, Any]:
        """Return the metadata of the namespace."""
        metadata = self.metadata(self.setting.namespace)
        del metadata["namespace"]
        return metadata

    def claim(self) -> dict[str, Any]:
        """Ask for one node's volume: pods of one node share it, and a roll has two there for a moment."""
        storage_class = {"storageClassName": self.setting.storage_class} if self.setting.storage_class else {}
        return {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": self.setting.storage_size}},
            **storage_class,
        }

    def configuration(self) -> str:
        """Render the registry's configuration; JSON is YAML. It says nothing of read-only: that is the mode, in the environment."""
        http: dict[str, Any] = {
            "addr": f":{PORT}",
            "headers": {"X-Content-Type-Options": ["nosniff"]},
            "relativeurls": True,  # what ends TLS in front of it may not tell that there was TLS
            "draintimeout": f"{_DRAIN_S}s",
            "debug": {"addr": f"127.0.0.1:{METRICS_PORT}", "prometheus": {"enabled": True, "path": "/metrics"}},
        }
        if self.setting.pod_ends_tls:
            http["tls"] = {"certificate": f"{_TLS_FOLDER}/tls.crt", "key": f"{_TLS_FOLDER}/tls.key"}
        whole: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "fields": {"service": NAME}},
            "storage": {
                "filesystem": {"rootdirectory": _STORE},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": http,
        }
        if self.setting.users:
            whole["auth"] = {"htpasswd": {"realm": self.setting.host, "path": f"{_USERS_FOLDER}/htpasswd"}}
        return json.dumps(whole, indent=2) + "\n"

    def deployment(self, *, applied: Any) -> dict[str, Any]:
        """Run one pod, replaced by a second one on the same node before it goes, so that pulls are answered throughout.

        `applied`: a digest of what the registry reads at its start.
        """
        volumes = [
            {"name": "store", "persistentVolumeClaim": {"claimName": NAME}},
            {"name": "config", "configMap": {"name": CONFIGURATION}},
        ]
        mounts = [{"name": "store", "mountPath": _STORE}, _mount("config", _CONFIG_FOLDER)]
        if self.setting.pod_ends_tls:
            volumes.append({"name": "tls", "secret": {"secretName": self.tls_secret, "defaultMode": 0o440}})
            mounts.append(_mount("tls", _TLS_FOLDER))
        if self.setting.users:
            volumes.append({"name": "users", "secret": {"secretName": USERS, "defaultMode": 0o440}})
            mounts.append(_mount("users", _USERS_FOLDER))
        # Not /v2/: with users it answers 401, which a probe takes for a failure.
        probe = {"httpGet": {"path": "/", "port": PORT, "scheme": "HTTPS" if self.setting.pod_ends_tls else "HTTP"}}
        secret = {"secretKeyRef": {"name": HTTP, "key": "secret"}}
        serve = ["registry", "serve", f"{_CONFIG_FOLDER}/config.yml"]
        theirs = self.setting.pod_ends_tls and self.setting.tls.kind == "secret"
        entrypoint = (ends_on_change(f"{_TLS_FOLDER}/tls.crt") if theirs else "") + self.entrypoint
        container = {
            "name": NAME,
            "image": self.setting.registry_image,
            # The entrypoint obeys the mode's expiry, and ends the registry with what runs in it.
            "command": ["sh", "-c", entrypoint, "slipway", *serve],
            "env": [{"name": "REGISTRY_HTTP_SECRET", "valueFrom": secret}],
            "envFrom": [{"configMapRef": {"name": self.mode, "optional": True}}],
            "ports": [{"name": NAME, "containerPort": PORT, "protocol": "TCP"}],
            "volumeMounts": mounts,
            "readinessProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3},
            "livenessProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
            # Clients are sent here for a moment after the pod was told to end.
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
            "resources": {
                "requests": {"cpu": "50m", "memory": "128Mi"},
                "limits": {"cpu": "2", "memory": "1Gi"},
            },
            "securityContext": _CONTAINER_SECURITY,
        }
        spec = {
            "automountServiceAccountToken": False,
            # Variables of a Service named registry would be read as configuration.
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _DRAIN_S + 15,
            "securityContext": _POD_SECURITY,
            # A volume of a network's can be on one node only, and the scheduler would rather spread the two pods of a roll.
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_BESIDE_ITSELF]}},
            "containers": [container],
            "volumes": volumes,
        }
        return {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": _labels(NAME)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": _labels(NAME), "annotations": {_APPLIED: applied}},
                "spec": spec,
            },
        }

    def service(self) -> dict[str, Any]:
        """Open a port on every node, or inside the cluster alone where an Ingress leads here."""
        port: dict[str, Any] = {"name": NAME, "port": PORT, "targetPort": PORT, "protocol": "TCP"}
        if self.setting.node_port:
            port["nodePort"] = self.setting.node_port
        kind = "NodePort" if self.setting.node_port else "ClusterIP"
        return {"type": kind, "selector": _labels(NAME), "ports": [port]}

    def ingress_annotations(self) -> dict[str, str]:
        """Allow for layers larger than what nginx takes or keeps on its own disk, and for controllers that tell no address to wait for."""
        ingress = self.setting.ingress
        return {
            "nginx.ingress.kubernetes.io/proxy-body-size": "0",
            "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
            "nginx.ingress.kubernetes.io/proxy-read-timeout": "900",
            "nginx.ingress.kubernetes.io/proxy-send-timeout": "900",
            "pulumi.com/skipAwait": "true",
            **(ingress.annotations if ingress else {}),
            **self.setting.tls.annotations,
        }

    def ingress(self) -> dict[str, Any]:
        """Lead everything of the host to the registry; TLS ends in front of it."""
        ingress = self.setting.ingress
        backend = {"service": {"name": NAME, "port": {"number": PORT}}}
        host = {} if self.setting.names_an_address else {"host": self.setting.host_name}
        return {
            **({"ingressClassName": ingress.class_name} if ingress and ingress.class_name else {}),
            "rules": [{**host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
            "tls": [{"hosts": [self.setting.host_name] if host else [], "secretName": self.tls_secret}],
        }

    def registry_policy(self) -> dict[str, Any]:
        """Let in who can reach the registry, and let it reach nobody itself."""
        return {
            "podSelector": {"matchLabels": _labels(NAME)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": PORT}]}],
        }

    def collection_policy(self) -> dict[str, Any]:
        """Let the job reach the registry and the API server, and nobody the job."""
        api = [{"protocol": "TCP", "port": port} for port in _API_PORTS]
        return {
            "podSelector": {"matchLabels": _labels(COLLECTION)},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [
                {
                    "to": [{"podSelector": {"matchLabels": _labels(NAME)}}],
                    "ports": [{"protocol": "TCP", "port": PORT}],
                },
                {"ports": api},
            ],
        }

    def role(self) -> list[dict[str, Any]]:
        """Grant every right that the job uses, and no other."""
        return [
            {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": [NAME], "verbs": ["get", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},  # what is not there has no name yet
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": [self.mode],
                "verbs": ["get", "update", "patch", "delete"],
            },
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
        ]

    def collection(self, *, address: Any) -> dict[str, Any]:
        """Run the job every night; `address` is the Service's, by which it needs no name server."""
        given = self.setting.collection
        volumes: list[dict[str, Any]] = [
            {"name": "program", "configMap": {"name": PROGRAM}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ]
        mounts = [_mount("program", _PROGRAM_FOLDER), {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - in the pod
        environment = {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}  # noqa: S108
        if self.setting.users:
            volumes.append({"name": "login", "secret": {"secretName": LOGIN, "defaultMode": 0o440}})
            mounts.append(_mount("login", _LOGIN_FOLDER))
            environment["DOCKER_CONFIG"] = _LOGIN_FOLDER
        if self.has_ca:
            volumes.append(
                {"name": "ca", "configMap": {"name": CONFIGURATION, "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
            )
            mounts.append(_mount("ca", _CA_FOLDER))
        container = {
            "name": "gc",
            "image": self.setting.python_image,
            "command": ["python3", f"{_PROGRAM_FOLDER}/{self.program}", *self.arguments()],
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "volumeMounts": mounts,
            # A run takes half a gigabyte for 10,000 images (docs/gc.md).
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
            "securityContext": _CONTAINER_SECURITY,
        }
        pod = {
            "serviceAccountName": COLLECTION,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "securityContext": _POD_SECURITY,
            "hostAliases": [{"ip": address, "hostnames": [self.reached_as]}],
            "containers": [container],
            "volumes": volumes,
        }
        return {
            "schedule": given.schedule,
            "timeZone": given.time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 1,
                    "activeDeadlineSeconds": 6 * 3600,
                    "template": {"metadata": {"labels": _labels(COLLECTION)}, "spec": pod},
                }
            },
        }

    def arguments(self) -> list[str]:
        """Tell the job's program what to do."""
        trust = [] if self.setting.pod_ends_tls else ["--plain-http"]
        if self.has_ca:
            trust = ["--ca", f"{_CA_FOLDER}/ca.crt"]
        return ["gc", self.reached_at, "--in-cluster", *self._place, *trust, *self._rules]

    def operator_arguments(self) -> list[str]:
        """Tell `slipway gc` on an operator's machine what the job is told; kubeconfig and authority come with it."""
        context = [f"--context={self.setting.context}"] if self.setting.context else []
        return [self.setting.host, *self._place, *context, *self._rules]

    @property
    def _place(self) -> list[str]:
        return ["--namespace", self.setting.namespace, "--deployment", NAME]

    @property
    def _rules(self) -> list[str]:
        given = self.setting.collection
        options = {
            "--grace": given.grace,
            "--keep-last": given.keep_last,
            "--keep-matching": given.keep_matching,
            "--keep-within": given.keep_within,
        }
        return [f"{option}={value}" for option, value in options.items() if value is not None]

    @property
    def tls_secret(self) -> str:
        """The Secret with the certificate, ours or not."""
        return self.setting.tls.secret or TLS

    @property
    def has_ca(self) -> bool:
        """Tell whether the job needs an authority's certificate to trust the registry."""
        return self.setting.pod_ends_tls and (self.setting.tls.kind == "authority" or self.setting.tls.ca is not None)

    @property
    def certified_names(self) -> list[str]:
        """What the certificate by the stack's authority speaks for: what clients type, and what the job does."""
        return [self.setting.host_name, f"{NAME}.{self.setting.namespace}.svc"]

    @property
    def reached_as(self) -> str:
        """The name by which the job knows the registry: one that its certificate speaks for."""
        if self.setting.pod_ends_tls and self.setting.tls.kind == "secret":
            return self.setting.host_name
        return f"{NAME}.{self.setting.namespace}.svc"

    @property
    def reached_at(self) -> str:
        """Where the job reaches the registry: the Service's own port."""
        return f"{self.reached_as}:{PORT}"

    def login(self, password: str) -> str:
        """Return the Docker configuration with which the job logs in."""
        auth = base64.b64encode(f"{COLLECTOR}:{password}".encode()).decode()
        return json.dumps({"auths": {self.reached_at: {"auth": auth}}})

    def trust(self, ca: str) -> str:
        """Return the lines to put on machines that shall trust the registry; Pulumi cannot make nodes trust it."""
        host = self.setting.host
        folder = f"/etc/containerd/certs.d/{host}"
        docker = f"/etc/docker/certs.d/{host}"
        return f"""\
# Kubernetes nodes, containerd: in /etc/containerd/config.toml the registry's config_path = "/etc/containerd/certs.d"
mkdir -p {folder}
cat > {folder}/ca.crt <<'END'
{ca.strip()}
END
cat > {folder}/hosts.toml <<'END'
server = "https://{host}"

[host."https://{host}"]
  ca = "{folder}/ca.crt"
END

# Docker
mkdir -p {docker}
cat > {docker}/ca.crt <<'END'
{ca.strip()}
END
"""


def ends_on_change(path: str, *, every_s: int = 60) -> str:
    """Return shell code that ends the process that runs it, whatever that becomes, once a file is another.

    The registry reads its certificate at its start alone.
    """
    return f"""\
read -r self _ </proc/self/stat
(
	began=$(sha256sum <{path})
	while kill -0 "$self" 2>/dev/null && [ "$(sha256sum <{path})" = "$began" ]; do sleep {every_s}; done
	kill -TERM "$self" 2>/dev/null
) &
"""


_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": _USER_ID,
    "runAsGroup": _USER_ID,
    "fsGroup": _USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _labels(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "slipway",
    }


_BESIDE_ITSELF = {"labelSelector": {"matchLabels": _labels(NAME)}, "topologyKey": "kubernetes.io/hostname"}


def _mount(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "mountPath": path, "readOnly": True}
