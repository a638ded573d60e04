"""What is wrong with a storage, and how to repair it: where registry:2's own collection stops, or deletes what is in use.

Each rule is one state of the files that a crash, a full disk, another tool or an earlier `garbage-collect -m` leaves.
Paths are below the storage's folder docker/registry/v2.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.registry.references import DIGEST, is_repository, is_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.registry.collection.store import Repository, Store, Tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One thing that is wrong: where, what, what registry:2's own collection would do, and what repairs it.

    `command` is what brings it back to what it was, run in the storage's folder, where there is such a command;
    `advice` is what helps else.
    """

    where: str
    what: str
    effect: str
    advice: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.effect}"

    @property
    def repair(self) -> str:
        """Return what to do."""
        return "; or ".join(filter(None, (self.command, self.advice)))


def find(store: Store) -> tuple[Damage, ...]:
    """Return all that is wrong."""
    strays = (_stray(path) for path in sorted(store.strays))
    repositories = (
        damage
        for name, repository in sorted(store.repositories.items())
        for damage in _repository(store, name, repository)
    )
    return (*strays, *repositories)


def spared(store: Store, *, grace_s: int) -> tuple[str, ...]:
    """Tell which repositories are left as they are, since nobody can tell what they were to become; and what gives them up.

    The registry's own collection goes on over them. What was written within the grace time is a push that goes on.
    """
    young, found = store.now - grace_s, []
    for name, repository in sorted(store.repositories.items()):
        if repository.begun and any(written <= young for written in repository.layers.values()):
            what = "it has layers and no _manifests, as of a first push that was given up; its layers stay, and what no repository has"
        elif repository.untagged and any(each.written <= young for each in repository.revisions.values()):
            what = "it has manifests and no tags, as of pushes by digest alone; all of it stays"
        else:
            continue
        found.append(f"{name}: {what}; if nothing of it is in use: rm -r repositories/{name}")
    return tuple(found)


def _stray(path: str) -> Damage:
    return Damage(
        where=path,
        what="no blob can be there",
        effect="the collection would end here",
        advice=f"move it out of the storage: mv {shlex.quote(path)} ELSEWHERE",
    )


def _repository(store: Store, name: str, repository: Repository) -> Iterator[Damage]:
    path = f"repositories/{name}"
    if not is_repository(name):  # an administrator's copy, say
        yield _misnamed(path, "a repository's name", effect="the collection would end here")
        return
    yield from _folders(name, repository)
    for digest, link in sorted(repository.revisions.items()):
        if DIGEST.fullmatch(digest):
            yield from _revision(store, name, digest, link.digest)
        else:
            folder = f"{path}/_manifests/revisions/{digest.replace(':', '/')}"
            yield _misnamed(
                folder, "a manifest's digest", effect="the collection would end here, or mark something else"
            )
    for tag, found in sorted(repository.tags.items()):
        if is_tag(tag):
            yield from _tag(store, name, repository, tag, found)
        else:
            yield _misnamed(f"{path}/_manifests/tags/{tag}", "a tag", effect="no client could ask for it")


def _misnamed(path: str, what: str, *, effect: str) -> Damage:
    return Damage(
        where=path,
        what=f"its name is not {what}",
        effect=effect,
        command=f"mv {shlex.quote(path)} ../../..",
        advice="move it anywhere else out of the storage",
    )


def _folders(name: str, repository: Repository) -> Iterator[Damage]:
    path = f"repositories/{name}"
    if not repository.begun and "_layers" not in repository.folders and (repository.revisions or repository.tags):
        yield Damage(
            where=path,
            what="it has manifests and no _layers",
            effect="it would be overlooked, and all its blobs deleted",
            advice=f"mkdir {path}/_layers, then push its images again: their layers' links are gone",
        )


def _revision(store: Store, name: str, digest: str, content: str) -> Iterator[Damage]:
    folder = f"repositories/{name}/_manifests/revisions/{digest.replace(':', '/')}"
    path = f"{folder}/link"
    if content != digest:
        yield Damage(
            where=path,
            what=f"the link holds {content[:80]!r}" if content else "the link is empty",
            effect="the collection would end here, or mark something else",
            command=f"printf {digest} > {path}",
            advice=f"rm -r {folder}",
        )
    if digest not in store.blobs:
        yield Damage(
            where=f"{name}@{digest}",
            what="its manifest is gone",
            effect="its configuration and layers would be deleted",
            advice=f"push it again; or give it up: rm -r {folder}",
        )
    elif digest in store.unreadable:
        algorithm, _, encoded = digest.partition(":")
        data = f"blobs/{algorithm}/{encoded[:2]}/{encoded}/data"
        yield Damage(
            where=f"{name}@{digest}",
            what=f"its manifest cannot be read: {store.unreadable[digest]}",
            effect="the collection would end here, or delete its configuration and layers",
            advice=f"give it up, and push it again: rm -r {folder} {data}",
        )
    elif foreign := _foreign(store, digest):
        yield Damage(
            where=f"{name}@{digest}",
            what=f"it refers to {foreign}",
            effect="what it refers to would be deleted",
            advice=f"push it again with sha256 digests, then give this one up: rm -r {folder}",
        )


def _foreign(store: Store, digest: str) -> str:
    """Return a digest that a manifest refers to and that is not sha256: its content is stored by another one, its sha256."""
    references = store.references.get(digest)
    parts = (*references.children, *references.blobs) if references else ()
    return next((each for each in parts if not DIGEST.fullmatch(each)), "")


def _tag(store: Store, name: str, repository: Repository, tag: str, found: Tag) -> Iterator[Damage]:
    path = f"repositories/{name}/_manifests/tags/{tag}"
    if found.current is None or not found.current.digest:
        known = [digest for _, digest in sorted((at, digest) for digest, at in found.history.items())]
        before = next((each for each in reversed(known) if each in repository.revisions), "")
        yield Damage(
            where=f"{name}:{tag}",
            what="its link is empty" if found.current else "its folder names nothing",
            effect="what it named would count as untagged",
            command=f"mkdir -p {path}/current && printf {before} > {path}/current/link" if before else "",
            advice=f"push it again; or take it away: rm -r {path}",
        )
        return
    digest = found.current.digest
    if digest not in repository.revisions:
        yield _unlinked(store, name, digest, where=f"{name}:{tag}", what="the manifest that it names has no link")
        return
    pending, seen = [digest], {digest}
    while pending:
        parent = pending.pop()
        references = store.references.get(parent)
        if not references:
            continue
        listed = (each for each in references.blobs if each in repository.revisions)  # what is none lacks nothing
        for child in (*references.children, *listed):
            if child in seen:
                continue
            seen.add(child)
            pending.append(child)
            if child not in repository.revisions:
                yield _unlinked(store, name, child, where=f"{name}:{tag}", what=f"{child} of its index is missing")


def _unlinked(store: Store, name: str, digest: str, *, where: str, what: str) -> Damage:
    path = f"repositories/{name}/_manifests/revisions/{digest.replace(':', '/')}"
    tag = where.removeprefix(f"{name}:")
    return Damage(
        where=where,
        what=what,
        effect="its configuration and layers would be deleted",
        command=f"mkdir -p {path} && printf {digest} > {path}/link" if digest in store.blobs else "",
        advice=f"push it again, or slipway restore REGISTRY/{name}:{tag}",
    )
