"""Retention: which tags stay. Nothing of it is on unless it is asked for, and a tag stays if one rule keeps it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.registry import records
from scripts.registry.errors import InvalidReference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.registry.collection.store import Repository

_FALLBACK = re.compile(r"sha256-[0-9a-f]{64}(\.\w+)?")
"""Tags of referrers and of cosign: they go with what they are about, not by rules of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which tags stay: the newest ones of a repository, those that match, those that are young enough (in seconds)."""

    keep_last: int = 0
    keep_matching: tuple[str, ...] = ()
    keep_within_s: float = 0.0

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


def decide(repository: Repository, retention: Retention, *, now: int, grace_s: int) -> Decision:
    """Decide over a repository's tags. A tag that was written within the grace time stays, whatever the rules say."""
    ours = {tag: at.current.written for tag, at in repository.tags.items() if at.current}
    ordinary = {
        tag: at for tag, at in ours.items() if not tag.startswith(records.PREFIX) and not _FALLBACK.fullmatch(tag)
    }
    if not retention:
        return Decision(kept=dict.fromkeys(ours, "tag"), gone={})
    newest = sorted(ordinary, key=lambda tag: (ordinary[tag], tag), reverse=True)[: retention.keep_last]
    kept, gone = dict.fromkeys(ours.keys() - ordinary.keys(), "tag"), {}
    for tag, written in ordinary.items():
        if tag in newest:
            kept[tag] = f"one of the last {retention.keep_last}"
        elif pattern := next((each for each in retention.keep_matching if re.fullmatch(each, tag)), ""):
            kept[tag] = f"matches {pattern}"
        elif retention.keep_within_s and now - written <= retention.keep_within_s:
            kept[tag] = "young enough"
        elif now - written <= grace_s:
            kept[tag] = "within the grace time"
        else:
            gone[tag] = f"written {(now - written) // 86400} days ago, and no rule keeps it"
    for tag in [each for each in kept if each.startswith(f"{records.PREFIX}record.")]:
        if any(tag.startswith(f"{records.PREFIX}record.{records.key(each)}.") for each in gone) and not any(
            tag.startswith(f"{records.PREFIX}record.{records.key(each)}.") for each in ordinary.keys() - gone.keys()
        ):
            gone[tag] = "the record of a tag that goes"
            del kept[tag]
    return Decision(kept=kept, gone=gone)
