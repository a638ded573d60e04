"""What a 401 asks for, and how a token is got for it (RFC 7235; distribution, "Token Authentication Specification").

The requests and answers are values; client.py sends them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlencode, urlsplit

from scripts.registry.errors import AccessDenied
from scripts.registry.exchange import Request, parse_json
from scripts.registry.references import is_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scripts.registry.credentials import Credentials
    from scripts.registry.exchange import Response

_SCHEME = re.compile(r"(?:^|,)\s*(basic|bearer)(?=\s|,|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The ways in that a registry offers; `realm` is its token server, where it has one."""

    basic: bool = False
    bearer: bool = False
    realm: str = ""
    service: str = ""
    scopes: frozenset[str] = frozenset()
    insufficient: bool = False


def parse(header: str) -> Challenge:
    """Read a WWW-Authenticate header, which may offer several ways."""
    _, *offers = _SCHEME.split(header)
    texts = {scheme.lower(): text for scheme, text in zip(offers[::2], offers[1::2], strict=True)}
    known = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(texts.get("bearer", ""))}
    return Challenge(
        basic="basic" in texts,
        bearer="bearer" in texts,
        realm=known.get("realm", ""),
        service=known.get("service", ""),
        scopes=frozenset(known.get("scope", "").split()),
        insufficient=known.get("error") == "insufficient_scope",
    )


def realm_of(challenge: Challenge) -> SplitResult:
    """Return the token server's address; what is none has no scheme."""
    try:
        realm = urlsplit(challenge.realm)
    except ValueError:
        return urlsplit("")
    return realm if is_host(realm.netloc) else urlsplit("")


def token_request(realm: SplitResult, service: str, scopes: Iterable[str], credentials: Credentials | None) -> Request:
    """Ask for a token: by refresh token where that is what we have, else as the user, or as nobody."""
    wanted = sorted(scopes)
    if credentials and credentials.is_identity_token:
        form = {
            "grant_type": "refresh_token", "refresh_token": credentials.secret, "client_id": "slipway",
            "service": service, "scope": " ".join(wanted),
        }  # fmt: skip
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        return Request(host=realm.netloc, method="POST", path=realm.path or "/", headers=headers, body=body)
    query = urlencode([("service", service), *(("scope", scope) for scope in wanted)])
    path = f"{realm.path or '/'}?{'&'.join(filter(None, (realm.query, query)))}"
    headers = {"Authorization": credentials.basic()} if credentials else {}
    return Request(host=realm.netloc, method="GET", path=path, headers=headers)


def read_token(host: str, answer: Response) -> str:
    """Return the token of a token server's answer."""
    found = parse_json(answer.body)
    token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise AccessDenied(f"{host}: its token server answered without a token")
    return token
