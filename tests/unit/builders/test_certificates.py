"""What the stack's authority signs, and what it does not."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from builders import certificates
from builders.errors import InvalidCertificate

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority():
    """One authority for all."""
    return certificates.create_authority("dev", now=NOW)


def _request(common_name="whatever", alternative="evil.example", key=None) -> str:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(alternative)]), critical=False)
        .sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def _sign(authority, csr=None, *, days=90, now=NOW):
    addresses = ["198.51.100.11", "2001:db8:51:1::1"]
    return certificates.sign_server(
        csr or _request(), authority, name="arm64-1", addresses=addresses, now=now, days=days
    )


def test_a_server_certificate_speaks_for_the_node_and_not_for_what_the_request_named(authority):
    """A node that is taken over cannot have another name signed."""
    certificate = x509.load_pem_x509_certificate(_sign(authority).encode())

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["arm64-1"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("198.51.100.11"),
        ipaddress.ip_address("2001:db8:51:1::1"),
    ]
    assert certificate.subject.rfc4514_string() == "CN=arm64-1,O=slipway"


def test_matches_is_exact(authority):
    """A node that moved to another address gets a new certificate; the authority's speaks for nobody."""
    certificate = _sign(authority)

    assert certificates.matches(certificate, name="arm64-1", addresses=["2001:db8:51:1::1", "198.51.100.11"])
    assert not certificates.matches(certificate, name="arm64-1", addresses=["198.51.100.11"])
    assert not certificates.matches(certificate, name="arm64-2", addresses=["2001:db8:51:1::1", "198.51.100.11"])
    assert not certificates.matches(authority.certificate, name="dev builders", addresses=[])


def test_a_leaf_serves_one_purpose(authority):
    """A client certificate cannot pose as a server, nor a server's as a client."""
    purposes = {
        "server": x509.load_pem_x509_certificate(_sign(authority).encode()),
        "client": x509.load_pem_x509_certificate(
            certificates.issue_client(authority, "ci", now=NOW, days=30).certificate.encode()
        ),
    }

    usage = {
        kind: list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        for kind, leaf in purposes.items()
    }
    assert usage == {"server": [ExtendedKeyUsageOID.SERVER_AUTH], "client": [ExtendedKeyUsageOID.CLIENT_AUTH]}
    assert not any(
        leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for leaf in purposes.values()
    )


def test_the_authority_signs_leaves_alone_and_a_leaf_signs_nothing(authority):
    """TLS must not go on where it does not know these extensions."""
    names = {name: name.lstrip("_") for name in vars(x509.KeyUsage(*[False] * 9))}
    leaf = certificates.issue_client(authority, "ci", now=NOW, days=30)

    found = {}
    for kind, text in (("authority", authority.certificate), ("leaf", leaf.certificate)):
        extensions = x509.load_pem_x509_certificate(text.encode()).extensions
        usage, limits = (extensions.get_extension_for_class(each) for each in (x509.KeyUsage, x509.BasicConstraints))
        allowed = {plain for name, plain in names.items() if getattr(usage.value, name)}
        found[kind] = (allowed, limits.value.ca, limits.value.path_length)
        assert usage.critical
        assert limits.critical
    assert found == {
        "authority": ({"key_cert_sign", "crl_sign"}, True, 0),
        "leaf": ({"digital_signature"}, False, None),
    }


def test_a_certificate_says_who_signed_it_and_until_when(authority):
    """Renewal and refusal are decided by these two facts."""
    leaf = certificates.issue_client(authority, "ci", now=NOW, days=30)
    other = certificates.create_authority("dev", now=NOW)

    assert certificates.expires(leaf.certificate) == datetime(2026, 12, 23, 12, 0, tzinfo=UTC)
    assert certificates.issued_by(leaf.certificate, authority.certificate)
    assert not certificates.issued_by(leaf.certificate, other.certificate)
    assert certificates.subject(leaf.certificate) == "ci"


