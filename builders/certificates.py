"""The cryptography door: the stack's certificate authority, the certificates it signs, and SSH keys.

Everything is PEM or OpenSSH text in and out. P-256 throughout: every TLS library of the last ten years reads it.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from builders.errors import InvalidCertificate

if TYPE_CHECKING:
    from collections.abc import Sequence

_ORGANIZATION = "slipway"
_LONGEST_NAME = 64  # of a subject (RFC 5280, ub-common-name)
_DAMAGED = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)  # by what cannot be read
_CLOCK_SKEW = timedelta(hours=1)  # a machine that has just booted may be behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A certificate authority; who holds its key can let anybody in."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A certificate that signs nothing further, with its key."""

    certificate: str
    key: str = field(repr=False)


def create_authority(name: str, *, now: datetime, days: int = 3650) -> Authority:
    """Make the authority of one stack; it may sign leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"{name} builders"[:_LONGEST_NAME])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(subject, subject, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=_pem(certificate), key=_key_pem(key))


def sign_server(
    csr: str, authority: Authority, *, name: str, addresses: Sequence[str], now: datetime, days: int
) -> str:
    """Sign a node's request for its name and addresses; what the request asks for beyond its key is ignored."""
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key, valid = request.public_key(), request.is_signature_valid
    except _DAMAGED as error:
        raise InvalidCertificate(f"node {name}: its certificate request cannot be read ({error})") from error
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidCertificate(f"node {name}: its certificate request is not signed by an EC key of its own")
    names = [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
    return _pem(
        _sign(key, authority, name, ExtendedKeyUsageOID.SERVER_AUTH, now, days, x509.SubjectAlternativeName(names))
    )


def issue_server(authority: Authority, names: Sequence[str], *, now: datetime, days: int) -> Leaf:
    """Make a key and a certificate for a server that is known by these names and addresses, the first one its subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    certificate = _sign(
        key.public_key(), authority, names[0][:_LONGEST_NAME], ExtendedKeyUsageOID.SERVER_AUTH, now, days, alternatives
    )
    return Leaf(certificate=_pem(certificate), key=_key_pem(key))


def issue_client(authority: Authority, name: str, *, now: datetime, days: float) -> Leaf:
    """Make a key and a certificate with which `name` may build."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(key.public_key(), authority, name, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)
    return Leaf(certificate=_pem(certificate), key=_key_pem(key))


def days_left(certificate_ends: datetime, now: datetime) -> int:
    """Count the days until then, one that has begun included; 0 or less: it has ended."""
    return math.ceil((certificate_ends - now) / timedelta(days=1))


def expires(certificate: str) -> datetime:
    """Read when a certificate ends, in UTC."""
    return _load(certificate).not_valid_after_utc


def issued_by(certificate: str, authority_certificate: str) -> bool:
    """Tell whether this authority signed that certificate; dates are not looked at."""
    try:
        _load(certificate).verify_directly_issued_by(_load(authority_certificate))
    except (InvalidSignature, *_DAMAGED):
        return False
    return True


def is_pair(leaf: Leaf) -> bool:
    """Tell whether the key belongs to the certificate."""
    return _load_key(leaf.key).public_key() == _load(leaf.certificate).public_key()


def matches(certificate: str, *, name: str, addresses: Sequence[str]) -> bool:
    """Tell whether a server certificate speaks for exactly this name and these addresses."""
    try:
        names = _load(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    wanted = {ipaddress.ip_address(address) for address in addresses}
    return (
        names.get_values_for_type(x509.DNSName) == [name] and set(names.get_values_for_type(x509.IPAddress)) == wanted
    )


def subject(certificate: str) -> str:
    """Read whom a certificate was issued to."""
    names = _load(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def fingerprint(certificate: str) -> str:
    """Compute the SHA-256 of a certificate, as `openssl x509 -fingerprint` shows it but in lower case without colons."""
    return _load(certificate).fingerprint(hashes.SHA256()).hex()


def create_ssh_key(comment: str) -> tuple[str, str]:
    """Make an Ed25519 SSH key: the private half as an OpenSSH PEM, the public half as one line."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(  # noqa: PLR0917 - a private function with one call for each kind of leaf
    key: ec.EllipticCurvePublicKey,
    authority: Authority,
    name: str,
    purpose: ObjectIdentifier,
    now: datetime,
    days: float,
    alternatives: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    issuer = _load(authority.certificate)
    signing_key = _load_key(authority.key)
    end = min(now + timedelta(days=days), issuer.not_valid_after_utc)
    if end <= now:
        raise InvalidCertificate(
            f"the authority of the stack ended on {issuer.not_valid_after_utc:%Y-%m-%d} and can sign nothing more",
            hint="replace it, as docs/operate.md tells (Certificates), and invite everybody again",
        )
    builder = (
        _builder(_subject(name), issuer.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(signing_key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _CLOCK_SKEW)
        .not_valid_after(end.astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _load(certificate: str) -> x509.Certificate:
    try:
        loaded = x509.load_pem_x509_certificate(certificate.encode())
        loaded.public_key()  # its key is read only when it is asked for
    except _DAMAGED as error:
        raise InvalidCertificate("this is not a certificate in PEM form") from error
    return loaded


def _load_key(key: str) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(key.encode(), password=None)
    except _DAMAGED as error:
        raise InvalidCertificate("this is not an unencrypted private key in PEM form") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise InvalidCertificate("this private key is not an EC key")
    return loaded
