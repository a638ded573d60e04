"""Keys that the stack makes for itself: its certificate authority and its SSH keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, Resource

from builders import certificates
from infra.resources.shell import Shell, plainly

if TYPE_CHECKING:
    from pulumi import Output


class _AuthorityProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        made = certificates.create_authority(props["subject"], now=datetime.now(UTC))
        identity = certificates.fingerprint(made.certificate)[:16]
        outs = {"subject": props["subject"], "certificate": made.certificate, "key": made.key, "identity": identity}
        return CreateResult(id_=identity, outs=outs)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Everybody's certificates hang on the authority: no change of the program may replace it."""
        return DiffResult(changes=False)


class Authority(Resource, module="slipway", name="Authority"):
    """The stack's certificate authority; `identity` also marks the stack's resources in the Hetzner project."""

    certificate: Output[str]
    key: Output[str]
    identity: Output[str]

    def __init__(self, name: str, *, subject: str, opts: ResourceOptions) -> None:
        super().__init__(
            _AuthorityProvider(),
            name,
            {"subject": subject, "certificate": None, "key": None, "identity": None},
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=["key"])),
        )


class _SshKeyPairProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        private_key, public_key = certificates.create_ssh_key(props["comment"])
        outs = {**props, "private_key": private_key, "public_key": public_key}
        return CreateResult(id_=props["comment"], outs=outs)

    def diff(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Replace the key for a new machine: the one before it stood in another machine's user_data."""
        return DiffResult(changes=news["renew"], replaces=["renew"] if news["renew"] else [])


class SshKeyPair(Resource, module="slipway", name="SshKeyPair"):
    """An ed25519 key pair, made anew by every update that finds `renew` true."""

    private_key: Output[str]
    public_key: Output[str]

    def __init__(self, name: str, *, comment: str, renew: bool, opts: ResourceOptions) -> None:
        super().__init__(
            _SshKeyPairProvider(),
            name,
            {"comment": comment, "renew": renew, "private_key": None, "public_key": None},
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=["private_key"])),
        )
