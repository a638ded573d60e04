"""BuildKit on a machine."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from builders import buildkit, certificates, ssh
from builders.errors import BuilderError
from infra.resources.shell import Shell, changed, plainly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi import Input, Output

RENEW_BEFORE = timedelta(days=30)
REFRESH_DEADLINE_S = 10
SECRETS = ["private_key", "authority_key"]


def _install(props: dict[str, Any]) -> dict[str, Any]:
    authority = certificates.Authority(certificate=props["authority"], key=props["authority_key"])
    with ssh.connect(
        props["wanted"]["node"],
        props["address"],
        host_keys=[props["host_key"]],
        private_key=props["private_key"],
    ) as connection:
        installed = buildkit.install(
            connection, buildkit.BuildKit.from_json(props["wanted"]), authority, now=datetime.now(UTC)
        )
    return {**props, **_observed(installed), "applied": installed.configuration}


def _observed(installed: buildkit.Installed | None) -> dict[str, Any]:
    if installed is None:
        return {"version": "", "certificate_expires": "", "configuration": ""}
    return {
        "version": installed.version,
        "certificate_expires": installed.certificate_expires.isoformat(),
        "configuration": installed.configuration,
    }


class _BuildKitProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=props["server_id"], outs=_install(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Install again after a change of the wish, drift on the machine, or when the certificate nears its end.

        Where the tarball lies is this operator's matter: its digest is compared, its source is not.
        """
        replaces = changed(olds, news, "server_id")
        differs = changed(olds, news, "host_key", "address", "authority", "authority_key", "private_key")
        stale = (
            _comparable(olds["wanted"]) != _comparable(news["wanted"])
            or olds["configuration"] != olds["applied"]
            or datetime.fromisoformat(olds["certificate_expires"]) - datetime.now(UTC) < RENEW_BEFORE
        )
        return DiffResult(changes=bool(replaces or differs or stale), replaces=replaces)

    @plainly
    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=_install(news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Look at the machine and write nothing; one that cannot be reached is left as recorded, and told."""
        try:
            with ssh.connect(
                props["wanted"]["node"],
                props["address"],
                host_keys=[props["host_key"]],
                private_key=props["private_key"],
                deadline_s=REFRESH_DEADLINE_S,
            ) as connection:
                observed = _observed(buildkit.observe(connection))
        except BuilderError as error:
            sys.stderr.write(
                f"{error}; it is taken to be as it was last seen{f' ({error.hint})' if error.hint else ''}\n"
            )
            return ReadResult(id_, props)
        if not observed["certificate_expires"]:
            observed["certificate_expires"] = props["certificate_expires"]
        return ReadResult(id_, {**props, **observed})


def _comparable(wanted: Any) -> Any:
    return {key: value for key, value in wanted.items() if key != "tarball"} if isinstance(wanted, dict) else wanted


class BuildKit(Resource, module="slipway", name="BuildKit"):
    """A running buildkitd with the wanted version and configuration, its certificate signed by the stack's authority."""

    version: Output[str]
    certificate_expires: Output[str]

    def __init__(
        self,
        name: str,
        *,
        wanted: Mapping[str, Any],
        server_id: Input[str],
        address: Input[str],
        host_key: Input[str],
        private_key: Input[str],
        authority: Input[str],
        authority_key: Input[str],
        opts: ResourceOptions,
    ) -> None:
        super().__init__(
            _BuildKitProvider(),
            name,
            {
                "wanted": wanted,
                "server_id": server_id,
                "address": address,
                "host_key": host_key,
                "private_key": private_key,
                "authority": authority,
                "authority_key": authority_key,
                "version": None,
                "certificate_expires": None,
                "configuration": None,
                "applied": None,
            },
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=SECRETS)),
        )
