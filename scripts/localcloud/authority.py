"""The certificates of the local Kubernetes, made with openssl: one authority, and a key pair for each identity."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from scripts.localcloud.commands import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.localcloud.kubernetes import Identity

DAYS = 3650
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", str(DAYS))


def make_keys(identities: Mapping[str, Identity]) -> dict[str, str]:
    """Make ca.crt and ca.key, NAME.crt and NAME.key of each identity, as PEM."""
    with TemporaryDirectory(prefix="slipway-") as name:
        folder = Path(name)
        authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        _request(folder, "ca", "/CN=localcloud", *authority)
        for each, identity in identities.items():
            group = f"/O={identity.group}" if identity.group else ""
            names = ("-addext", f"subjectAltName={','.join(identity.serves)}") if identity.serves else ()
            usage = "clientAuth,serverAuth" if identity.serves else "clientAuth"
            _request(
                folder,
                each,
                f"{group}/CN={identity.user}",
                *("-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")),
                *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={usage}", *names),
            )
        return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def _request(folder: Path, name: str, subject: str, *options: str) -> None:
    files = ("-out", str(folder / f"{name}.crt"), "-keyout", str(folder / f"{name}.key"))
    run("openssl", "req", "-x509", *_EC, "-subj", subject, *files, *options)
