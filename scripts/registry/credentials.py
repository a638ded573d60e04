"""Credentials and trust as Docker keeps them: config.json, credential helpers, certs.d, or what the user typed.

What a secret is stays inside a `Credentials`: it has no text form, and only the HTTP door looks into it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.registry.errors import CredentialsUnreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = "<token>"  # noqa: S105 - a name
"""The user's name that Docker gives to an identity token."""

HELPER_TIMEOUT_S = 60
_NOT_FOUND = "credentials not found"  # every helper says so, with exit code 1
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user name with its password, or with an identity token, which a token server takes for a password."""

    username: str
    secret: str = field(repr=False)
    is_identity_token: bool = False

    def basic(self) -> str:
        """Return the value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


def load(host: str, environment: Mapping[str, str]) -> Credentials | None:
    """Return what this user has for a registry; None is anonymous.

    The host's own helper comes first, then the general store, then the file itself.
    """
    path = _folder(environment) / "config.json"
    config = _read(path)
    auths = _table(config, "auths", path)
    wanted = set(_HUB) if host in _HUB else {host}
    keys = [key for key in auths if _host(key) in wanted]
    helper = next((name for key, name in _table(config, "credHelpers", path).items() if _host(key) in wanted), None)
    helper = helper or config.get("credsStore")
    if helper:
        server = keys[0] if keys else ("https://index.docker.io/v1/" if host in _HUB else host)
        if found := _ask(str(helper), server):
            return found
    entries = [auths[key] for key in keys if isinstance(auths[key], dict)]
    return next((found for entry in entries if (found := _stored(entry, host, path))), None)


def authorities(host: str, environment: Mapping[str, str]) -> list[str]:
    """Return the files of the authorities that Docker trusts for a registry beside the system's.

    The daemon reads /etc/docker, a rootless one ~/.config/docker, and Docker Desktop takes over what is in ~/.docker
    (docs.docker.com, "Verify repository client with certificates": they are merged with the system's).
    """
    home = _home(environment)
    places = (Path("/etc/docker"), home / ".config/docker", home / ".docker")
    return [str(path) for place in places for path in sorted((place / "certs.d" / host).glob("*.crt"))]


def _home(environment: Mapping[str, str]) -> Path:
    # A container may run as a user without a name and a home: it has no logins.
    return Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - this one never fails


def _folder(environment: Mapping[str, str]) -> Path:
    if named := environment.get("DOCKER_CONFIG"):
        return Path(named)
    return _home(environment) / ".docker"


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CredentialsUnreadable(f"{path}: cannot be read ({error.strerror})", hint="see its permissions") from error
    except (ValueError, RecursionError):  # without the cause, which may quote it
        config = None
    if not isinstance(config, dict):
        hint = "put it right, or move it away and log in again: docker login"
        raise CredentialsUnreadable(f"{path}: it is not the JSON that Docker writes", hint=hint)
    return config


def _table(config: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = config.get(name) or {}
    if not isinstance(table, dict):
        raise CredentialsUnreadable(f"{path}: {name} is no table", hint="docker login writes it anew")
    return table


def _host(key: str) -> str:
    """Return the host of a key, which may be an old kind of address: https://host/v1/."""
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]


def _stored(entry: Mapping[str, Any], host: str, path: Path) -> Credentials | None:
    encoded, token = entry.get("auth") or "", entry.get("identitytoken") or ""
    try:
        "".join(entry.get(name) or "" for name in ("username", "password", "identitytoken"))  # all of them text
        username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError, TypeError) as error:
        message = f"{path}: the entry for {host} is damaged"
        raise CredentialsUnreadable(message, hint=f"docker login {host} writes it anew") from error
    username, password = entry.get("username") or username, entry.get("password") or password.rstrip("\0")
    if token:
        return Credentials(username=TOKEN, secret=token, is_identity_token=True)
    return Credentials(username=username, secret=password) if username else None


def _ask(helper: str, server: str) -> Credentials | None:
    """Return what a credential helper has; the server's name goes over stdin, and the secret comes over stdout."""
    program = f"docker-credential-{os.path.basename(helper)}"  # noqa: PTH119 - a name, never a path
    try:
        done = subprocess.run(
            [program, "get"], input=server, capture_output=True, text=True, timeout=HELPER_TIMEOUT_S, check=False
        )
        if done.returncode and _NOT_FOUND in done.stdout + done.stderr:
            return None
        if done.returncode:
            hint = f"it says why: echo {server} | {program} get"
            raise CredentialsUnreadable(f"{program}: failed for {server} (exit {done.returncode})", hint=hint)
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except OSError as error:
        hint = "install it, or remove it from Docker's config.json"
        reason = "not on PATH" if isinstance(error, FileNotFoundError) else f"cannot be run ({error.strerror})"
        raise CredentialsUnreadable(f"{program}: {reason}", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise CredentialsUnreadable(f"{program}: no answer in {HELPER_TIMEOUT_S} s") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        # Without the cause: a parser's message may quote what it read.
        raise CredentialsUnreadable(f"{program}: answered in no form that Docker knows") from None
    if username == TOKEN:
        return Credentials(username=username, secret=secret, is_identity_token=True)
    return Credentials(username=username, secret=secret) if username else None
