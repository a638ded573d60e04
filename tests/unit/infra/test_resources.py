"""infra.resources: when a dynamic resource changes, and that its provider is a shell."""

from datetime import UTC, datetime, timedelta

import dill
import pytest
from pulumi.runtime.rpc import UNKNOWN

from builders import certificates
from builders.errors import NodeUnreachable
from infra.resources import buildkit, buildx, hostkey, keys
from infra.resources.shell import Failed, Shell, plainly

PROVIDERS = [
    keys._AuthorityProvider,
    keys._SshKeyPairProvider,
    keys._ServerCertificateProvider,
    keys._PasswordProvider,
    hostkey._HostKeyProvider,
    hostkey._RetirementProvider,
    buildkit._BuildKitProvider,
    buildx._BuildxBuilderProvider,
]
WANTED = {"node": "arm64-1", "version": "v0.32.2", "tarball": "/mine.tar.gz", "sha256": "0" * 64}
CONTACT = {"server_id": "1", "address": "198.51.100.10", "host_key": "ssh-ed25519 AAAA", "private_key": "KEY"}
TRUST = {"authority": "CA", "authority_key": "KEY"}


def _installed(**changes):
    end = datetime.now(UTC) + timedelta(days=changes.pop("days", 300))
    return {
        "wanted": WANTED,
        **CONTACT,
        **TRUST,
        "version": "v0.32.2",
        "certificate_expires": end.isoformat(),
        "configuration": "c0ffee",
        "applied": "c0ffee",
        **changes,
    }


def _diff(olds, **changes):
    return buildkit._BuildKitProvider().diff("1", olds, {"wanted": WANTED, **CONTACT, **TRUST, **changes})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_is_stored_as_the_name_of_its_class(provider):
    """So a resource of an older state runs today's code, and no key can be in the pickle."""
    stored = dill.dumps(provider(), recurse=True)

    assert type(dill.loads(stored)) is provider
    assert len(stored) < 200


def test_an_installed_node_is_left_alone():
    """Nothing wanted otherwise, nothing altered on it, the certificate far from its end."""
    assert _diff(_installed()).changes is False


@pytest.mark.parametrize(
    ("olds", "changes"),
    [
        ({}, {"wanted": {**WANTED, "version": "v0.33.0"}}),
        ({}, {"wanted": {**WANTED, "sha256": UNKNOWN}}),
        ({"configuration": "altered"}, {}),
        ({"days": 29}, {}),
        ({}, {"authority": "ANOTHER"}),
        ({}, {"address": "198.51.100.11"}),
    ],
)
def test_a_node_is_installed_again_in_place_when_wish_or_machine_changed(olds, changes):
    """Another version, an unknown in a preview, drift, a certificate near its end, another authority, another address."""
    found = _diff(_installed(**olds), **changes)

    assert (found.changes, found.replaces) == (True, [])


def test_where_the_tarball_lies_is_no_change():
    """A second operator has it elsewhere; its digest is what counts."""
    assert _diff(_installed(), wanted={**WANTED, "tarball": "/theirs.tar.gz"}).changes is False


def test_a_node_that_cannot_be_looked_at_stays_as_recorded_and_is_told(capsys):
    """A refresh changes nothing then, and `up` would otherwise call a dead node unchanged without a word."""
    recorded = _installed(private_key="not a key")

    found = buildkit._BuildKitProvider().read("1", recorded)

    assert found.outs == recorded
    assert "it is taken to be as it was last seen" in capsys.readouterr().err


@pytest.mark.parametrize("server_id", ["2", UNKNOWN])
def test_another_server_is_another_installation(server_id):
    """Known or not yet: what was on the server that is gone is gone."""
    assert _diff(_installed(), server_id=server_id).replaces == ["server_id"]


def test_a_new_machine_gets_a_new_bootstrap_key_and_an_old_one_keeps_its_own():
    """The key before it stood in another machine's user_data."""
    provider = keys._SshKeyPairProvider()

    assert provider.diff("1", {"renew": False}, {"renew": True}).replaces == ["renew"]
    assert provider.diff("1", {"renew": True}, {"renew": False}).changes is False


def test_no_change_of_the_program_replaces_the_authority():
    """Everybody's certificates hang on it."""
    assert keys._AuthorityProvider().diff("1", {"subject": "a"}, {"subject": "b"}).changes is False


def test_a_server_certificate_is_issued_again_for_other_names_and_near_its_end():
    """In place: what serves with it reads it at its next start."""
    provider = keys._ServerCertificateProvider()
    authority = certificates.create_authority("a", now=datetime.now(UTC))
    props = {"names": ["r.example.com"], "authority": authority.certificate, "authority_key": authority.key}
    outs = provider.create(props).outs
    soon = (datetime.now(UTC) + timedelta(days=29)).isoformat()

    assert certificates.issued_by(outs["certificate"], authority.certificate)
    assert provider.diff("1", outs, props).changes is False
    assert provider.diff("1", outs, {**props, "names": ["s.example.com"]}).changes is True
    assert provider.diff("1", outs, {**props, "authority": "ANOTHER"}).changes is True
    assert provider.diff("1", {**outs, "expires": soon}, props).changes is True
    assert not provider.diff("1", {**outs, "expires": soon}, props).replaces


def test_a_password_lasts_as_long_as_its_user():
    """And nobody gets another one's."""
    provider = keys._PasswordProvider()
    first, second = (provider.create({"user": "ada"}).outs for _ in range(2))

    assert first["password"] != second["password"]
    assert provider.diff("1", first, {"user": "ada"}).changes is False
    assert provider.diff("1", first, {"user": "ci"}).replaces == ["user"]


def test_a_host_key_lasts_as_long_as_its_machine():
    """A new address is recorded; a new bootstrap key or server type is none of its business."""
    provider = hostkey._HostKeyProvider()
    olds = {**CONTACT, "bootstrap_key": "old"}

    assert provider.diff("1", olds, {**CONTACT, "bootstrap_key": "new"}).changes is False
    assert provider.diff("1", olds, {**CONTACT, "address": "198.51.100.11"}).replaces == []
    assert provider.diff("1", olds, {**CONTACT, "server_id": "2"}).replaces == ["server_id"]


def test_a_foreseeable_failure_is_one_line_with_its_hint():
    """The engine shows the text of the exception and no traceback of ours."""

    class Provider(Shell):
        @plainly
        def create(self, props):
            raise NodeUnreachable(f"node {props['node']}: no SSH connection", hint="is it running")

    with pytest.raises(Failed) as caught:
        Provider().create({"node": "arm64-1"})

    assert str(caught.value) == "node arm64-1: no SSH connection; is it running"
    assert caught.value.__cause__ is None


def test_what_the_system_refuses_is_one_line_too(tmp_path):
    """As where the user's configuration cannot be written."""

    class Provider(Shell):
        @plainly
        def create(self, _props):
            (tmp_path / "none" / "key.pem").write_text("")

    with pytest.raises(Failed, match=rf"^\[Errno 2\] No such file or directory: '{tmp_path}/none/key.pem'$"):
        Provider().create({})
