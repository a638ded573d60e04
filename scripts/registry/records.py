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

from scripts.registry import manifests, platforms
from scripts.registry.manifests import Contribution, Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scripts.registry.exchange import Response
    from scripts.registry.platforms import Platform
    from scripts.registry.references import Reference

PREFIX = "slipway."
"""What the tags of our own begin with; they are nobody's to pull."""

IN_FLIGHT_S = 600
"""A record that is older than this, when a merge begins, belongs to no merge that still runs."""

_KEPT = 16  # digests of a record's own past
_LONGEST_KEY = 60
_ANNOTATION = "dev.slipway."
_ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One writer's intent for one platform of a tag.

    `bases` are the digests of the tag that it has seen, `results` what it made of them, `replaced` the images that had
    the platform before; `read_at` is when it read the last base, in seconds, by the registry's clock.
    """

    contribution: Contribution
    bases: tuple[str, ...]
    results: tuple[str, ...]
    replaced: tuple[str, ...]
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

    def begin(self, *, base: str, result: str, replaced: str, read_at: int) -> Record:
        """Return it with one more attempt."""
        return replace(
            self,
            bases=_append(self.bases, base or _ABSENT),
            results=_append(self.results, result),
            replaced=_append(self.replaced, replaced or _ABSENT),
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
            "read-at": datetime.fromtimestamp(self.read_at, UTC).isoformat(),
            "source": self.source,
        }
        empty = manifests.empty_index(
            annotations={f"{_ANNOTATION}{name}": value for name, value in annotations.items()}
        )
        return manifests.merge(empty, [self.contribution])[0]


def new(contribution: Contribution, *, source: str) -> Record:
    """Return a record of no attempt yet."""
    return Record(contribution=contribution, bases=(), results=(), replaced=(), read_at=0, source=source)


def parse(index: Index) -> Record | None:
    """Read what is stored under a record's tag; None where it is no record."""
    known = {name.removeprefix(_ANNOTATION): value for name, value in index.annotations.items()}
    images = index.images()
    if len(images) != 1 or not {"bases", "results", "replaced", "read-at"} <= known.keys():
        return None
    ((platform, image),) = images.items()
    try:
        read_at = int(datetime.fromisoformat(known["read-at"]).timestamp())
    except ValueError:
        return None
    return Record(
        contribution=Contribution(platform=platform, image=image, attestations=index.attestations(image.digest)),
        bases=tuple(known["bases"].split()),
        results=tuple(known["results"].split()),
        replaced=tuple(known["replaced"].split()),
        read_at=read_at,
        source=known.get("source", ""),
    )


def concurrent(record: Record, mine: Iterable[Record], *, checked_at: int) -> bool:
    """Tell whether another platform's writer may have written the tag between our last look at it and our write.

    It began from a tag that we began from, or it began after that look (`checked_at`). A record that was there long
    before either is of a merge that ended, and the tag is the truth.
    """
    return any(
        record.read_at >= each.read_at - IN_FLIGHT_S
        and (not set(record.bases).isdisjoint(each.bases) or record.read_at >= checked_at)
        for each in mine
    )


def lost(target: Index, digest: str, records: Mapping[Platform, Record]) -> list[Record]:
    """Return the records whose image the tag should have, and has not.

    Either the tag has just the image that the record's writer replaced, or it was written by a writer who began before
    that one had ended. After an ordinary push of all platforms neither is so.
    """
    images = target.images()
    last = [each for each in records.values() if digest in each.results]
    found = []
    for platform, record in records.items():
        present = images[platform].digest if platform in images else _ABSENT
        if present == record.image:
            continue
        overwritten = any(
            each.platform != platform
            and (not set(record.bases).isdisjoint(each.bases) or record.read_at > each.read_at)
            for each in last
        )
        if present in record.replaced or overwritten:
            found.append(record)
    return found


def key(tag: str) -> str:
    """Return a tag's part of the names below: itself, or its beginning and a hash where it is too long."""
    if len(tag) <= _LONGEST_KEY:
        return tag
    return f"{tag[:40]}_{hashlib.sha256(tag.encode()).hexdigest()[:16]}"


def record_tag(target: Reference, platform: Platform) -> Reference:
    """Return where the record for a platform of a tag is kept."""
    parts = (platform.os, platform.architecture, platform.variant, platform.os_version, *platform.os_features)
    name = (
        re.sub(r"[^A-Za-z0-9_.]", "_", "-".join(filter(None, parts)))
        if any(parts[3:])
        else "-".join(filter(None, parts))
    )
    return target.tagged(f"{PREFIX}record.{key(target.tag)}.{name}"[:128])


def seconds(response: Response) -> int:
    """Return the registry's own time of an answer; 0 where it does not tell."""
    try:
        return int(parsedate_to_datetime(response.headers["date"]).timestamp())
    except (KeyError, ValueError, TypeError):
        return 0


def parse_platform(tag: str, target: str) -> Platform | None:
    """Return the platform that a record's tag is about; None: it is no record of the tag `target`."""
    prefix = f"{PREFIX}record.{key(target)}."
    if not tag.startswith(prefix):
        return None
    return platforms.parse(tag.removeprefix(prefix).replace("-", "/", 2))


def _append(digests: tuple[str, ...], digest: str) -> tuple[str, ...]:
    return (*(each for each in digests if each != digest), digest)[-_KEPT:]
