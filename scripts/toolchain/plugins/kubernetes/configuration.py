"""The provider's own configuration: which cluster, as whom, and what may be done to it; checked without a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.errors import InvalidConfiguration
from scripts.toolchain.plugins.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXTS = ("kubeconfig", "context", "namespace", "clusterIdentifier")
_FLAGS = {
    "enableSecretMutable": "PULUMI_K8S_ENABLE_SECRET_MUTABLE",
    "enableConfigMapMutable": "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE",
    "deleteUnreachable": "PULUMI_K8S_DELETE_UNREACHABLE",
    "upsertExistingObjects": "PULUMI_K8S_UPSERT_EXISTING_OBJECTS",
    "enableServerSideApply": "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY",
}
_ACCEPTED = ("suppressDeprecationWarnings", "suppressHelmHookWarnings")  # there is nothing here to suppress
_ENGINE_KEYS = frozenset({"version", "pluginDownloadURL", "__internal", "__defaults"})
KEYS = (*_TEXTS, *_FLAGS, *_ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One cluster. `kubeconfig` is a file's path or its content; empty: KUBECONFIG, or ~/.kube/config."""

    kubeconfig: str = field(default="", repr=False)
    context: str = ""
    namespace: str = ""
    is_known: bool = True  # false in a preview whose program has yet to make the cluster
    secret_mutable: bool = False
    config_map_mutable: bool = False
    delete_unreachable: bool = False
    upsert: bool = False

    def may_change_data(self, kind: str) -> bool:
        """Tell whether data of a Secret or ConfigMap is changed in place."""
        return {"Secret": self.secret_mutable, "ConfigMap": self.config_map_mutable}.get(kind, False)


def problems(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with the configuration as the engine hands it over, by key."""
    found = {}
    for name, value in inputs.items():
        if name in _ENGINE_KEYS or value is UNKNOWN:
            continue
        if name not in KEYS:
            found[name] = f"not covered by this provider, which knows {', '.join(KEYS)}"
        elif name in _TEXTS and not isinstance(value, str):
            found[name] = "expected a string"
        elif name in _FLAGS and _flag(value) is None:
            found[name] = "expected true or false"
        elif name == "enableServerSideApply" and not _flag(value):
            found[name] = "this provider knows server-side apply alone"
    return found


def load(inputs: Mapping[str, Any], environment: Mapping[str, str]) -> Configuration:
    """Join configuration and environment; the configuration wins. Raise InvalidConfiguration."""
    if found := problems(inputs):
        raise InvalidConfiguration("; ".join(f"kubernetes:{name}: {problem}" for name, problem in found.items()))
    flags = {
        name: bool(_flag(inputs.get(name, environment.get(variable, "false")))) for name, variable in _FLAGS.items()
    }
    texts = {name: inputs.get(name) or "" for name in _TEXTS}
    return Configuration(
        kubeconfig="" if texts["kubeconfig"] is UNKNOWN else texts["kubeconfig"],
        context="" if texts["context"] is UNKNOWN else texts["context"],
        namespace="" if texts["namespace"] is UNKNOWN else texts["namespace"],
        is_known=UNKNOWN not in {texts["kubeconfig"], texts["context"]},
        secret_mutable=flags["enableSecretMutable"],
        config_map_mutable=flags["enableConfigMapMutable"],
        delete_unreachable=flags["deleteUnreachable"],
        upsert=flags["upsertExistingObjects"],
    )


def is_content(kubeconfig: str) -> bool:
    """Tell a kubeconfig's content from the path of its file."""
    return "\n" in kubeconfig or kubeconfig.lstrip().startswith("{")


def _flag(value: Any) -> bool | None:
    # The SDK sends a flag as JSON text.
    return {True: True, False: False, "true": True, "false": False, "1": True, "0": False}.get(value)
