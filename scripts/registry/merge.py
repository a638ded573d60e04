"""Merge: put platforms into a tag, so that no writer loses another's.

load → plan → record → look again → write → read back, until tag and records agree. docs/merge.md tells why each step
is there, and what cannot be closed without a lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scripts.registry import exchange, manifests, records, sources, untag
from scripts.registry.errors import (
    Contended,
    InvalidReference,
    NotFound,
    ReadOnly,
    RegistryError,
    RegistryFailed,
    RegistryUnreachable,
    SourceRefused,
    VerificationFailed,
)
from scripts.registry.manifests import Image, Index
from scripts.registry.untag import Removal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from scripts.registry.exchange import Protocol, Request, Response
    from scripts.registry.manifests import Change, Contribution
    from scripts.registry.platforms import Platform
    from scripts.registry.records import Record
    from scripts.registry.references import Reference
    from scripts.registry.sources import Source

MAX_ATTEMPTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be merged into what; `platforms` limits it, `token` is unique to this run."""

    target: Reference
    sources: tuple[Reference, ...]
    now: datetime
    token: str
    platforms: tuple[Platform, ...] = ()
    create: bool = False
    keep_staging: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What became of it. `after` is what the tag named when it was last read.

    `replaced` are the images that ours took the place of, by platform, also those that others merged meanwhile; `superseded`
    are the platforms that a later writer has given another image, `included` the platforms of other writers that were
    brought back, `broken` the parts that were in the tag before and cannot be read.
    """

    target: Reference
    before: Index | Image | None
    after: Index
    changes: tuple[Change, ...]
    backup: Reference | None = None
    replaced: Mapping[Platform, tuple[str, ...]] = field(default_factory=dict)
    superseded: tuple[Platform, ...] = ()
    included: tuple[Platform, ...] = ()
    broken: tuple[str, ...] = ()
    staging: tuple[Removal, ...] = ()
    attempts: int = 0

    @property
    def reference(self) -> Reference:
        """Return the tag's repository at the digest."""
        return self.target.at(self.after.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """The target as it was read: `manifest` as stored, `index` what the merge begins from."""

    manifest: Index | Image | None
    index: Index
    read_at: int

    @property
    def digest(self) -> str:
        return self.manifest.digest if self.manifest else ""

    @property
    def exists(self) -> bool:
        """Tell whether there is a tag, and not one whose removal was cut off."""
        return self.manifest is not None and not untag.buried(self.manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What there is after a write."""

    target: _Base
    records: dict[Platform, Record]
    unreadable: tuple[str, ...]
    staging_moved: frozenset[Reference]


@dataclass(slots=True, kw_only=True)
class _Work:
    """A merge under way: what is ours, and what we owe others, since our write took it from the tag."""

    order: Order
    mine: dict[Platform, Record]
    owed: dict[Platform, Contribution] = field(default_factory=dict)
    included: set[Platform] = field(default_factory=set)
    superseded: set[Platform] = field(default_factory=set)
    results: set[str] = field(default_factory=set)
    backups: dict[str, Reference] = field(default_factory=dict)
    checked_at: int = 0
    wrote: bool = False

    def contributions(self) -> list[Contribution]:
        """Return what the tag is to have."""
        ours = {platform: record.contribution for platform, record in self.current().items()}
        wanted = ours | self.owed
        return [wanted[platform] for platform in sorted(wanted)]  # the same sources in any order: the same bytes

    def current(self) -> dict[Platform, Record]:
        """Return what is ours and not superseded by a later writer."""
        return {platform: each for platform, each in self.mine.items() if platform not in self.superseded}


def merge(order: Order) -> Protocol[Merged]:
    """Merge; raise what went wrong, with the tag as it was or as it was to be."""
    _check(order)
    base, *loaded = yield from exchange.together(
        _load_target(order.target), *(sources.load(each, order.platforms) for each in order.sources)
    )
    base = _base(base)
    if not base.exists and not order.create:
        raise NotFound(f"{order.target}: there is no such tag to merge into", hint="--create makes it")
    found = yield from _resume(order, base, loaded)
    work = _Work(order=order, mine=_records(order, found))
    elsewhere = [each.reference.repository != order.target.repository for each in found]
    if order.dry_run or any(elsewhere):
        found = yield from _look(found)
    for source, foreign in zip(found, elsewhere, strict=True):
        if foreign and not order.dry_run:
            yield from sources.bring(order.target, source)
    first, changes = base, _plan(base, work)[1]
    if order.dry_run:
        return _result(work, first, _plan(base, work)[0], changes)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        seen = yield from _attempt(work, base, found, first=attempt == 1)
        if not (yield from _unsettled(work, seen)):
            done = _result(work, first, seen.target.index, changes, broken=seen.unreadable, attempts=attempt)
            if seen.unreadable or order.keep_staging:
                return done
            return replace(done, staging=(yield from _remove_staging(order, found, seen.staging_moved)))
        yield exchange.Pause(attempt=attempt)
        base = seen.target
    raise Contended(
        f"{order.target}: other writers changed it {MAX_ATTEMPTS} times", hint="run this again, or use --lock"
    )


def _check(order: Order) -> None:
    if order.target.digest:
        raise InvalidReference(f"{order.target}: a digest cannot be merged into", hint="name a tag")
    for source in order.sources:
        if source.host != order.target.host:
            hint = f"push it to {order.target.name} first"
            raise SourceRefused(f"{source}: it is in another registry than {order.target}", hint=hint)
        if source == order.target:
            raise SourceRefused(f"{source}: it is the target itself")


def _load_target(target: Reference) -> Protocol[_Base | Source | None]:
    """Read the tag."""
    (response,) = yield [exchange.get_manifest(target)]
    return (yield from _read_target(target, response))


def _read_target(target: Reference, response: Response) -> Protocol[_Base]:
    found, read_at = exchange.read_manifest(target, response), records.seconds(response)
    return _Base(manifest=found, index=(yield from as_index(target, found)), read_at=read_at)


def as_index(target: Reference, found: Index | Image | None) -> Protocol[Index]:
    """Return what a tag names as an index; a plain image becomes an index of one."""
    if found is None or untag.buried(found):
        return manifests.empty_index()
    if isinstance(found, Index):
        return found
    source = yield from sources.from_image(target, found, ())
    media_type = manifests.DOCKER_LIST if found.media_type == manifests.DOCKER_MANIFEST else manifests.OCI_INDEX
    return manifests.merge(manifests.empty_index(media_type), source.contributions)[0]


def _base(value: object) -> _Base:
    if not isinstance(value, _Base):
        raise TypeError(value)
    return value


def _resume(order: Order, base: _Base, loaded: Sequence[object]) -> Protocol[list[Source]]:
    """Return the sources; one that is gone was merged already, if a record says so and the target has it still.

    A source goes only once the tag and the records agree, so a merge that was killed after that finds both.
    """
    found = [each for each in loaded if isinstance(each, sources.Source)]
    missing = [name for name, each in zip(order.sources, loaded, strict=True) if each is None]
    if missing:
        known = yield from read_records(order.target, base.index.images())
        for name in missing:
            merged = [each for each in known.values() if each.source == name.within and each.reflected(base.index)]
            if not merged:
                raise NotFound(f"{name}: no such source", hint="push it first")
            parts = tuple(each.contribution for each in merged)
            found.append(sources.Source(reference=name, digest="", contributions=parts, checked=True))
    return found


def _look(found: Sequence[Source]) -> Protocol[list[Source]]:
    """Look at every part of the sources, before anything else is done."""
    asked = [sources.part_requests(source) for source in found]
    responses = iter((yield [request for each in asked for request in each]))
    seen = [
        sources.check_parts(source, [next(responses) for _ in each]) for source, each in zip(found, asked, strict=True)
    ]
    yield from _look_at_configs(seen, ())
    return [replace(each, checked=True) for each in seen]


def _look_at_configs(found: Sequence[Source], beside: Sequence[Request]) -> Protocol[list[Response]]:
    """Look at the configurations; the answers to the requests `beside` them."""
    asked = [sources.config_requests(source) for source in found]
    responses = iter((yield [*beside, *(request for each in asked for request in each)]))
    answers = [next(responses) for _ in beside]
    for source, each in zip(found, asked, strict=True):
        sources.check_configs(source, [next(responses) for _ in each])
    return answers


def _records(order: Order, found: Iterable[Source]) -> dict[Platform, Record]:
    mine: dict[Platform, Record] = {}
    for source in found:
        for part in source.contributions:
            if part.platform in mine:
                raise SourceRefused(
                    f"{source.reference}: {mine[part.platform].source} is for {part.platform} too",
                    hint="merge one of them, or say --platform",
                )
            mine[part.platform] = records.new(part, source=source.reference.within)
    if not mine:
        raise SourceRefused(f"{order.target}: nothing to merge", hint="--from names what")
    return mine


def _plan(base: _Base, work: _Work) -> tuple[Index, tuple[Change, ...]]:
    return manifests.merge(base.index, work.contributions())


def _attempt(work: _Work, base: _Base, found: Sequence[Source], *, first: bool) -> Protocol[_Seen]:
    """Record, look again, write if the tag is still what it was, read back; at the sources' parts only the `first` looks."""
    order, target = work.order, work.order.target
    merged, _ = _plan(base, work)
    try:
        seen = yield from _prepare(work, base, merged, found if first else ())
        same = yield from _recheck(work, base, seen)
        if same and (base.manifest is None or merged.body != base.manifest.body):
            (response,) = yield [exchange.put_manifest(target, merged)]
            unknown = response.status in {exchange.NO_ANSWER, 500, 502, 503, 504}  # what there is now will tell
            work.wrote = work.wrote or unknown or response.status == 201
            if not unknown:
                exchange.check_stored(target, merged.digest, response)
    except (ReadOnly, RegistryUnreachable):  # it takes nothing back either
        raise
    except RegistryError:
        if not work.wrote:
            yield from _withdraw(work)
        raise
    wanted = dict.fromkeys([*merged.images(), *work.mine, *records.USUAL])
    others = {each.digest for platform, each in merged.images().items() if platform not in work.mine}
    tags = [] if order.keep_staging else [each for each in found if each.reference.tag and not each.reference.digest]
    batch = [
        exchange.get_manifest(target),
        *(exchange.get_manifest(records.record_tag(target, platform)) for platform in wanted),
        *(exchange.head_manifest(target.at(digest)) for digest in sorted(others)),
        *(exchange.head_manifest(each.reference, unless=each.digest) for each in tags),
    ]
    responses = list((yield batch))
    if same:
        now = yield from _read_back(work, base, responses.pop(0))
    elif not (now := (yield from _read_target(target, responses.pop(0)))).exists and not order.create:
        yield from _withdraw(work)
        raise NotFound(f"{target}: somebody took it away meanwhile", hint="--create makes it")
    known = _parse_records(target, wanted, [responses.pop(0) for _ in wanted])
    heads = dict(zip(sorted(others), responses, strict=False))
    stayed = yield from exchange.together(
        *(
            exchange.unchanged(each.reference, response, each.digest)
            for each, response in zip(tags, responses[len(others) :], strict=True)
        )
    )
    moved = {each.reference for each, stays in zip(tags, stayed, strict=True) if not stays}
    unreadable = tuple(digest for digest, response in heads.items() if response.status != 200)
    return _Seen(target=now, records=known, unreadable=unreadable, staging_moved=frozenset(moved))


def _prepare(work: _Work, base: _Base, merged: Index, found: Sequence[Source]) -> Protocol[list[Source]]:
    """Write the records and the backup, and look at the sources' manifests; the sources with these."""
    target, images = work.order.target, base.index.images()
    stored: list[tuple[Reference, manifests.Manifest]] = []
    for platform, record in work.current().items():
        before = images[platform].digest if platform in images else ""
        work.mine[platform] = record.begin(
            base=base.digest, result=merged.digest, replaced=before, read_at=base.read_at
        )
        stored.append((records.record_tag(target, platform), work.mine[platform].to_index()))
    work.results.add(merged.digest)
    if base.manifest and base.exists and merged.body != base.manifest.body and base.digest not in work.backups:
        work.backups[base.digest] = backup_tag(target, base.digest, work.order.now)
        stored.append((work.backups[base.digest], base.manifest))
    asked = [sources.part_requests(source) for source in found]
    writes = [exchange.put_manifest(reference, manifest) for reference, manifest in stored]
    responses = iter((yield [*(request for each in asked for request in each), *writes]))
    seen = [
        sources.check_parts(source, [next(responses) for _ in each]) for source, each in zip(found, asked, strict=True)
    ]
    for reference, manifest in stored:
        exchange.check_stored(reference, manifest.digest, next(responses))
    return seen


def _withdraw(work: _Work) -> Protocol[None]:
    """Take back the records of a merge that is given up, where they are still ours: whoever found one would carry it out.

    Another writer whose record comes between our look and this finds its own gone, and writes it again.
    """
    written = [
        (records.record_tag(work.order.target, platform), record.to_index().digest)
        for platform, record in work.current().items()
    ]
    named = yield from exchange.name_still(written)
    ours = [place for (place, _), names in zip(written, named, strict=True) if names]
    if ours:
        yield [exchange.put_manifest(place, records.withdrawn()) for place in ours]


def _recheck(work: _Work, base: _Base, found: Sequence[Source]) -> Protocol[bool]:
    """Tell whether the tag is still what the plan was made for; look at the sources' configurations beside that."""
    target = work.order.target
    look = exchange.head_manifest(target, unless=base.digest) if base.manifest else exchange.get_manifest(target)
    (response,) = yield from _look_at_configs(found, [look])
    work.checked_at = records.seconds(response)
    if base.manifest is None:
        return response.status == 404 and exchange.absent(target, response)
    if response.status not in {200, 304, 404}:
        raise exchange.refusal(f"{target}", response)
    same = yield from exchange.unchanged(target, response, base.digest)
    if same and base.manifest.media_type == manifests.DOCKER_MANIFEST:
        yield from exchange.check_accepted(target, response, base.digest)
    return same


def _read_back(work: _Work, base: _Base, response: Response) -> Protocol[_Base]:
    """Read the tag after the write; where it cannot be read any more, put back what it named."""
    target = work.order.target
    try:
        now = yield from _read_target(target, response)
        if now.manifest is not None:
            return now
        problem: RegistryError = NotFound(f"{target}: the registry took the index and does not have it")
    except RegistryError as error:
        problem = error
    outcome = "there was none before"
    if base.manifest is not None:
        (response,) = yield [exchange.put_manifest(target, base.manifest)]
        outcome = "what it named before is back" if response.status == 201 else "and it could not be put back either"
    raise VerificationFailed(
        f"{problem}; {outcome}", hint="restart the registry: after a collection its cache knows what is gone"
    ) from problem


def _unsettled(work: _Work, seen: _Seen) -> Protocol[bool]:
    """Compare tag and records, and tell whether the tag has to be written once more."""
    target = seen.target.index
    known = yield from _sound(work, seen.target.index, seen.records)
    wrote = seen.target.digest in work.results
    ours = list(work.mine.values())
    for platform, record in known.items():
        own = work.mine.get(platform)
        if own and record.image != own.image:
            work.superseded.add(platform)
        if record.reflected(target):
            work.owed.pop(platform, None)
        elif platform in work.owed or (wrote and platform in work.superseded):  # ours came after theirs
            work.owed[platform] = record.contribution
        elif (
            wrote
            and not own
            and records.concurrent(target, record, ours, known.values(), checked_at=work.checked_at)
            and (yield from _readable(work.order.target, record.contribution))
        ):
            work.owed[platform] = record.contribution
            work.included.add(platform)
    missing = [platform for platform, record in work.current().items() if not record.reflected(target)]
    if missing:  # whose is the platform now? The tag was read first: who wrote it had recorded that before
        latest = yield from read_records(work.order.target, missing)
        latest = yield from _sound(work, target, latest)
        work.superseded |= {each for each, record in latest.items() if record.image != work.mine[each].image}
    # Where another writer has put ours in, our record must name what it made: those who come later look for that. A restore
    # may have withdrawn our record beside us: those who come later need it.
    named = all(
        platform in known and seen.target.digest in record.results for platform, record in work.current().items()
    )
    return bool(work.owed) or not named or bool(work.current().keys() & set(missing))


def _sound(work: _Work, target: Index, known: Mapping[Platform, Record]) -> Protocol[dict[Platform, Record]]:
    """Return the records without those that claim a platform of ours, or one that we owe, for what cannot be merged."""
    sound = dict(known)
    for platform, record in known.items():
        before = work.owed.get(platform) or (work.mine[platform].contribution if platform in work.mine else None)
        if before is None or record.image == before.image.digest or record.reflected(target):
            continue
        if not (yield from _readable(work.order.target, record.contribution)):
            del sound[platform]
    return sound


def _readable(target: Reference, contribution: Contribution) -> Protocol[bool]:
    """Tell whether an image that another writer recorded can be merged; that writer may have been killed, or refused, since."""
    try:
        yield from _look([sources.Source(reference=target, digest="", contributions=(contribution,))])
    except RegistryUnreachable:
        raise
    except RegistryError:
        return False
    return True


def read_records(target: Reference, wanted: Iterable[Platform]) -> Protocol[dict[Platform, Record]]:
    """Read the records of a tag's platforms, those that there are."""
    names = list(wanted)
    responses = yield [exchange.get_manifest(records.record_tag(target, platform)) for platform in names]
    return _parse_records(target, names, responses)


def _parse_records(
    target: Reference, wanted: Iterable[Platform], responses: Iterable[Response]
) -> dict[Platform, Record]:
    known = {}
    for platform, response in zip(wanted, responses, strict=True):
        found = exchange.read_manifest(records.record_tag(target, platform), response)
        record = records.parse(found) if isinstance(found, Index) else None
        if record and record.platform == platform:
            known[platform] = record
    return known


def _remove_staging(
    order: Order, found: Sequence[Source], moved: frozenset[Reference]
) -> Protocol[tuple[Removal, ...]]:
    """Take the sources' tags away. The target is written by now, so that whatever goes wrong says only what is kept."""
    removals: dict[Reference, Protocol[Removal]] = {}
    kept: list[Removal] = []
    for number, source in enumerate(found):
        if not source.reference.tag or source.reference.digest or not source.digest:
            continue
        if source.reference in moved:
            changed = RegistryFailed(
                f"{source.reference}: it was pushed again since it was merged", hint="merge it again"
            )
            kept.append(Removal(reference=source.reference, kept=changed))
        else:
            removals[source.reference] = untag.remove(
                source.reference, digest=source.digest, token=f"{order.token}-{number}"
            )
    try:
        removed = yield from exchange.together(*removals.values())
    except RegistryError as error:
        removed = [Removal(reference=each, kept=error) for each in removals]
    return (*kept, *map(_later, removed))


def _later(removal: Removal) -> Removal:
    """Say what to do where the registry has turned read-only or is gone: not to merge again, as others may have by then."""
    if not isinstance(removal.kept, ReadOnly | RegistryUnreachable):
        return removal
    hint = f"when that has ended: slipway untag {removal.reference}"
    return replace(removal, kept=type(removal.kept)(str(removal.kept), hint=hint))


def backup_tag(target: Reference, digest: str, now: datetime) -> Reference:
    """Return where what a tag names is kept before the tag is written."""
    return target.tagged(f"{records.PREFIX}backup.{records.key(target.tag)}.{now:%Y%m%dT%H%M%SZ}.{digest[7:19]}")


def _result(
    work: _Work,
    first: _Base,
    after: Index,
    changes: tuple[Change, ...],
    *,
    broken: tuple[str, ...] = (),
    attempts: int = 0,
) -> Merged:
    return Merged(
        target=work.order.target,
        before=first.manifest,
        after=after,
        changes=changes,
        backup=work.backups.get(first.digest),
        replaced={platform: record.replaced_images() for platform, record in sorted(work.mine.items())},
        superseded=tuple(sorted(work.superseded)),
        included=tuple(sorted(work.included)),
        broken=broken,
        attempts=attempts,
    )
