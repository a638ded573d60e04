"""What the node of the local Kubernetes has on its disk, and the objects that its API server begins with; pure.

The control plane is the stock one, as services of the node's systemd. Configuration is JSON, which every part of
Kubernetes reads where it reads YAML.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE = "node-1"
ADDRESS = "198.51.100.8"
"""Of the addresses that the API never gives to a server."""
API_PORT = 6443
READY_PORT = 8181
"""Where CoreDNS says that it knows the cluster's services."""
SERVICES, FIRST_SERVICE, DNS_SERVICE = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
PODS = "10.244.0.0/16"
DOMAIN = "cluster.local"
PROVISIONER = "slipway.local/folder"
VOLUMES = "/var/lib/volumes"
DISKS = ("var/lib/etcd", "var/lib/kubelet", VOLUMES.removeprefix("/"))

TOOLS, RUNTIME, PLUGINS, IMAGES = "/opt/kubernetes", "/opt/containerd", "/opt/cni/bin", "/opt/images"
"""Where the node finds what is kept in this host's cache: Go tools, Debian's containerd and CNI plugins, container images."""

_CONFIG = "/etc/kubernetes"
_PKI = f"{_CONFIG}/pki"
_UNITS = "etc/systemd/system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a certificate speaks for: user and group by Kubernetes' reading of the subject, and names it serves at."""

    user: str
    group: str = ""
    serves: tuple[str, ...] = ()


IDENTITIES: Mapping[str, Identity] = {
    "apiserver": Identity(
        user="kube-apiserver",
        serves=(
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            f"DNS:kubernetes.default.svc.{DOMAIN}",
            "DNS:localhost",
            "IP:127.0.0.1",
            f"IP:{FIRST_SERVICE}",
            f"IP:{ADDRESS}",
        ),
    ),
    "apiserver-kubelet-client": Identity(user="kube-apiserver-kubelet-client", group="system:masters"),
    "admin": Identity(user="admin", group="system:masters"),
    "controller-manager": Identity(user="system:kube-controller-manager"),
    "scheduler": Identity(user="system:kube-scheduler"),
    "proxy": Identity(user="system:kube-proxy"),
    "kubelet": Identity(user=f"system:node:{NODE}", group="system:nodes", serves=(f"DNS:{NODE}", f"IP:{ADDRESS}")),
    "coredns": Identity(user="coredns"),
    "volumes": Identity(user="volumes"),
    "service-accounts": Identity(user="service-accounts"),  # its key signs their tokens
}

_API_SERVER = f"""\
{TOOLS}/kube-apiserver \
--advertise-address={ADDRESS} --secure-port={API_PORT} --etcd-servers=http://127.0.0.1:2379 \
--service-cluster-ip-range={SERVICES} --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
--allow-privileged=true --anonymous-auth=false --client-ca-file={_PKI}/ca.crt \
--tls-cert-file={_PKI}/apiserver.crt --tls-private-key-file={_PKI}/apiserver.key \
--kubelet-client-certificate={_PKI}/apiserver-kubelet-client.crt \
--kubelet-client-key={_PKI}/apiserver-kubelet-client.key --kubelet-certificate-authority={_PKI}/ca.crt \
--kubelet-preferred-address-types=InternalIP \
--service-account-issuer=https://kubernetes.default.svc.{DOMAIN} \
--service-account-key-file={_PKI}/service-accounts.crt --service-account-signing-key-file={_PKI}/service-accounts.key"""

_CONTROLLER_MANAGER = f"""\
{TOOLS}/kube-controller-manager --kubeconfig={_CONFIG}/controller-manager.conf \
--authentication-kubeconfig={_CONFIG}/controller-manager.conf --authorization-kubeconfig={_CONFIG}/controller-manager.conf \
--use-service-account-credentials --service-account-private-key-file={_PKI}/service-accounts.key \
--root-ca-file={_PKI}/ca.crt --leader-elect=false --bind-address=127.0.0.1 \
--cluster-signing-cert-file={_PKI}/ca.crt --cluster-signing-key-file={_PKI}/ca.key"""

