"""The registry on a Kubernetes cluster, with its collection of garbage."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import pulumi_kubernetes as kubernetes
from pulumi import ComponentResource, Output, ResourceOptions

from builders import registry_program
from infra import registry_objects as names
from infra.registry_objects import COLLECTION, NAME, Objects
from infra.registry_setting import COLLECTOR
from infra.resources.keys import Password, ServerCertificate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.registry_setting import RegistrySetting
    from infra.resources.keys import Authority


class Registry(ComponentResource):
    """registry:2 behind its own TLS or an Ingress.

    Protected like the rest of what stays between releases: `pulumi destroy --exclude-protected` keeps it, and what it needs. The
    claim is left in the cluster even by a destroy that removes all, its namespace with it, and is taken up again.
    """

    def __init__(
        self,
        setting: RegistrySetting,
        *,
        stack: str,
        authority: Authority,
        program: bytes,
        protect: bool,
        opts: ResourceOptions | None = None,
    ) -> None:
        super().__init__("slipway:index:Registry", NAME, None, opts)
        self._setting = setting
        self._is_protected = protect
        self._objects = Objects(
            setting=setting,
            stack=stack,
            entrypoint=registry_program.ENTRYPOINT,
            mode=registry_program.mode_config_map(NAME),
            program=registry_program.NAME,
        )
        self._cluster = kubernetes.Provider(
            "cluster",
            kubeconfig=_kubeconfig(setting),
            context=setting.context,
            # Whatever of the kubeconfig changes, nothing that is protected has to be replaced for it.
            cluster_identifier="slipway",
            namespace=setting.namespace,
            # What an older stack of this name left is taken up; data that changes rolls the pods, by a digest in their template.
            upsert_existing_objects=True,
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
            opts=ResourceOptions(parent=self),
        )
        namespace = kubernetes.core.v1.Namespace(
            "namespace", metadata=self._objects.namespace(), opts=self._kept(ResourceOptions(retain_on_delete=True))
        )
        self._inside = ResourceOptions(depends_on=[namespace])
        claim = kubernetes.core.v1.PersistentVolumeClaim(
            NAME,
            metadata=self._objects.metadata(NAME),
            spec=self._objects.claim(),
            opts=self._kept(ResourceOptions(retain_on_delete=True, depends_on=[namespace])),
        )
        self.users: Mapping[str, Output[str]] = {}
        read_at_start, needed = self._declare_files(authority)
        deployment = kubernetes.apps.v1.Deployment(
            NAME,
            metadata=self._objects.metadata(NAME),
            spec=self._objects.deployment(applied=read_at_start),
            opts=self._kept(ResourceOptions(depends_on=[claim, *needed])),
        )
        service = kubernetes.core.v1.Service(
            NAME,
            metadata=self._objects.metadata(NAME),
            spec=self._objects.service(),
            opts=self._kept(ResourceOptions(depends_on=[deployment])),
        )
        around = [*self._declare_rights(), *self._declare_network(service)]
        program_map = kubernetes.core.v1.ConfigMap(
            names.PROGRAM,
            metadata=self._objects.metadata(names.PROGRAM, COLLECTION),
            binary_data={registry_program.NAME: base64.b64encode(program).decode()},
            opts=self._plain(),
        )
        kubernetes.batch.v1.CronJob(
            COLLECTION,
            metadata=self._objects.metadata(COLLECTION, COLLECTION),
            spec=self._objects.collection(address=service.spec.cluster_ip),
            opts=self._kept(ResourceOptions(depends_on=[program_map, deployment, *around])),
        )
        self.trust = self.ca.apply(lambda ca: self._objects.trust(ca) if ca else "")
        self.collection = {
            "arguments": self._objects.operator_arguments(),
            "ca": self.ca,
            "kubeconfig": "" if setting.has_kubeconfig_content else setting.kubeconfig or "",
            "kubeconfigContent": Output.secret(setting.kubeconfig) if setting.has_kubeconfig_content else "",
        }
        self.register_outputs({"host": setting.host})

    def _declare_files(self, authority: Authority) -> tuple[Output[str], list[Any]]:
        """Declare what the registry reads at its start; return a digest of it, and the resources."""
        setting, objects = self._setting, self._objects
        self.ca: Output[str] = (
            authority.certificate if setting.tls.kind == "authority" else Output.from_input(setting.tls.ca or "")
        )
        configuration = objects.configuration()
        config_map = kubernetes.core.v1.ConfigMap(
            names.CONFIGURATION,
            metadata=objects.metadata(names.CONFIGURATION),
            data={"config.yml": configuration, "ca.crt": self.ca},
            opts=self._plain(),
        )
        http = Password("registry-http", user="http", opts=ResourceOptions(parent=self))
        declared = [config_map, self._secret(names.HTTP, {"secret": http.password})]
        read: list[Any] = [configuration, http.password]
        if setting.tls.kind == "authority":
            server = ServerCertificate(
                "registry-certificate",
                names=objects.certified_names,
                authority=authority.certificate,
                authority_key=authority.key,
                opts=ResourceOptions(parent=self),
            )
            pair = {"tls.crt": server.certificate, "tls.key": server.key}
            declared.append(self._secret(names.TLS, pair, kind="kubernetes.io/tls"))
            read.append(server.certificate)
        if setting.users:
            passwords = {
                user: Password(f"registry-{user}", user=user, opts=ResourceOptions(parent=self))
                for user in (*setting.users, COLLECTOR)
            }
            self.users = {user: passwords[user].password for user in setting.users}
            lines = Output.all(**{user: each.hashed for user, each in passwords.items()}).apply(
                lambda hashed: "".join(f"{user}:{line}\n" for user, line in hashed.items())
            )
            login = passwords[COLLECTOR].password.apply(objects.login)
            declared += [
                self._secret(names.USERS, {"htpasswd": lines}),
                self._secret(names.LOGIN, {"config.json": login}, component=COLLECTION),
            ]
            read.append(lines)
        # A digest of it tells nothing: all that is secret in it is random.
        return Output.unsecret(Output.all(*read).apply(_digest)), declared

    def _declare_rights(self) -> list[Any]:
        metadata = self._objects.metadata(COLLECTION, COLLECTION)
        account = kubernetes.core.v1.ServiceAccount(COLLECTION, metadata=metadata, opts=self._plain())
        role = kubernetes.rbac.v1.Role(COLLECTION, metadata=metadata, rules=self._objects.role(), opts=self._plain())
        binding = kubernetes.rbac.v1.RoleBinding(
            COLLECTION,
            metadata=metadata,
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": COLLECTION},
            subjects=[{"kind": "ServiceAccount", "name": COLLECTION, "namespace": self._setting.namespace}],
            opts=self._plain(),
        )
        return [account, role, binding]

    def _declare_network(self, service: kubernetes.core.v1.Service) -> list[Any]:
        objects = self._objects
        declared: list[Any] = [
            kubernetes.networking.v1.NetworkPolicy(
                NAME, metadata=objects.metadata(NAME), spec=objects.registry_policy(), opts=self._plain()
            ),
            kubernetes.networking.v1.NetworkPolicy(
                COLLECTION,
                metadata=objects.metadata(COLLECTION, COLLECTION),
                spec=objects.collection_policy(),
                opts=self._plain(),
            ),
        ]
        if self._setting.ingress is not None:
            declared.append(
                kubernetes.networking.v1.Ingress(
                    NAME,
                    metadata=objects.metadata(NAME, annotations=objects.ingress_annotations()),
                    spec=objects.ingress(),
                    opts=self._plain(ResourceOptions(depends_on=[service])),
                )
            )
        return declared

    def _secret(self, name: str, text: Mapping[str, Any], *, kind: str = "Opaque", component: str = NAME) -> Any:
        return kubernetes.core.v1.Secret(
            name,
            metadata=self._objects.metadata(name, component),
            type=kind,
            string_data=text,
            opts=self._plain(),
        )

    def _plain(self, opts: ResourceOptions | None = None) -> ResourceOptions:
        """Options of what a setting may take away again; it is kept as long as something protected needs it."""
        base = ResourceOptions.merge(ResourceOptions(parent=self, provider=self._cluster), self._inside)
        return ResourceOptions.merge(base, opts)

    def _kept(self, opts: ResourceOptions) -> ResourceOptions:
        return ResourceOptions.merge(
            ResourceOptions(parent=self, provider=self._cluster, protect=self._is_protected), opts
        )


def _kubeconfig(setting: RegistrySetting) -> Any:
    """Return a file's path as it was given, for the next user's home is another, or the content as the secret that it is."""
    if setting.has_kubeconfig_content:
        return Output.secret(setting.kubeconfig)
    return setting.kubeconfig


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
