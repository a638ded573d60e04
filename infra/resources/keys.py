"""Keys that the stack makes for itself: its certificate authority, SSH keys, a server's certificate, passwords."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from builders import certificates, passwords
from infra.resources.shell import Shell, changed, plainly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi import Input, Output

SERVER_DAYS = 365
RENEW_BEFORE = timedelta(days=30)


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


class _ServerCertificateProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=props["names"][0], outs=_issue(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Issue another one for other names, by another authority, and when this one nears its end."""
        ends_soon = datetime.fromisoformat(olds["expires"]) - datetime.now(UTC) < RENEW_BEFORE
        return DiffResult(changes=bool(changed(olds, news, "names", "authority")) or ends_soon)

    @plainly
    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=_issue(news))


def _issue(props: dict[str, Any]) -> dict[str, Any]:
    authority = certificates.Authority(certificate=props["authority"], key=props["authority_key"])
    leaf = certificates.issue_server(authority, props["names"], now=datetime.now(UTC), days=SERVER_DAYS)
    expires = certificates.expires(leaf.certificate).isoformat()
    return {**props, "certificate": leaf.certificate, "key": leaf.key, "expires": expires}


class ServerCertificate(Resource, module="slipway", name="ServerCertificate"):
    """A server's key and certificate, signed by the stack's authority and renewed by any update in its last 30 days."""

    certificate: Output[str]
    key: Output[str]

    def __init__(
        self,
        name: str,
        *,
        names: Sequence[str],
        authority: Input[str],
        authority_key: Input[str],
        opts: ResourceOptions,
    ) -> None:
        super().__init__(
            _ServerCertificateProvider(),
            name,
            {
                "names": list(names),
                "authority": authority,
                "authority_key": authority_key,
                "certificate": None,
                "key": None,
                "expires": None,
            },
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=["key", "authority_key"])),
        )


class _PasswordProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        password = passwords.generate()
        return CreateResult(
            id_=props["user"], outs={**props, "password": password, "hashed": passwords.bcrypt_hash(password)}
        )

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Keep a password as long as its user."""
        return DiffResult(changes=olds["user"] != news["user"], replaces=["user"])


class Password(Resource, module="slipway", name="Password"):
    """A generated password, in clear and as bcrypt; `pulumi up --replace` with its URN makes another."""

    password: Output[str]
    hashed: Output[str]

    def __init__(self, name: str, *, user: str, opts: ResourceOptions) -> None:
        super().__init__(
            _PasswordProvider(),
            name,
            {"user": user, "password": None, "hashed": None},
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=["password", "hashed"])),
        )
