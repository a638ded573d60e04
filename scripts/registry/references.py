"""References: `registry/repository:tag@sha256:…` and its parts (docker's grammar, distribution/reference)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from scripts.registry.errors import InvalidReference

HUB = "registry-1.docker.io"
_HUB_NAMES = {"docker.io", "index.docker.io", HUB}
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LONGEST_HOST, _LAST_PORT = 253, 65535
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A repository of a registry, with a tag, a digest, both or neither."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag, digest = self.tag and f":{self.tag}", self.digest and f"@{self.digest}"
        return f"{self.name}{tag}{digest}"

    @property
    def name(self) -> str:
        """Return registry and repository."""
        return f"{'docker.io' if self.host == HUB else self.host}/{self.repository}"

    @property
    def within(self) -> str:
        """Return it without the registry, which may go by several names."""
        return str(self).removeprefix(self.name.removesuffix(self.repository))

    @property
    def version(self) -> str:
        """Return what the API asks by: the digest where there is one, else the tag."""
        return self.digest or self.tag

    def at(self, digest: str) -> Reference:
        """Return the same repository at a digest alone."""
        return replace(self, tag="", digest=digest)

    def tagged(self, tag: str) -> Reference:
        """Return the same repository at a tag alone."""
        return replace(self, tag=tag, digest="")


def parse(text: str, *, default_tag: str = "latest") -> Reference:
    """Read a reference; what names neither tag nor digest gets `default_tag`."""
    rest, _, digest = text.strip().partition("@")
    if "@" in text and not DIGEST.fullmatch(digest):
        raise InvalidReference(f"reference {text!r}: {digest!r} is no sha256 digest, as in @sha256: and 64 hex digits")
    host, slash, path = rest.partition("/")
    if not slash or not (host == "localhost" or any(sign in host for sign in ".:[")):
        host, path = HUB, rest
    repository, _, tag = path.partition(":")
    if host in _HUB_NAMES:
        host, repository = HUB, repository if "/" in repository or not repository else f"library/{repository}"
    if not is_host(host):
        raise InvalidReference(f"reference {text!r}: {host!r} is no host, as in registry.example.com:5000")
    if not is_repository(repository):
        lower = repository != repository.lower()
        hint = "a repository's name is in lower case" if lower else "say REGISTRY/REPOSITORY:TAG"
        raise InvalidReference(f"reference {text!r}: {repository!r} is no repository", hint=hint)
    if ":" in path and not is_tag(tag):
        raise InvalidReference(
            f"reference {text!r}: {tag!r} is no tag", hint="letters, digits, _ . -, at most 128, no . or - first"
        )
    return Reference(host=host, repository=repository, tag=tag or ("" if digest else default_tag), digest=digest)


def is_repository(text: str) -> bool:
    """Tell whether this is the name of a repository."""
    return bool(_REPOSITORY.fullmatch(text))


def is_tag(text: str) -> bool:
    """Tell whether this is a tag."""
    return bool(_TAG.fullmatch(text))


def is_host(text: str) -> bool:
    """Tell whether this is the name or address of a host, perhaps with a port."""
    found = _HOST.fullmatch(text)
    if not found or len(text) > _LONGEST_HOST or int(found["port"] or 0) > _LAST_PORT:
        return False
    if found["ipv6"]:
        try:
            ipaddress.IPv6Address(found["ipv6"])
        except ValueError:
            return False
    return True
