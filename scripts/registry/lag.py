"""Lag: the platforms of a tag that had no builder when the others were built, noted beside the tag until they follow.

The note is an index without parts under a tag of its own, written before the tag itself, so that a killed run hides nothing.
It holds while the tag has the image that it had then for the platform, and has changed otherwise.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from scripts.registry import exchange, manifests, merge, platforms, records, untag
from scripts.registry.errors import InvalidReference, NotFound
from scripts.registry.manifests import Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scripts.registry.exchange import Protocol, Response
    from scripts.registry.platforms import Platform
    from scripts.registry.references import Reference

_PREFIX = f"{records.PREFIX}behind."
_TARGET = "dev.slipway.target"
_BEHIND = "dev.slipway.behind."
_ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """A platform that is behind: `image` is what the tag has for it, `base` what the tag named before, both perhaps "absent"."""

    target: Reference
    platform: Platform
    image: str
    base: str
    since: datetime
    revision: str  # the commit that the others were built from, where it is known


def note(target: Reference, missing: Iterable[Platform], *, revision: str, now: datetime) -> Protocol[list[Lag]]:
    """Note that platforms of a tag will be behind; what was noted before keeps its age."""
    digest, index, noted = yield from _read(target)
    before = {each.platform: each for each in noted if _holds(each, digest, index)}
    for platform in missing:
        image = index.images().get(platform)
        fresh = Lag(
            target=target, platform=platform, image=image.digest if image else _ABSENT, base=digest or _ABSENT,
            since=now, revision=revision,
        )  # fmt: skip
        before[platform] = replace(before[platform], revision=revision) if platform in before else fresh
    lags = sorted(before.values(), key=lambda each: each.platform)
    yield from _write(target, lags)
    return lags


def forget(target: Reference, built: Iterable[Platform], *, token: str) -> Protocol[list[Lag]]:
    """Strike out platforms that were built, and return what is left; a note of nothing is taken away, where the registry deletes."""
    digest, index, noted = yield from _read(target)
    rest = [each for each in noted if _holds(each, digest, index) and each.platform not in set(built)]
    if len(rest) == len(noted):
        return rest
    yield from _write(target, rest)
    if not rest:
        with suppress(NotFound):  # another run was first
            yield from untag.untag(_place(target), token=token)
    return rest


def lagging(target: Reference) -> Protocol[list[Lag]]:
    """Return the platforms of a tag that are behind."""
    digest, index, noted = yield from _read(target)
    return [each for each in noted if _holds(each, digest, index)]


def lagging_in(repository: Reference) -> Protocol[list[Lag]]:
    """Return the platforms of all tags of a repository that are behind."""
    tags = yield from untag.list_tags(repository)
    places = [repository.tagged(tag) for tag in tags if tag.startswith(_PREFIX)]
    responses = (yield [exchange.get_manifest(each) for each in places]) if places else []
    targets = [
        repository.tagged(found.annotations[_TARGET])
        for place, response in zip(places, responses, strict=True)
        if isinstance(found := exchange.read_manifest(place, response), Index) and _TARGET in found.annotations
    ]
    listed = yield from exchange.together(*(lagging(target) for target in targets))
    return [each for lags in listed for each in lags]


def key_of(tag: str) -> str:
    """Return the key of the tag that a note's tag is about; nothing where it is no note's."""
    return tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else ""


def _read(target: Reference) -> Protocol[tuple[str, Index, list[Lag]]]:
    """Read a tag, and what is noted of it."""
    response, noted = yield [exchange.get_manifest(target), exchange.get_manifest(_place(target))]
    found = exchange.read_manifest(target, response)
    index = yield from merge.as_index(target, found)
    return found.digest if found else "", index, _parse(target, noted)


def _parse(target: Reference, response: Response) -> list[Lag]:
    found = exchange.read_manifest(_place(target), response)
    if not isinstance(found, Index) or found.annotations.get(_TARGET) != target.tag:
        return []
    lags = []
    for name, text in found.annotations.items():
        if not name.startswith(_BEHIND):
            continue
        try:
            lags.append(_lag(target, name.removeprefix(_BEHIND), json.loads(text)))
        except (ValueError, KeyError, TypeError, InvalidReference):  # of a later version, or by hand
            continue
    return lags


def _lag(target: Reference, platform: str, value: Mapping[str, str]) -> Lag:
    return Lag(
        target=target,
        platform=platforms.parse(platform),
        image=str(value["image"]),
        base=str(value["base"]),
        since=datetime.fromisoformat(value["since"]),
        revision=str(value["revision"]),
    )


def _write(target: Reference, lags: Iterable[Lag]) -> Protocol[None]:
    annotations = {_TARGET: target.tag}
    for each in lags:
        value = {"image": each.image, "base": each.base, "since": each.since.isoformat(), "revision": each.revision}
        annotations[f"{_BEHIND}{each.platform}"] = json.dumps(value)
    index = manifests.empty_index(annotations=annotations)
    (response,) = yield [exchange.put_manifest(_place(target), index)]
    exchange.check_stored(_place(target), index.digest, response)


def _holds(lag: Lag, digest: str, index: Index) -> bool:
    present = index.images().get(lag.platform)
    return bool(digest) and digest != lag.base and (present.digest if present else _ABSENT) == lag.image


def _place(target: Reference) -> Reference:
    return target.tagged(f"{_PREFIX}{records.key(target.tag)}")
