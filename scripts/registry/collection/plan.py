"""What a collection takes away, decided from a storage's value alone: mark what is in use, plan the rest.

In use is what can be reached from a tag, from what lost its tag within the grace time, from what was pushed within it,
and from the list of what is to be kept: through indexes within indexes, attestations, subjects and their referrers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from scripts.registry.collection import retention
from scripts.registry.collection.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scripts.registry.collection.store import Repository, Store

TAG, LOST_TAG, YOUNG, LISTED = "a tag", "lost its tag within the grace time", "pushed within the grace time", "listed"
REFERRER, UNTAGGED = "about something that is kept", "of a repository that never had a tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is kept beside tags: `grace_s` in seconds, and digests, whatever their tags."""

    grace_s: int
    keep: frozenset[str] = frozenset()
    retention: Retention = field(default_factory=Retention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes, what is expected to be freed by it, and why the rest stays.

    `unlink` are manifests of a repository, `untag` are tags with the reason; `frees` the blobs, with their sizes in
    bytes, that nothing needs any more then. `held` are blobs without a manifest that are too young to go, or may be of a
    repository that has none. `live` is all that must be there afterwards. `kept` tells why, for each manifest
    (repository, digest) that stays.
    """

    unlink: tuple[tuple[str, str], ...]
    untag: Mapping[tuple[str, str], str]
    frees: Mapping[str, int]
    held: frozenset[str]
    live: frozenset[str]
    kept: Mapping[tuple[str, str], str]
    kept_tags: Mapping[tuple[str, str], str]

    @property
    def bytes(self) -> int:
        """Return how many bytes are expected to be freed."""
        return sum(self.frees.values())

    def reasons(self) -> dict[str, int]:
        """Return how many manifests stay for each reason."""
        counts: dict[str, int] = defaultdict(int)
        for reason in self.kept.values():
            counts[reason] += 1
        return dict(sorted(counts.items(), key=lambda each: -each[1]))


def plan(store: Store, rules: Rules) -> Plan:
    """Plan a collection of a storage without damage; while pushes go on, one that takes what they have not finished for absent."""
    young = store.now - rules.grace_s
    kept: dict[tuple[str, str], str] = {}
    kept_tags: dict[tuple[str, str], str] = {}
    untag: dict[tuple[str, str], str] = {}
    children = {digest: each.children for digest, each in store.references.items()}

    def reach(repository: Repository, tags: Iterable[str]) -> dict[str, str]:
        return _reach(store, repository, _roots(repository, tags, keep=rules.keep, young=young))

    for name, repository in store.repositories.items():
        decided = retention.decide(
            repository,
            rules.retention,
            now=store.now,
            grace_s=rules.grace_s,
            children=children,
            reach=partial(reach, repository),
        )
        untag |= {(name, tag): reason for tag, reason in decided.gone.items()}
        kept_tags |= {(name, tag): reason for tag, reason in decided.kept.items()}
        kept |= {(name, digest): reason for digest, reason in reach(repository, decided.kept).items()}
    unlink = tuple(
        (name, digest)
        for name, repository in sorted(store.repositories.items())
        for digest in sorted(repository.revisions)
        if (name, digest) not in kept
    )
    live = _live(store, kept)
    held = frozenset(_unfinished(store, young=young) - live)
    return Plan(
        unlink=unlink,
        untag=untag,
        frees={digest: blob.size for digest, blob in store.blobs.items() if digest not in live and digest not in held},
        held=held,
        live=frozenset(live),
        kept=kept,
        kept_tags=kept_tags,
    )


def _roots(
    repository: Repository, tags: Iterable[str], *, keep: frozenset[str], young: int
) -> Iterator[tuple[str, str]]:
    """Yield what is kept for its own sake, the better reason first."""
    for tag in tags:
        found = repository.tags[tag].current
        if found:
            yield found.digest, TAG
    for each in repository.tags.values():
        yield from ((digest, LOST_TAG) for digest, lost_at in each.displaced() if lost_at > young)
    for digest, link in repository.revisions.items():
        if digest in keep:
            yield digest, LISTED
        if link.written > young:
            yield digest, YOUNG
        if repository.untagged:  # nobody can tell which of it is in use
            yield digest, UNTAGGED


def _reach(store: Store, repository: Repository, roots: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what can be reached within a repository, with the reason of the root that it was reached from."""
    about: dict[str, list[str]] = defaultdict(list)
    for digest in repository.revisions:
        references = store.references.get(digest)
        if references and references.subject:
            about[references.subject].append(digest)
    reached: dict[str, str] = {}
    pending = [(digest, reason) for digest, reason in roots if digest in repository.revisions]
    pending.reverse()  # the first root's reason is the first that is told
    referrers: list[tuple[str, str]] = []  # with a reason of their own, if there is one
    while pending or referrers:
        digest, reason = (pending or referrers).pop()
        if digest in reached:
            continue
        reached[digest] = reason
        references = store.references.get(digest)
        if references:
            # An index may list a manifest under a media type that nobody knows, as if it were a blob.
            parts = [*references.children, *references.blobs, references.subject]
            pending += [(each, reason) for each in parts if each in repository.revisions]
        referrers += [(each, REFERRER) for each in about.get(digest, ())]
    return reached


def _live(store: Store, kept: Iterable[tuple[str, str]]) -> set[str]:
    """Return all blobs that what is kept is made of."""
    live: set[str] = set()
    for digest in {digest for _, digest in kept}:
        live.add(digest)
        references = store.references.get(digest)
        if references:
            live.update(references.blobs, references.children)
    return live


def _unfinished(store: Store, *, young: int) -> set[str]:
    """Return the blobs that were written, or given to a repository, within the grace time, or to one without a manifest.

    Such a one may also have lost its manifests' links: what no repository has would be those manifests.
    """
    repositories = store.repositories.values()
    found = {digest for digest, blob in store.blobs.items() if blob.written > young}
    for repository in repositories:
        found.update(digest for digest, written in repository.layers.items() if written > young or repository.begun)
    if any(each.begun and each.layers for each in repositories):
        linked = {digest for each in repositories for digest in (*each.layers, *each.revisions)}
        found |= store.blobs.keys() - linked
    return found & store.blobs.keys()