def test_a_leaf_never_outlives_its_authority():
    """A certificate that TLS would refuse anyway is not promised for longer."""
    authority = certificates.create_authority("dev", now=NOW, days=10)

    assert certificates.expires(_sign(authority, days=90)) == datetime(2026, 12, 3, 12, 0, tzinfo=UTC)
    with pytest.raises(InvalidCertificate, match="ended on 2026-12-03"):
        _sign(authority, now=datetime(2026, 12, 4, tzinfo=UTC))


def test_a_leaf_is_valid_on_a_machine_whose_clock_is_behind(authority):
    """A machine that has just booted may not have met its time server yet."""
    certificate = x509.load_pem_x509_certificate(_sign(authority).encode())

    assert certificate.not_valid_before_utc == datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


@pytest.mark.parametrize("csr", ["", "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"])
def test_a_request_that_cannot_be_read_is_refused_by_name(authority, csr):
    """The line names the node."""
    with pytest.raises(InvalidCertificate, match=r"^node arm64-1: its certificate request cannot be read"):
        certificates.sign_server(csr, authority, name="arm64-1", addresses=[], now=NOW, days=1)


def test_a_request_with_a_foreign_signature_is_refused(authority):
    """Whoever asks must hold the key."""
    der = bytearray(x509.load_pem_x509_csr(_request().encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()

    with pytest.raises(InvalidCertificate, match="arm64-1"):
        _sign(authority, forged)


def test_a_request_of_another_kind_of_key_is_refused(authority):
    """Machines make EC keys."""
    with pytest.raises(InvalidCertificate, match="arm64-1: its certificate request is not signed by an EC key"):
        _sign(authority, _request(key=rsa.generate_private_key(65537, 2048)))


def test_keys_stay_out_of_repr(authority):
    """A log line that shows a value shows no key."""
    assert "PRIVATE" not in repr(authority)
    assert "PRIVATE" not in repr(certificates.issue_client(authority, "ci", now=NOW, days=1))


def test_a_stack_may_have_as_long_a_name_as_its_servers_can_bear():
    """The authority's subject has at most 64 characters."""
    authority = certificates.create_authority("slipway-" + "s" * 51, now=NOW)

    assert certificates.issued_by(
        certificates.issue_client(authority, "ci", now=NOW, days=1).certificate, authority.certificate
    )


@pytest.mark.parametrize("letter", "AR")
def test_a_damaged_letter_is_no_traceback_wherever_it_is(authority, letter):
    """In a bundle or a file that was copied badly; what is left of it may name a version or a curve that nobody knows."""
    leaf = certificates.issue_client(authority, "ci", now=NOW, days=1)

    def damaged(text):
        return [text[:place] + letter + text[place + 1 :] for place in range(len(text))]

    for certificate in damaged(leaf.certificate):
        with suppress(InvalidCertificate):
            certificates.is_pair(replace(leaf, certificate=certificate))
            certificates.expires(certificate)
        certificates.issued_by(certificate, authority.certificate)
    for request in damaged(_request()):
        with suppress(InvalidCertificate):
            _sign(authority, request)
    for key in damaged(leaf.key):
        with suppress(InvalidCertificate):
            certificates.is_pair(replace(leaf, key=key))
    for certificate in damaged(authority.certificate):
        certificates.issued_by(leaf.certificate, certificate)


def test_an_ssh_key_is_openssh_text_on_both_sides():
    """cloud-init, sshd and paramiko read these forms."""
    private, public = certificates.create_ssh_key("slipway dev")

    assert private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert public.startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5")
    assert public.endswith(" slipway dev")


def test_a_servers_certificate_speaks_for_names_and_addresses_and_signs_nothing(authority):
    """Each name as what it is; the key is its own."""
    leaf = certificates.issue_server(authority, ["198.51.100.8", "r.example.com"], now=NOW, days=365)
    certificate = x509.load_pem_x509_certificate(leaf.certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.DNSName) == ["r.example.com"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("198.51.100.8")]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert certificates.issued_by(leaf.certificate, authority.certificate)
    assert certificates.is_pair(leaf)
