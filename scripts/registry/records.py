"""Records: what each writer means a platform of a tag to be, kept under a tag of its own before the target is written.

registry:2 has no compare-and-swap, so a writer can overwrite what another has just written. The record is how the loss
is noticed. It is an index of one platform, and so it also keeps that platform's manifests from every collection.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from scripts.registry import manifests
from scripts.registry.manifests import Contribution, Index
from scripts.registry.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from scripts.registry.exchange import Response
    from scripts.registry.references import Reference

PREFIX = "slipway."
"""What the tags of our own begin with; they are nobody's to pull."""

USUAL = (Platform("linux", "amd64"), Platform("linux", "arm64"))
"""The platforms whose records are looked at though the tag has them not: somebody may be adding them just now."""

IN_FLIGHT_S = 600
"""A record that is older than this, when a merge begins, belongs to no merge that still runs."""

_KEPT = 16  # digests of a record's own past
_LONGEST_KEY = 60
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,48}")
_RECORD = f"{PREFIX}record."
_RECORD_TAG = re.compile(
    rf"{re.escape(_RECORD)}(?P<key>.+)\.(?:aix|android|darwin|dragonfly|freebsd|illumos|ios|js|linux|netbsd|openbsd|plan9"
    r"|solaris|wasip1|wasi|windows|zos)-.+"
)
"""A record's tag. Keys hold dots, and versions of Windows do: the platform begins with the last name of a system."""

_ANNOTATION = "dev.slipway."
_ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One writer's intent for one platform of a tag.

    `bases` are the digests of the tag that it has seen, `results` what it made of them, `replaced` the images that had
    the platform before; `began_at` and `read_at` are when it read the first base and the last, in seconds, by the registry's clock.
    """

    contribution: Contribution
    bases: tuple[str, ...]
    results: tuple[str, ...]
    replaced: tuple[str, ...]
    began_at: int
    read_at: int
    source: str = ""

    @property
    def platform(self) -> Platform:
        """Return the platform that it is about."""
        return self.contribution.platform

    @property
    def image(self) -> str:
        """Return the digest of the platform's image."""
        return self.contribution.image.digest

    def replaced_images(self) -> tuple[str, ...]:
        """Return the digests of other images that had the platform before."""
        return tuple(each for each in self.replaced if each not in {_ABSENT, self.image})

    def begin(self, *, base: str, result: str, replaced: str, read_at: int) -> Record:
        """Return it with one more attempt."""
        return replace(
            self,
            bases=_append(self.bases, base or _ABSENT),
            results=_append(self.results, result),
            replaced=_append(self.replaced, replaced or _ABSENT),
            began_at=self.began_at or read_at,
            read_at=read_at,
        )

    def reflected(self, target: Index | None) -> bool:
        """Tell whether a tag has this image for this platform."""
        return (
            target is not None
            and (found := target.images().get(self.platform)) is not None
            and found.digest == self.image
        )

    def to_index(self) -> Index:
        """Return what is stored."""
        annotations = {
            "bases": " ".join(self.bases),
            "results": " ".join(self.results),
            "replaced": " ".join(self.replaced),
            "began-at": _format_time(self.began_at),
            "read-at": _format_time(self.read_at),
            "source": self.source,
        }
        empty = manifests.empty_index(
            annotations={f"{_ANNOTATION}{name}": value for name, value in annotations.items()}
        )
        return manifests.merge(empty, [self.contribution])[0]


def new(contribution: Contribution, *, source: str) -> Record:
    """Return a record of no attempt yet."""
    return Record(contribution=contribution, bases=(), results=(), replaced=(), began_at=0, read_at=0, source=source)


def withdrawn() -> Index:
    """Return what is stored in a record's place when it is to say nothing any more, also where a registry deletes nothing."""
    return manifests.empty_index(annotations={f"{_ANNOTATION}withdrawn": "true"})


