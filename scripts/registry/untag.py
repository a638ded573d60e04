"""Take a tag away and nothing else, also where the registry can delete digests alone.

registry 2.8 answers 400 to the deletion of a tag, and deletes a digest with all its tags. Deleting what the tag names
would break every index that lists it; so the tag is first moved to a tombstone, an empty index that nothing else names,
and that is deleted. The records of merges into it go with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.registry import exchange, manifests, records
from scripts.registry.errors import DeleteDisabled, NotFound, ReadOnly, RegistryError, RegistryFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.registry.exchange import Protocol
    from scripts.registry.manifests import Image, Index
    from scripts.registry.references import Reference

_WAS = "dev.slipway.untagged"
_UNIQUE = "dev.slipway.unique"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What became of a tag: `kept` says why it is still there."""

    reference: Reference
    kept: RegistryError | None = None


def untag(reference: Reference, *, token: str) -> Protocol[Removal]:
    """Take a tag away, and see that it is gone; NotFound where there is none, ReadOnly where it is to be tried again.

    `token` is unique to this run. The records of the tag go first: what is merged into a tag of this name later is another
    tag's.
    """
    found = exchange.require(reference, (yield from read(reference)))
    removals = yield from _remove_records(reference, found, token=token)
    if kept := next((each.kept for each in removals if each.kept), None):
        removal = Removal(reference=reference, kept=kept)
    else:
        removal = yield from remove(reference, digest=found.digest, token=token)
    if isinstance(removal.kept, ReadOnly):
        raise removal.kept
    if removal.kept is None:
        (response,) = yield [exchange.get_manifest(reference)]
        if exchange.read_manifest(reference, response) is not None:
            kept = RegistryFailed(f"{reference}: somebody pushed it again in the same moment", hint="run this again")
            return Removal(reference=reference, kept=kept)
    return removal


def untag_all(repository: Reference, prefix: str, *, token: str) -> Protocol[list[Removal]]:
    """Take away all tags that begin with `prefix`."""
    tags = yield from list_tags(repository)
    wanted = [repository.tagged(tag) for tag in tags if tag.startswith(prefix)]
    return (
        yield from exchange.together(*(_untag_if_there(each, token=f"{token}-{n}") for n, each in enumerate(wanted)))
    )


def _untag_if_there(reference: Reference, *, token: str) -> Protocol[Removal]:
    try:
        return (yield from untag(reference, token=token))
    except NotFound:
        return Removal(reference=reference)
    except ReadOnly:
        raise
    except RegistryError as error:
        return Removal(reference=reference, kept=error)


def _remove_records(reference: Reference, found: Index | Image, *, token: str) -> Protocol[list[Removal]]:
    """Take away the records that whoever merges into a tag of this name would look at."""
    if reference.tag.startswith(records.PREFIX):
        return []
    platforms = dict.fromkeys([*(found.images() if isinstance(found, manifests.Index) else ()), *records.USUAL])
    places = [records.record_tag(reference, platform) for platform in platforms]
    responses = yield [exchange.head_manifest(place) for place in places]
    there = [
        (place, response.headers.get("docker-content-digest", ""))
        for place, response in zip(places, responses, strict=True)
        if response.status == 200
    ]
    return (
        yield from exchange.together(
            *(remove(place, digest=digest, token=f"{token}-record-{n}") for n, (place, digest) in enumerate(there))
        )
    )


def remove(reference: Reference, *, digest: str, token: str) -> Protocol[Removal]:
    """Take a tag away that names `digest`. Where the registry deletes nothing, the tag stays as it is."""
    (response,) = yield [exchange.delete_manifest(reference)]
    if response.status in {202, 404}:
        return Removal(reference=reference)
    if response.status != 400 or "DIGEST_INVALID" not in response.codes():
        refused = exchange.refusal(f"{reference}", response)
        if not isinstance(refused, DeleteDisabled) or not (yield from _deletes_digests(reference, token)):
            return Removal(reference=reference, kept=refused)
    tombstone = manifests.empty_index(annotations={_WAS: digest, _UNIQUE: token})
    (response,) = yield [exchange.put_manifest(reference, tombstone)]
    if response.status != 201:
        return Removal(reference=reference, kept=exchange.refusal(f"{reference}", response))
    (response,) = yield [exchange.delete_manifest(reference.at(tombstone.digest))]
    if response.status in {202, 404}:
        return Removal(reference=reference)
    return Removal(reference=reference, kept=exchange.refusal(f"{reference}", response))


def buried(manifest: Index | Image) -> str:
    """Return the digest that a tag named before its removal began; nothing where the tag is no tombstone."""
    if not isinstance(manifest, manifests.Index) or manifest.descriptors:
        return ""
    return manifest.annotations.get(_WAS, "")


def read(reference: Reference) -> Protocol[Index | Image | None]:
    """Read a manifest."""
    (response,) = yield [exchange.get_manifest(reference)]
    return exchange.read_manifest(reference, response)


def list_tags(repository: Reference) -> Protocol[list[str]]:
    """Read a repository's tags, in order; NotFound where it has none and never had."""
    tags: dict[str, None] = {}
    request = exchange.list_tags(repository)
    while True:
        (response,) = yield [request]
        if response.status != 200:
            raise exchange.refusal(f"{repository.name}", response)
        page = _tags(repository, response.body)
        following = exchange.next_page(request, response)
        new = [tag for tag in page if tag not in tags]
        if not new and (page or following):  # only a page without tags may be the last and say nothing
            raise RegistryFailed(
                f"{repository.name}: the next page of its tags has none that is new, and so some may be missing",
                status=response.status, hint="run this again; if it lasts, the registry or a proxy before it gives one page only",
            )  # fmt: skip
        tags.update(dict.fromkeys(new))
        if not following:
            return sorted(tags)
        request = exchange.list_tags(repository, page=following)


def _tags(repository: Reference, body: bytes) -> Sequence[str]:
    found = exchange.parse_json(body)
    tags = (found.get("tags") or []) if isinstance(found, dict) else None
    if not isinstance(tags, list):
        raise RegistryFailed(f"{repository.name}: the list of tags is no list", status=200)
    return [str(tag) for tag in tags]


def _deletes_digests(reference: Reference, token: str) -> Protocol[bool]:
    """Tell whether the registry deletes digests, though no tags: it looks for one that cannot be there."""
    unknown = manifests.digest_of(token.encode())
    (response,) = yield [exchange.delete_manifest(reference.at(unknown))]
    if isinstance(refused := exchange.refusal("", response), ReadOnly):
        raise refused
    return response.status == 404
