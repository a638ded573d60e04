"""The last gate before anything is deleted: what the registry's own collection says it would take, against the plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.registry.errors import CollectionStopped

if TYPE_CHECKING:
    from scripts.registry.collection.plan import Plan
    from scripts.registry.collection.store import Store

_BLOB = re.compile(r"^blob eligible for deletion: (\S+)", re.MULTILINE)
_MANIFEST = re.compile(r"^manifest eligible for deletion: (\S+)", re.MULTILINE)
_SUMMARY = re.compile(r"^\d+ blobs marked, (\d+) blobs and \d+ manifests eligible for deletion", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What `garbage-collect` says that it takes."""

    blobs: frozenset[str]
    manifests: frozenset[str]


def parse(printed: str) -> Announced:
    """Read what `garbage-collect` printed; CollectionStopped where it did not say how much it takes."""
    summary = _SUMMARY.search(printed)
    blobs = frozenset(_BLOB.findall(printed))
    if not summary or len(blobs) != int(summary[1]):
        raise CollectionStopped("the registry's garbage-collect did not say what it would take; nothing was deleted")
    return Announced(blobs=blobs, manifests=frozenset(_MANIFEST.findall(printed)))


def check(announced: Announced, plan: Plan, store: Store, *, grace_s: int) -> None:
    """Raise CollectionStopped where it would take anything but what was planned."""
    if announced.manifests:
        raise CollectionStopped(
            f"the registry's garbage-collect would untag by itself: {_some(announced.manifests)}; nothing was deleted"
        )
    if hit := announced.blobs & plan.live:
        raise CollectionStopped(
            f"the registry's garbage-collect would delete what is in use: {_some(hit)}; nothing was deleted",
            hint="something has changed the registry's files meanwhile; run it again",
        )
    young = {
        digest
        for digest in announced.blobs
        if digest in store.blobs and store.blobs[digest].written > store.now - grace_s
    }
    if young or announced.blobs - plan.frees.keys():
        raise CollectionStopped(
            "the registry's garbage-collect would delete what is too young or unknown: "
            f"{_some(young or announced.blobs - plan.frees.keys())}; nothing was deleted",
            hint="something has changed the registry's files meanwhile; run it again",
        )


def check_share(frees: int, blobs: int, *, largest: float) -> None:
    """Raise CollectionStopped where too large a share of all blobs would go: a rule or a storage is not as it was meant."""
    if blobs and frees / blobs > largest:
        raise CollectionStopped(
            f"the collection would delete {frees / blobs:.0%} of all blobs, more than {largest:.0%}; nothing was deleted",
            hint="look at it with slipway gc --dry-run --max-share 100; if it is right, run it so",
        )


def _some(digests: frozenset[str] | set[str]) -> str:
    found = sorted(digests)
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
