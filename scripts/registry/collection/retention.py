"""Retention: which tags stay. Nothing of it is on unless it is asked for, and a tag stays if one rule keeps it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.registry import backup, lag, records
from scripts.registry.errors import InvalidReference
from scripts.registry.references import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from scripts.registry.collection.store import Repository

_FALLBACK = re.compile(r"sha256-(?P<digest>[0-9a-f]{64})(\.\w+)?")
"""Tags of referrers and of cosign: they go with what they are about, not by rules of their own."""

_NOWHERE = Reference(host="", repository="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which tags stay: the newest ones of a repository, those that match, those that are young enough (in seconds).

    Backups of a tag that is gone stay for `backups_within_s` seconds.
    """

    keep_last: int = 0
    keep_matching: tuple[str, ...] = ()
    keep_within_s: float = 0.0
    backups_within_s: float = 90 * 86400

    def __post_init__(self) -> None:
        for pattern in self.keep_matching:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InvalidReference(f"--keep-matching {pattern!r}: it is no regular expression ({error})") from error

    def __bool__(self) -> bool:
        return bool(self.keep_last or self.keep_matching or self.keep_within_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Why each tag of a repository stays, or goes."""

    kept: Mapping[str, str]
    gone: Mapping[str, str]


def decide(
    repository: Repository,
    retention: Retention,
    *,
    now: int,
    grace_s: int,
    children: Mapping[str, tuple[str, ...]],
    reach: Callable[[Iterable[str]], Container[str]],
) -> Decision:
    """Decide over a repository's tags. A tag that was written within the grace time stays, whatever the rules say.

    `children` are what indexes list: an image's own tag goes with the last backup that lists it. `reach` tells what is
    needed where some tags alone are left: what a signature is about must be needed without it.
    """
    ours = {tag: at.current.written for tag, at in repository.tags.items() if at.current}
    if not retention:
        return Decision(kept=dict.fromkeys(ours, "tag"), gone={})
    about = {tag: f"sha256:{named['digest']}" for tag in ours if (named := _FALLBACK.fullmatch(tag))}
    ordinary = {tag: at for tag, at in ours.items() if not tag.startswith(records.PREFIX) and tag not in about}
    kept, gone = {}, {}
    for tag, reason in _keep(ordinary, retention, now=now, grace_s=grace_s).items():
        if reason:
            kept[tag] = reason
        else:
            gone[tag] = f"written {(now - ordinary[tag]) // 86400} days ago, and no rule keeps it"
    for tag, digest in about.items():
        if digest not in repository.revisions:  # it may be about an image of another repository
            kept[tag] = "tag"
        elif now - ours[tag] <= grace_s:
            kept[tag] = "within the grace time"
    while True:
        keys = {records.key(tag) for tag in kept}
        own = _own(repository, retention, keys, now=now, grace_s=grace_s, children=children)
        waiting = about.keys() - kept.keys()
        reached = reach([*kept, *own.kept]) if waiting else ()
        found = {tag for tag in waiting if about[tag] in reached}
        if not found:
            break
        kept |= dict.fromkeys(found, "about something that is kept")  # and there may be signatures of signatures
    gone |= dict.fromkeys(sorted(waiting), "nothing else needs what it is about")
    return Decision(kept={**kept, **own.kept}, gone={**gone, **own.gone})


def _own(
    repository: Repository,
    retention: Retention,
    keys: set[str],
    *,
    now: int,
    grace_s: int,
    children: Mapping[str, tuple[str, ...]],
) -> Decision:
    """Decide over the tags of our own, where the tags with these keys stay."""
    ours = {
        tag: at.current.written for tag, at in repository.tags.items() if at.current and tag.startswith(records.PREFIX)
    }
    kept, gone = dict.fromkeys(ours, "tag"), {}
    for tag in [each for each in kept if now - ours[each] > grace_s]:
        if reason := _outlived(tag, keys, retention, now=now):
            gone[tag] = reason
            del kept[tag]
    if any(backup.is_backup(tag) for tag in gone):
        needed = {
            digest for tag in kept if backup.is_backup(tag) for digest in children.get(_named(repository, tag), ())
        }
        for tag in [each for each in kept if backup.is_image(each) and _named(repository, each) not in needed]:
            if now - ours[tag] > grace_s:  # a backup that is being taken needs it next
                gone[tag] = "no backup needs it any more"
                del kept[tag]
    return Decision(kept=kept, gone=gone)


def _keep(tags: Mapping[str, int], retention: Retention, *, now: int, grace_s: int) -> dict[str, str]:
    """Return why each tag stays, by the time at which it was written; nothing: it goes."""
    newest = sorted(tags, key=lambda tag: (tags[tag], tag), reverse=True)[: retention.keep_last]
    reasons = {}
    for tag, written in tags.items():
        if tag in newest:
            reasons[tag] = f"one of the last {retention.keep_last}"
        elif pattern := next((each for each in retention.keep_matching if re.fullmatch(each, tag)), ""):
            reasons[tag] = f"matches {pattern}"
        elif retention.keep_within_s and now - written <= retention.keep_within_s:
            reasons[tag] = "young enough"
        else:
            reasons[tag] = "within the grace time" if now - written <= grace_s else ""
    return reasons


def _outlived(tag: str, keys: set[str], retention: Retention, *, now: int) -> str:
    """Return why a tag of our own goes: what it is about is gone, and it is no backup that is to stay for a while."""
    if records.is_record(tag):
        return "" if records.is_of(tag, keys) else "the record of a tag that is gone"
    if noted := lag.key_of(tag):
        return "" if noted in keys else "the note of a tag that is gone"
    found = backup.parse(_NOWHERE, tag)
    if found is None or found.key in keys or now - found.taken.timestamp() <= retention.backups_within_s:
        return ""
    return "an old backup of a tag that is gone"


def _named(repository: Repository, tag: str) -> str:
    current = repository.tags[tag].current
    return current.digest if current else ""