def parse(index: Index) -> Record | None:
    """Read what is stored under a record's tag; None where it is no record."""
    known = {name.removeprefix(_ANNOTATION): value for name, value in index.annotations.items()}
    images = index.images()
    if len(images) != 1 or not {"bases", "results", "replaced", "began-at", "read-at"} <= known.keys():
        return None
    ((platform, image),) = images.items()
    try:
        began_at, read_at = _parse_time(known["began-at"]), _parse_time(known["read-at"])
    except ValueError:
        return None
    return Record(
        contribution=Contribution(platform=platform, image=image, attestations=index.attestations(image.digest)),
        bases=tuple(known["bases"].split()),
        results=tuple(known["results"].split()),
        replaced=tuple(known["replaced"].split()),
        began_at=began_at,
        read_at=read_at,
        source=known.get("source", ""),
    )


def concurrent(
    target: Index, record: Record, mine: Sequence[Record], known: Iterable[Record], *, checked_at: int
) -> bool:
    """Tell whether another platform's writer may have written the tag between our last look at it and our write.

    It began from what we or those before us began from, or after that look (`checked_at`), or the tag has just what it
    replaced. A record that was there long before is of a merge that ended, and the tag is the truth.
    """
    began = min(each.read_at for each in mine)
    if record.read_at < began - IN_FLIGHT_S:
        return False
    history = _history({digest for each in mine for digest in (*each.bases, *each.results)}, known, without=record)
    return (
        record.read_at >= checked_at
        or _present(target, record.platform) in record.replaced
        or not history.isdisjoint(record.bases)
    )


def lost(target: Index, digest: str, records: Mapping[Platform, Record]) -> list[Record]:
    """Return the records whose image the tag should have, and has not.

    Either the tag has just the image that the record's writer replaced, or it was written by a writer who began before
    that one had ended. After an ordinary push of all platforms neither is so.
    """
    last = [each for each in records.values() if digest in each.results]
    found = []
    for platform, record in records.items():
        present = _present(target, platform)
        if present == record.image:
            continue
        others = [each for each in last if each.platform != platform]
        seeds = {known for each in others for known in (*each.bases, *each.results)}
        history = _history(seeds, records.values(), without=record)
        later = any(record.read_at >= each.began_at for each in others)
        if present in record.replaced or later or not history.isdisjoint((*record.bases, *record.results)):
            found.append(record)
    return found


def _present(target: Index, platform: Platform) -> str:
    found = target.images().get(platform)
    return found.digest if found else _ABSENT


def _history(digests: set[str], known: Iterable[Record], *, without: Record) -> set[str]:
    """Return `digests` with what the records tell of what came before and beside them."""
    history, rest = set(digests), [each for each in known if each.platform != without.platform]
    while linked := [each for each in rest if not history.isdisjoint((*each.bases, *each.results))]:
        rest = [each for each in rest if each not in linked]
        history.update(digest for each in linked for digest in (*each.bases, *each.results))
    return history


def key(tag: str) -> str:
    """Return a tag's part of the names below: itself, or its beginning and a hash where it is too long."""
    if len(tag) <= _LONGEST_KEY:
        return tag
    return f"{tag[:40]}_{hashlib.sha256(tag.encode()).hexdigest()[:16]}"


def record_tag(target: Reference, platform: Platform) -> Reference:
    """Return where the record for a platform of a tag is kept."""
    parts = (platform.os, platform.architecture, platform.variant, platform.os_version, *platform.os_features)
    name = "-".join(filter(None, parts))
    if not _PLAIN.fullmatch(name):  # what an image says of itself is in no path of ours
        name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:30]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return target.tagged(f"{_RECORD}{key(target.tag)}.{name}")


def is_record(tag: str) -> bool:
    """Tell whether a tag is a record's."""
    return tag.startswith(_RECORD)


def is_of(tag: str, keys: Collection[str]) -> bool:
    """Tell whether a record's tag is about one of the tags with these keys; of a system that nobody knows, whether it may be."""
    found = _RECORD_TAG.fullmatch(tag)
    return found["key"] in keys if found else any(tag.startswith(f"{_RECORD}{each}.") for each in keys)


def seconds(response: Response) -> int:
    """Return the registry's own time of an answer; 0 where it does not tell."""
    try:
        return int(parsedate_to_datetime(response.headers["date"]).timestamp())
    except (KeyError, ValueError, TypeError):
        return 0


def _format_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _parse_time(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _append(digests: tuple[str, ...], digest: str) -> tuple[str, ...]:
    return (*(each for each in digests if each != digest), digest)[-_KEPT:]
