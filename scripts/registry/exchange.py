"""What the protocols and the HTTP door say to each other: requests and responses as values, and what answers mean.

A protocol is a generator. Each batch that it yields holds requests that are independent of each other, and is one
round trip deep; it is sent their responses in the same order. Nothing of it knows a socket, so a test can let the
steps of several protocols meet in every order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from scripts.registry import manifests
from scripts.registry.errors import (
    AccessDenied,
    DeleteDisabled,
    InvalidManifest,
    NotFound,
    ReadOnly,
    RegistryError,
    RegistryFailed,
    RegistryUnreachable,
)

if TYPE_CHECKING:
    from scripts.registry.manifests import Image, Index
    from scripts.registry.references import Reference

ACCEPT = f"{manifests.OCI_INDEX}, {manifests.OCI_MANIFEST}, {manifests.DOCKER_LIST}, {manifests.DOCKER_MANIFEST}"
"""All types, in one line: of several lines some proxies pass on the last alone."""

NO_ANSWER = 0
"""The status of a write whose connection broke: it may have been done, or may yet be."""

_LINK = re.compile(r"<([^>]*)>([^<]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*"?next\b', re.IGNORECASE)
_HOST = re.compile(r"(?:https?:)?//[^/?]*", re.IGNORECASE)
_ABSENT = {"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", "TAG_EXPIRED"}  # the latter two are Harbor's and Quay's


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to a registry; `path` is as in /v2/app/manifests/latest."""

    host: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the registry answered; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def errors(self) -> list[dict[str, Any]]:
        """Return the errors that the body lists (distribution-spec, "Error Codes"), none where it is something else."""
        found = parse_json(self.body)
        listed = found.get("errors") if isinstance(found, dict) else None
        return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []

    def codes(self) -> set[str]:
        """Return the codes of those errors."""
        return {str(each.get("code")) for each in self.errors()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A wait between two batches, before the same thing is tried again; `attempt` counts from 1."""

    attempt: int


Result = TypeVar("Result")
Protocol = Generator[Sequence[Request] | Pause, Sequence[Response], Result]


def together(*protocols: Protocol[Result]) -> Protocol[list[Result]]:
    """Run protocols side by side: their batches of the same depth travel as one."""
    results: dict[int, Result] = {}
    waiting: dict[int, Sequence[Request]] = {}

    def advance(number: int, responses: Sequence[Response] | None) -> None:
        try:
            step = next(protocols[number]) if responses is None else protocols[number].send(responses)
        except StopIteration as end:
            results[number] = end.value
        else:
            waiting[number] = step if isinstance(step, Sequence) else ()

    for number in range(len(protocols)):
        advance(number, None)
    while waiting:
        batch, waiting = waiting, {}
        responses = yield [request for requests in batch.values() for request in requests]
        position = 0
        for number, requests in batch.items():
            advance(number, responses[position : position + len(requests)])
            position += len(requests)
    return [results[number] for number in range(len(protocols))]


def parse_json(text: bytes) -> Any:
    """Return what some JSON says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def get_manifest(reference: Reference) -> Request:
    """Ask for a manifest, whatever its type."""
    return _manifest("GET", reference, {"Accept": ACCEPT})


def head_manifest(reference: Reference, *, unless: str = "") -> Request:
    """Ask whether a manifest can be read, or, with `unless`, whether a tag still has this digest (304)."""
    return _manifest("HEAD", reference, {"Accept": ACCEPT, **({"If-None-Match": f'"{unless}"'} if unless else {})})


def put_manifest(reference: Reference, manifest: manifests.Manifest) -> Request:
    """Store a manifest under a tag or its digest."""
    return _manifest("PUT", reference, {"Content-Type": manifest.media_type}, manifest.body)


def delete_manifest(reference: Reference) -> Request:
    """Delete a tag, or a digest with all its tags."""
    return _manifest("DELETE", reference, {})


def get_blob(reference: Reference, digest: str, *, first_byte: bool = False) -> Request:
    """Ask for a blob, or for its first byte, which only a blob that is there can give."""
    headers = {"Range": "bytes=0-0"} if first_byte else {}
    return Request(
        host=reference.host, method="GET", path=f"/v2/{reference.repository}/blobs/{digest}", headers=headers
    )


def mount_blob(reference: Reference, digest: str, source: str) -> Request:
    """Ask the registry to link a blob of another of its repositories."""
    path = f"/v2/{reference.repository}/blobs/uploads/?mount={digest}&from={source}"
    return Request(host=reference.host, method="POST", path=path, headers={"Content-Length": "0"})


def begin_upload(repository: Reference) -> Request:
    """Begin an upload, of nothing yet."""
    path = f"/v2/{repository.repository}/blobs/uploads/"
    return Request(host=repository.host, method="POST", path=path, headers={"Content-Length": "0"})


def cancel_upload(repository: Reference, place: str) -> Request:
    """Give up an upload; `place` is the Location that its beginning was answered with."""
    return Request(host=repository.host, method="DELETE", path=_path(place))


def list_tags(reference: Reference, *, page: str = "") -> Request:
    """Ask for a repository's tags; registry 2.8 gives all at once, others a page, and where the next `page` is."""
    path = page or f"/v2/{reference.repository}/tags/list?n=1000"
    return Request(host=reference.host, method="GET", path=path)


def next_page(request: Request, response: Response) -> str:
    """Return the path of the page after this one, empty where it is the last (distribution-spec, "Listing Tags").

    Of an absolute URL the path alone counts: the registry's own name is often another one than ours, and the login is for ours.
    """
    for place, parameters in _LINK.findall(response.headers.get("link", "")):
        if _NEXT.search(parameters):
            return _path(place, request.path)
    return ""


def _path(place: str, beside: str = "") -> str:
    """Return the path of a URL, which is absolute or relative to another path."""
    if host := _HOST.match(place):
        return f"/{place[host.end() :].removeprefix('/')}"
    if place.startswith("/"):
        return place
    here = beside.partition("?")[0]
    return f"{here}{place}" if place.startswith("?") else f"{here.rpartition('/')[0]}/{place}"


def _manifest(method: str, reference: Reference, headers: Mapping[str, str], body: bytes = b"") -> Request:
    path = f"/v2/{reference.repository}/manifests/{reference.version}"
    return Request(host=reference.host, method=method, path=path, headers=headers, body=body)


def read_manifest(reference: Reference, response: Response) -> Index | Image | None:
    """Read the answer to get_manifest; None: there is none. What was sent must have the digest that was asked for."""
    if response.status == 404 and absent(reference, response):
        return None
    if response.status == 400 and "MANIFEST_INVALID" in response.codes():  # it tried to make schema 1 of a Docker list
        raise accept_dropped(reference, response)
    if response.status != 200:
        raise refusal(f"{reference}", response)
    digest = manifests.digest_of(response.body)
    promised = {reference.digest, response.headers.get("docker-content-digest", "")} - {""}
    if promised - {digest}:
        raise InvalidManifest(
            f"{reference}: the content has the digest {digest}, not {', '.join(sorted(promised - {digest}))}",
            hint="the registry's storage is damaged, or something in between changed what it sent",
        )
    return manifests.parse(response.body, response.headers.get("content-type", ""), name=str(reference))


def unchanged(reference: Reference, response: Response, digest: str) -> Protocol[bool]:
    """Tell from an answer to head_manifest(unless=digest) whether the tag still names it.

    Some registries send no 304, and of these some no digest: then the tag is read.
    """
    if response.status != 200:
        return response.status == 304
    if named := response.headers.get("docker-content-digest"):
        return named == digest
    (response,) = yield [get_manifest(reference)]
    found = read_manifest(reference, response)
    return found is not None and found.digest == digest


def name_still(named: Sequence[tuple[Reference, str]]) -> Protocol[list[bool]]:
    """Ask of tags, all at once, whether they name these digests."""
    responses = yield [head_manifest(reference, unless=digest) for reference, digest in named]
    pairs = zip(named, responses, strict=True)
    return (yield from together(*(unchanged(reference, response, digest) for (reference, digest), response in pairs)))


def check_accepted(reference: Reference, response: Response, digest: str) -> Protocol[None]:
    """Make sure that a tag names the Docker image `digest`, of which this is the answer to head_manifest(unless=digest).

    Without an Accept header a registry answers a Docker list with its amd64 image; only the tag's own digest tells, by 304.
    A registry that does not say 304 to the digest itself never does, and its answer tells nothing.
    """
    if response.status == 304:
        return
    (same,) = yield [head_manifest(reference.at(digest), unless=digest)]
    if response.status != 200 or same.status != 200:
        raise accept_dropped(reference, response)


def absent(reference: Reference, response: Response) -> bool:
    """Tell a 404 that says "no such manifest" from one that says something else, which is an error."""
    if any("accept header" in str(each.get("message")) for each in response.errors()):
        raise accept_dropped(reference, response)
    if not response.codes() & _ABSENT:
        raise refusal(f"{reference}", response)
    return True


def accept_dropped(reference: Reference, response: Response) -> RegistryFailed:
    """Say that the registry sends something else than what a tag names, as it does where it sees no Accept header."""
    return RegistryFailed(
        f"{reference}: it exists, but the registry did not see which types are accepted",
        status=response.status,
        hint="a proxy before the registry drops the Accept header; let it pass on",
    )


def require(reference: Reference, found: Index | Image | None) -> Index | Image:
    """Return what was found; raise NotFound where that is nothing."""
    if found is None:
        raise NotFound(f"{reference}: not found")
    return found


def check_stored(reference: Reference, digest: str, response: Response) -> None:
    """Make sure that a PUT was done, and of these bytes."""
    if response.status != 201:
        raise refusal(f"{reference}", response)
    stored = response.headers.get("docker-content-digest", digest)
    if stored != digest:
        raise InvalidManifest(f"{reference}: the registry stored {stored}, not {digest}")


def refusal(what: str, response: Response) -> RegistryError:
    """Say what an answer means that is not the one hoped for."""
    said = next((str(each.get("message") or each.get("code")) for each in response.errors()), "")
    detail = f"{response.status}, {said}" if said else str(response.status)
    if response.status == NO_ANSWER:
        return RegistryUnreachable(f"{what}: the connection broke before the answer", hint="run the command again")
    insufficient = "insufficient_scope" in response.headers.get("www-authenticate", "")
    if response.status == 403 or insufficient or "DENIED" in response.codes():
        return AccessDenied(f"{what}: these credentials may not do this ({detail})", hint="log in as somebody who may")
    if response.status == 401:
        return AccessDenied(f"{what}: the registry wants a login ({detail})", hint="docker login, or --username")
    if response.status == 405 and "UNSUPPORTED" in response.codes():
        return DeleteDisabled(
            f"{what}: the registry deletes nothing", hint="set storage.delete.enabled in its configuration"
        )
    if response.status == 405:
        return ReadOnly(
            f"{what}: the registry is read-only now", hint="wait for its maintenance to end, or --wait longer"
        )
    if response.status == 413 or "too large" in said:
        return RegistryFailed(f"{what}: the manifest is too large for the registry ({detail})", status=response.status)
    if response.status == 404:
        return NotFound(f"{what}: not found ({detail})")
    if response.status == 429:
        return RegistryFailed(f"{what}: too many requests ({detail})", status=429, hint="try again later")
    if response.status >= 500:
        hint = "try again; if it lasts, its storage has a broken link: see the registry's log"
        return RegistryFailed(f"{what}: the registry failed ({detail})", status=response.status, hint=hint)
    return RegistryFailed(f"{what}: the registry refused ({detail})", status=response.status)
