"""The two steps from a machine's bootstrap host key to its own.

Each is a resource of its own, so that a run that dies between them locks nobody out: first the machine makes its
final key and the state records it, then the bootstrap key is retired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from builders import hostkeys, ssh
from infra.resources.shell import Shell, changed, plainly

if TYPE_CHECKING:
    from pulumi import Input, Output

BOOT_DEADLINE_S = 300  # from an accepted order to an SSH banner
SECRETS = ["private_key"]


class _HostKeyProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        with ssh.connect(
            props["node"],
            props["address"],
            host_keys=[props["bootstrap_key"]],
            private_key=props["private_key"],
            deadline_s=BOOT_DEADLINE_S,
        ) as connection:
            public_key = hostkeys.make_final(connection)
        return CreateResult(id_=props["server_id"], outs={**props, "public_key": public_key})

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Only another machine has another key; a new operator's key or address is recorded, nothing more."""
        replaces = changed(olds, news, "server_id")
        return DiffResult(changes=bool(replaces or changed(olds, news, "address", "private_key")), replaces=replaces)

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs={**news, "public_key": olds["public_key"]})


class HostKey(Resource, module="slipway", name="HostKey"):
    """The final host key of a machine, made on the machine; only its public half leaves."""

    public_key: Output[str]

    def __init__(
        self,
        name: str,
        *,
        node: str,
        server_id: Input[str],
        address: Input[str],
        bootstrap_key: Input[str],
        private_key: Input[str],
        opts: ResourceOptions,
    ) -> None:
        super().__init__(
            _HostKeyProvider(),
            name,
            {
                "node": node,
                "server_id": server_id,
                "address": address,
                "bootstrap_key": bootstrap_key,
                "private_key": private_key,
                "public_key": None,
            },
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=SECRETS)),
        )


class _RetirementProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        with ssh.connect(
            props["node"],
            props["address"],
            host_keys=[props["host_key"], props["bootstrap_key"]],
            private_key=props["private_key"],
        ) as connection:
            hostkeys.retire_bootstrap(connection)
        return CreateResult(id_=props["server_id"], outs=props)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        replaces = changed(olds, news, "server_id")
        return DiffResult(changes=bool(replaces), replaces=replaces)


class BootstrapKeyRetirement(Resource, module="slipway", name="BootstrapKeyRetirement"):
    """The machine serves its final host key alone; `host_key` passes on the key that contact accepts from here on."""

    host_key: Output[str]

    def __init__(
        self,
        name: str,
        *,
        node: str,
        server_id: Input[str],
        address: Input[str],
        bootstrap_key: Input[str],
        host_key: Input[str],
        private_key: Input[str],
        opts: ResourceOptions,
    ) -> None:
        super().__init__(
            _RetirementProvider(),
            name,
            {
                "node": node,
                "server_id": server_id,
                "address": address,
                "bootstrap_key": bootstrap_key,
                "host_key": host_key,
                "private_key": private_key,
            },
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=SECRETS)),
        )
