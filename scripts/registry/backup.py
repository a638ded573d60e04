"""Backups of tags, in the registry itself: the tag's exact bytes under a tag of our own, and each image of it too.

An image that has a tag of its own survives even registry 2.8's `garbage-collect --delete-untagged`, which takes the
children of every index away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from scripts.registry import exchange, inspection, merge, records, untag
from scripts.registry.errors import NotFound, ReadOnly, RegistryError, VerificationFailed
from scripts.registry.manifests import Contribution, Image, Index
from scripts.registry.merge import Merged, Order
from scripts.registry.references import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scripts.registry.exchange import Protocol
    from scripts.registry.platforms import Platform
    from scripts.registry.untag import Removal

_PREFIX = f"{records.PREFIX}backup."
_CHILD = f"{records.PREFIX}image."


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup of a tag; `digest` is the beginning of what the tag named then, 12 digits."""

    reference: Reference
    key: str
    taken: datetime
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many backups of a tag stay, and how long. The newest always stays."""

    keep: int = 10
    within: timedelta = timedelta(days=90)


@dataclass(slots=True, kw_only=True)
class Backed:
    """What a backup of a repository came to."""

    taken: list[Backup] = field(default_factory=list)
    unchanged: int = 0
    removed: list[Reference] = field(default_factory=list)
    failed: dict[str, RegistryError] = field(default_factory=dict)


def parse(repository: Reference, tag: str) -> Backup | None:
    """Read a backup's tag; None where it is none."""
    if not tag.startswith(_PREFIX):
        return None
    try:
        key, taken, digest = tag.removeprefix(_PREFIX).rsplit(".", 2)
        when = datetime.strptime(taken, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Backup(reference=repository.tagged(tag), key=key, taken=when, digest=digest)


def is_backup(tag: str) -> bool:
    """Tell whether a tag is a backup's."""
    return tag.startswith(_PREFIX)


def is_image(tag: str) -> bool:
    """Tell whether a tag is of an image that some backup lists."""
    return tag.startswith(_CHILD)


def newest_first(repository: Reference, tags: Iterable[str], key: str = "") -> list[Backup]:
    """Return the backups among some tags, those of one tag or of all."""
    found = (parse(repository, tag) for tag in tags)
    return sorted((each for each in found if each and key in {"", each.key}), key=lambda each: each.taken, reverse=True)


def backups(reference: Reference) -> Protocol[list[Backup]]:
    """Return a tag's backups, the newest first."""
    tags = yield from untag.list_tags(reference)
    return newest_first(reference, tags, records.key(reference.tag))


def backup(repository: Reference, *, policy: Policy, now: datetime, token: str) -> Protocol[Backed]:
    """Back up every tag that changed since its last backup, and take away those that the policy does not keep.

    With a tag in `repository`, that tag alone, and of its backups alone.
    """
    tags = yield from untag.list_tags(repository)
    if repository.tag and repository.tag not in tags:
        raise NotFound(f"{repository}: not found")
    wanted = [repository.tag] if repository.tag else [tag for tag in tags if not tag.startswith(records.PREFIX)]
    known = {key: each for each in reversed(newest_first(repository, tags)) for key in (each.key,)}
    heads = yield [exchange.head_manifest(repository.tagged(tag)) for tag in wanted]
    backed = Backed()
    changed = []
    for tag, response in zip(wanted, heads, strict=True):
        digest = response.headers.get("docker-content-digest", "")
        if response.status != 200:
            backed.failed[tag] = exchange.refusal(f"{repository.tagged(tag)}", response)
        elif (last := known.get(records.key(tag))) and digest[7:19] == last.digest:
            backed.unchanged += 1
        else:
            changed.append(tag)
    have = set(tags)
    results = yield from exchange.together(
        *(_take(repository.tagged(tag), now=now, have=have, last=known.get(records.key(tag))) for tag in changed)
    )
    for tag, result in zip(changed, results, strict=True):
        if isinstance(result, RegistryError):
            backed.failed[tag] = result
        elif result is None:
            backed.unchanged += 1
        else:
            backed.taken.append(result)
    every = newest_first(repository, [*tags, *(each.reference.tag for each in backed.taken)])
    yield from _rotate(repository, every, tags, policy=policy, now=now, token=token, backed=backed)
    return backed


def due(named: Mapping[str, str]) -> bool:
    """Tell whether a tag has no backup of what it names; `named` are the digests of a repository's tags."""
    taken: dict[str, tuple[datetime, str]] = {}
    nowhere = Reference(host="", repository="")
    for found in filter(None, (parse(nowhere, tag) for tag in named)):
        taken[found.key] = max(taken.get(found.key, (found.taken, found.digest)), (found.taken, found.digest))
    return any(
        taken.get(records.key(tag), (None, ""))[1] != digest[7:19]
        for tag, digest in named.items()
        if not tag.startswith(records.PREFIX)
    )


def rescue(tag: Reference, digest: str, *, had: datetime) -> Protocol[Backup | None]:
    """Back up what a tag named at a time, if that had a platform which the tag has no more; None: it had not, or is gone."""
    lost = yield from untag.read(tag.at(digest))
    if not isinstance(lost, Index) or untag.buried(lost):
        return None
    present = yield from untag.read(tag)
    if present is None or not set(lost.images()) - set((yield from _platforms(tag, present))):
        return None
    if any(each.digest == digest[7:19] for each in (yield from backups(tag))):
        return None
    taken = yield from _keep(tag, lost, now=had, have=set())
    if isinstance(taken, RegistryError):
        raise taken
    return taken


def restore(target: Reference, chosen: str, *, now: datetime, token: str) -> Protocol[Merged]:
    """Bring a tag back: without `chosen`, the platforms that it has lost; with it, that backup to the byte."""
    every = yield from backups(target)
    if not every:
        raise NotFound(f"{target}: there is no backup of it", hint="slipway backup takes them")
    if chosen:
        return (yield from _restore_exactly(target, _choose(target, every, chosen), now=now))
    found = yield from untag.read(target)
    if found is None or untag.buried(found):
        return (yield from _restore_exactly(target, every[0], now=now))
    present = yield from _platforms(target, found)
    for each in every:
        old = yield from untag.read(each.reference)
        missing = tuple(p for p in (yield from _platforms(target, old)) if p not in present) if old else ()
        if old and missing:
            order = Order(
                target=target, sources=(each.reference.at(old.digest),), platforms=missing, now=now, token=token
            )
            return (yield from merge.merge(order))
    raise NotFound(
        f"{target}: it has every platform that its backups have",
        hint=f"to go back to one: slipway restore {target} BACKUP",
    )


def _take(
    reference: Reference, *, now: datetime, have: set[str], last: Backup | None
) -> Protocol[Backup | RegistryError | None]:
    """Back up what a tag names; None: it is what it was at the `last` backup, which not every registry tells beforehand."""
    try:
        found = exchange.require(reference, (yield from untag.read(reference)))
        if untag.buried(found):
            raise NotFound(f"{reference}: its removal was cut off", hint=f"slipway untag {reference}")
    except RegistryError as error:
        return error
    if last and found.digest[7:19] == last.digest:
        return None
    return (yield from _keep(reference, found, now=now, have=have))


def _keep(
    reference: Reference, found: Index | Image, *, now: datetime, have: set[str]
) -> Protocol[Backup | RegistryError]:
    """Store bytes that a tag names, or named, under a backup's tag, each of their images first."""
    try:
        if isinstance(found, Index):
            tagged = yield from _tagged(reference, found, have)
            wanted = [each for each in found.descriptors if each.digest not in tagged]
            responses = yield [exchange.get_manifest(reference.at(each.digest)) for each in wanted]
            places = [(reference.tagged(_child_tag(each.digest)), reference.at(each.digest)) for each in wanted]
            parts = [
                (place, exchange.require(here, exchange.read_manifest(here, response)))
                for (place, here), response in zip(places, responses, strict=True)
            ]
            responses = yield [exchange.put_manifest(place, part) for place, part in parts]
            for (place, part), response in zip(parts, responses, strict=True):
                exchange.check_stored(place, part.digest, response)
        place = merge.backup_tag(reference, found.digest, now)
        (response,) = yield [exchange.put_manifest(place, found)]
        exchange.check_stored(place, found.digest, response)
    except ReadOnly:
        raise
    except RegistryError as error:
        return error
    return Backup(reference=place, key=records.key(reference.tag), taken=now, digest=found.digest[7:19])


def _tagged(reference: Reference, index: Index, have: set[str]) -> Protocol[set[str]]:
    """Return the parts that have a tag of their own; one whose removal was cut off names something else."""
    wanted = [each.digest for each in index.descriptors if _child_tag(each.digest) in have]
    named = yield from exchange.name_still([(reference.tagged(_child_tag(each)), each) for each in wanted])
    return {each for each, names in zip(wanted, named, strict=True) if names}


def _rotate(
    repository: Reference,
    every: Sequence[Backup],
    tags: Sequence[str],
    *,
    policy: Policy,
    now: datetime,
    token: str,
    backed: Backed,
) -> Protocol[None]:
    """Take old backups away, of the tag in `repository` if it has one, then the images' own tags that no backup needs any more."""
    key = records.key(repository.tag) if repository.tag else ""
    counts: dict[str, int] = {}
    gone: list[Backup] = []
    kept: list[Backup] = []
    for each in every:
        count = counts[each.key] = counts.get(each.key, 0) + 1
        stays = count == 1 or (count <= policy.keep and now - each.taken <= policy.within)
        stays = stays or key not in {"", each.key}  # another tag's, of which nothing was said
        (kept if stays else gone).append(each)
    if not gone:
        return
    removals = yield from exchange.together(
        *(untag.remove(each.reference, digest=each.digest, token=f"{token}-{n}") for n, each in enumerate(gone))
    )
    backed.removed += _removed(removals, backed)
    responses = yield [exchange.get_manifest(each.reference) for each in kept]
    needed: set[str] = set()
    for each, response in zip(kept, responses, strict=True):
        found = exchange.read_manifest(each.reference, response)
        needed |= {_child_tag(part.digest) for part in found.descriptors} if isinstance(found, Index) else set()
    unneeded = [repository.tagged(tag) for tag in tags if tag.startswith(_CHILD) and tag not in needed]
    heads = yield [exchange.head_manifest(each) for each in unneeded]
    removals = yield from exchange.together(
        *(
            untag.remove(each, digest=head.headers.get("docker-content-digest", ""), token=f"{token}-image-{n}")
            for n, (each, head) in enumerate(zip(unneeded, heads, strict=True))
        )
    )
    _removed(removals, backed)


def _removed(removals: Iterable[Removal], backed: Backed) -> list[Reference]:
    """Return what is gone; what is not is noted, unless it is to be tried again."""
    gone = []
    for removal in removals:
        if isinstance(removal.kept, ReadOnly):
            raise removal.kept
        if removal.kept:
            backed.failed[removal.reference.tag] = removal.kept
        else:
            gone.append(removal.reference)
    return gone


def _restore_exactly(target: Reference, chosen: Backup, *, now: datetime) -> Protocol[Merged]:
    """Write a backup's bytes to its tag, with records, so that nobody takes the platforms of before for lost.

    All its parts are read before that: the registry refuses an index with a part that is gone. The records of platforms that
    the backup lacks are withdrawn before the write: a merge under way that finds its record gone writes it again, and one
    that had ended is undone by the write.
    """
    wanted = exchange.require(chosen.reference, (yield from untag.read(chosen.reference)))
    inspected = yield from inspection.inspect(chosen.reference)
    if broken := [each.what for each in inspected.findings if each.breaks]:
        raise VerificationFailed(
            f"{chosen.reference}: {'; '.join(broken)}; nothing was written",
            hint=f"slipway backups {target} lists others",
        )
    (response,) = yield [exchange.get_manifest(target)]
    found, read_at = exchange.read_manifest(target, response), records.seconds(response)
    before = yield from merge.as_index(target, found)
    after = yield from merge.as_index(target, wanted)
    kept = merge.backup_tag(target, found.digest, now) if found is not None and not untag.buried(found) else None
    noted: list[tuple[Reference, Index]] = []
    old = before.images()
    for platform, image in after.images().items():
        part = Contribution(platform=platform, image=image, attestations=after.attestations(image.digest))
        record = records.new(part, source=chosen.reference.within).begin(
            base=found.digest if found else "",
            result=wanted.digest,
            replaced=old[platform].digest if platform in old else "",
            read_at=read_at,
        )
        noted.append((records.record_tag(target, platform), record.to_index()))
    lacking = sorted({*old, *records.USUAL} - after.images().keys())
    noted += [(records.record_tag(target, platform), records.withdrawn()) for platform in lacking]
    stored: list[tuple[Reference, Index | Image]] = [*noted, *([(kept, found)] if kept and found else [])]
    responses = yield [exchange.put_manifest(reference, manifest) for reference, manifest in stored]
    for (reference, manifest), response in zip(stored, responses, strict=True):
        exchange.check_stored(reference, manifest.digest, response)
    (response,) = yield [exchange.put_manifest(target, wanted)]
    exchange.check_stored(target, wanted.digest, response)
    response, *heads = yield [
        exchange.get_manifest(target),
        *(exchange.head_manifest(place, unless=record.digest) for place, record in noted),
    ]
    now_there = exchange.read_manifest(target, response)
    if now_there is None or now_there.digest != wanted.digest:
        raise VerificationFailed(
            f"{target}: it is {now_there.digest if now_there else 'not there'} after the write, not {wanted.digest}",
            hint="somebody else wrote it in the same moment; run this again",
        )
    stayed = yield from exchange.together(
        *(exchange.unchanged(place, head, record.digest) for head, (place, record) in zip(heads, noted, strict=True))
    )
    if not all(stayed):
        raise VerificationFailed(
            f"{target}: it is restored, and somebody merged into it in the same moment", hint="run this again"
        )
    return Merged(
        target=target, before=found, after=now_there if isinstance(now_there, Index) else after, changes=(),
        backup=kept, attempts=1,
    )  # fmt: skip


def _platforms(target: Reference, found: Index | Image) -> Protocol[list[Platform]]:
    return list((yield from merge.as_index(target, found)).images())


def _choose(target: Reference, every: Sequence[Backup], chosen: str) -> Backup:
    fitting = [
        each for each in every if chosen in {each.reference.tag, str(each.reference)} or each.digest.startswith(chosen)
    ]
    if not fitting:
        raise NotFound(f"{target}: it has no backup {chosen!r}", hint=f"slipway backups {target} lists them")
    return fitting[0]


def _child_tag(digest: str) -> str:
    return f"{_CHILD}{digest.removeprefix('sha256:')[:40]}"
