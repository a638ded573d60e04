"""The kinds that the provider covers, each with what it needs to know beyond the API server (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OF_EVERY_OBJECT = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind in one group and version.

    `replaces`: paths whose change needs another object. `data`: the same, unless the provider may change data in place.
    `computed`: paths that the server fills in. `secret`: top-level properties that are secret whatever the program says.
    """

    api_version: str
    name: str
    plural: str
    namespaced: bool = True
    replaces: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()

    @property
    def token(self) -> str:
        """The type of a resource in a program: kubernetes:core/v1:ConfigMap."""
        return f"kubernetes:{self.api_version if '/' in self.api_version else f'core/{self.api_version}'}:{self.name}"

    def path(self, namespace: str | None, name: str = "", **query: str) -> str:
        """Return the request path of one object, or of all in the namespace."""
        root = "apis" if "/" in self.api_version else "api"
        parts = [root, self.api_version, *(("namespaces", quote(namespace)) if namespace else ()), self.plural]
        path = "/" + "/".join([*parts, *([quote(name, safe="")] if name else [])])
        return f"{path}?{urlencode(query)}" if query else path

    def replacing(self, paths: Iterable[str], *, mutable: bool) -> list[str]:
        """Return those of the changed paths that need another object."""
        rules = (*_OF_EVERY_OBJECT, *self.replaces, *(() if mutable else self.data))
        return [path for path in paths if any(_reaches(path, rule) for rule in rules)]


def _reaches(path: str, rule: str) -> bool:
    """Tell whether a change at `path` is one at, inside or around the place that the rule names."""
    return any(longer == shorter or longer.startswith((f"{shorter}.", f"{shorter}["))
               for longer, shorter in ((path, rule), (rule, path)))  # fmt: skip


POD = Kind(api_version="v1", name="Pod", plural="pods")
ENDPOINT_SLICE = Kind(api_version="discovery.k8s.io/v1", name="EndpointSlice", plural="endpointslices")
STORAGE_CLASS = Kind(api_version="storage.k8s.io/v1", name="StorageClass", plural="storageclasses", namespaced=False)
"""Kinds that are only looked at."""

KINDS: Mapping[str, Kind] = {
    kind.token: kind
    for kind in (
        Kind(api_version="v1", name="Namespace", plural="namespaces", namespaced=False, computed=("status",)),
        Kind(
            api_version="v1",
            name="PersistentVolumeClaim",
            plural="persistentvolumeclaims",
            replaces=("spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeName"),
            computed=("status",),
        ),
        Kind(api_version="v1", name="ConfigMap", plural="configmaps", data=("data", "binaryData")),
        Kind(
            api_version="v1",
            name="Secret",
            plural="secrets",
            replaces=("type",),
            data=("data", "stringData"),
            secret=("data", "stringData"),
        ),
        Kind(api_version="v1", name="ServiceAccount", plural="serviceaccounts"),
        Kind(
            api_version="v1",
            name="Service",
            plural="services",
            replaces=("spec.clusterIP",),
            computed=("spec.clusterIP", "spec.clusterIPs", "status"),
        ),
        Kind(
            api_version="apps/v1",
            name="Deployment",
            plural="deployments",
            replaces=("spec.selector",),
            computed=("status",),
        ),
        Kind(api_version="batch/v1", name="CronJob", plural="cronjobs", computed=("status",)),
        Kind(api_version="networking.k8s.io/v1", name="Ingress", plural="ingresses", computed=("status",)),
        Kind(api_version="networking.k8s.io/v1", name="NetworkPolicy", plural="networkpolicies"),
        Kind(api_version="rbac.authorization.k8s.io/v1", name="Role", plural="roles"),
        Kind(
            api_version="rbac.authorization.k8s.io/v1",
            name="RoleBinding",
            plural="rolebindings",
            replaces=("roleRef",),
        ),
    )
}