_SCHEDULER = f"""\
{TOOLS}/kube-scheduler --kubeconfig={_CONFIG}/scheduler.conf --authentication-kubeconfig={_CONFIG}/scheduler.conf \
--authorization-kubeconfig={_CONFIG}/scheduler.conf --leader-elect=false --bind-address=127.0.0.1"""


def _unit(description: str, command: str, *, after: str = "", kind: str = "notify", environment: str = "") -> str:
    restart = "" if kind == "oneshot" else "Restart=always\nRestartSec=200ms\n"
    return (
        f"[Unit]\nDescription={description}\nStartLimitIntervalSec=0\n"
        + "".join(f"{relation}={after}\n" for relation in ("Wants", "After") if after)
        + f"\n[Service]\nType={kind}\n"
        + ("RemainAfterExit=yes\n" if kind == "oneshot" else "")
        + (f"Environment={environment}\n" if environment else "")
        + f"ExecStart={command}\nTimeoutStartSec=120\n{restart}"
        # What runs in a pod outlives the restart of whoever started it.
        + "KillMode=process\n\n[Install]\nWantedBy=multi-user.target\n"
    )


UNITS: Mapping[str, str] = {
    "etcd": _unit(
        "etcd", f"{TOOLS}/etcd --data-dir=/var/lib/etcd --unsafe-no-fsync --listen-client-urls=http://127.0.0.1:2379"
        " --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380",
    ),
    "kube-apiserver": _unit("Kubernetes: API server", _API_SERVER, after="etcd.service"),
    "kube-controller-manager": _unit(
        "Kubernetes: controllers", _CONTROLLER_MANAGER, after="kube-apiserver.service", kind="exec"
    ),
    "kube-scheduler": _unit("Kubernetes: scheduler", _SCHEDULER, after="kube-apiserver.service", kind="exec"),
    "containerd": _unit("containerd", f"{RUNTIME}/containerd", environment=f"PATH={RUNTIME}:/usr/sbin:/usr/bin:/sbin:/bin"),
    "images": _unit(
        "Images that the node has without a registry",
        f"{RUNTIME}/ctr --namespace k8s.io images import --no-unpack {IMAGES}/images.tar",
        after="containerd.service",
        kind="oneshot",
    ),
    # A node that is ready has its images.
    "kubelet": _unit(
        "Kubernetes: kubelet",
        f"{TOOLS}/kubelet --kubeconfig={_CONFIG}/kubelet.conf --config={_CONFIG}/kubelet.json --node-ip={ADDRESS}",
        after="images.service kube-apiserver.service",
    ),
    "kube-proxy": _unit(
        "Kubernetes: services",
        f"{TOOLS}/kube-proxy --kubeconfig={_CONFIG}/proxy.conf --proxy-mode=iptables --cluster-cidr={PODS}"
        " --conntrack-max-per-core=0 --metrics-bind-address=127.0.0.1:10249",
        after="kube-apiserver.service",
        kind="exec",
    ),
    "coredns": _unit("CoreDNS", f"{TOOLS}/coredns -conf {_CONFIG}/Corefile", after="kube-apiserver.service", kind="exec"),
    "volumes": _unit(
        "Volumes for claims",
        f"{TOOLS}/volumes --provisioner={PROVISIONER} --kubeconfig={_CONFIG}/volumes.conf --root={VOLUMES}",
        after="kube-apiserver.service",
        kind="exec",
    ),
}  # fmt: skip

_COREFILE = f"""\
. {{
    bind {ADDRESS}
    errors
    ready {ADDRESS}:{READY_PORT}
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {_CONFIG}/coredns.conf
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""

_CONTAINERD = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  sandbox_image = "registry.k8s.io/pause:3.10"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{PLUGINS}"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""

_KUBELET: Mapping[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": f"{_PKI}/ca.crt"},
    },
    "authorization": {"mode": "Webhook"},
    "tlsCertFile": f"{_PKI}/kubelet.crt",
    "tlsPrivateKeyFile": f"{_PKI}/kubelet.key",
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "clusterDomain": DOMAIN,
    "clusterDNS": [DNS_SERVICE],
    "resolvConf": "",
    # The node is a machine inside this host: control groups of version 1, no limits of its own, and it may not make
    # itself less of a victim when memory runs out.
    "cgroupDriver": "cgroupfs",
    "failCgroupV1": False,
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "failSwapOn": False,
    "oomScoreAdj": 0,
    # How full the host's disk is says nothing about this cluster, and no registry could give an image back.
    "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    "imageGCHighThresholdPercent": 100,
}

_NETWORK: Mapping[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def render_files(keys: Mapping[str, str]) -> Mapping[str, str]:
    """Render the files of the node's disk: path below the root → text. `keys`: file name below pki/ → PEM."""
    return {
        **{f"etc/kubernetes/pki/{name}": text for name, text in keys.items()},
        **{
            f"etc/kubernetes/{name}.conf": json.dumps(render_kubeconfig(name, "127.0.0.1"))
            for name in IDENTITIES
            if name not in ("admin", "apiserver", "apiserver-kubelet-client", "service-accounts")
        },
        "etc/kubernetes/kubelet.json": json.dumps(_KUBELET),
        "etc/kubernetes/Corefile": _COREFILE,
        "etc/containerd/config.toml": _CONTAINERD,
        "etc/cni/net.d/10-pods.conflist": json.dumps(_NETWORK),
        "etc/sysctl.d/60-cluster.conf": "net.ipv4.ip_forward = 1\n",
        "etc/cloud/cloud-init.disabled": "",
        **{f"{_UNITS}/{name}.service": text for name, text in UNITS.items()},
    }


def render_links() -> Mapping[str, str]:
    """Render the symbolic links of the node's disk: path below the root → target."""
    return {
        **{f"{_UNITS}/multi-user.target.wants/{name}.service": f"../{name}.service" for name in UNITS},
        f"{_UNITS}/ssh.service": "/dev/null",  # kubectl is the way in, and there are no host keys
    }


def render_kubeconfig(name: str, host: str, keys: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Render the way to the API server for an identity; with `keys` they are inside, otherwise files of the node."""

    def place(field: str, file: str) -> dict[str, str]:
        if keys is None:
            return {field: f"{_PKI}/{file}"}
        return {f"{field}-data": base64.b64encode(keys[file].encode()).decode()}

    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "localcloud",
                "cluster": {"server": f"https://{host}:{API_PORT}", **place("certificate-authority", "ca.crt")},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {**place("client-certificate", f"{name}.crt"), **place("client-key", f"{name}.key")},
            }
        ],
        "contexts": [{"name": "localcloud", "context": {"cluster": "localcloud", "user": name}}],
        "current-context": "localcloud",
    }


def objects() -> Mapping[str, Mapping[str, Any]]:
    """Give what a fresh cluster is told: API path → object."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    storage = "/apis/storage.k8s.io/v1/storageclasses"
    dns_ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    reads = ["get", "list", "watch"]
    roles = {
        "coredns": [
            _rule("", ["namespaces", "pods", "services"], reads),
            _rule("discovery.k8s.io", ["endpointslices"], reads),
        ],
        "volumes": [
            _rule("", ["persistentvolumes"], [*reads, "create", "update", "patch", "delete"]),
            _rule("", ["persistentvolumeclaims"], [*reads, "update", "patch"]),
            _rule("", ["nodes", "pods"], reads),
            _rule("storage.k8s.io", ["storageclasses"], reads),
            _rule("", ["events"], ["create", "update", "patch"]),
        ],
    }
    return {
        f"{storage}/local": _storage_class("local", "Delete", default=True),
        f"{storage}/local-retain": _storage_class("local-retain", "Retain", default=False),
        **{
            f"{rbac}/clusterroles/localcloud-{name}": {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": f"localcloud-{name}"},
                "rules": rules,
            }
            for name, rules in roles.items()
        },
        **{
            f"{rbac}/clusterrolebindings/localcloud-{name}": {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"localcloud-{name}"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": f"localcloud-{name}",
                },
                "subjects": [
                    {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": IDENTITIES[name].user},
                ],
            }
            for name in roles
        },
        "/api/v1/namespaces/kube-system/services/kube-dns": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": DNS_SERVICE, "ports": dns_ports},
        },
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns": {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            "ports": dns_ports,
        },
    }


def _storage_class(name: str, reclaim: str, *, default: bool) -> dict[str, Any]:
    marks = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, **marks},
        "provisioner": PROVISIONER,
        "reclaimPolicy": reclaim,
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, list[str]]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}
