"""A registry's storage as a value: repositories, tags with their history, revisions, layers and blobs, and what they refer to.

It is read from the registry's own files (distribution, registry/storage/paths.go), in one listing and one reading of
manifests (commands.py). Times are in seconds by the clock of the host that has the files; sizes are in bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts.registry import manifests
from scripts.registry.errors import StoreUnreadable
from scripts.registry.references import DIGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MANIFEST_TYPES = (
    manifests.INDEXES | manifests.IMAGES | {"", "application/vnd.docker.distribution.manifest.v1+prettyjws"}
)
_BLOB = re.compile(r"blobs/(sha256|sha512)/(?P<first>[0-9a-f]{2})/((?P=first)[0-9a-f]{62}(?:[0-9a-f]{64})?)/data")
_ANY_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+")  # image-spec, descriptor.md


@dataclass(frozen=True, slots=True)
class Link:
    """A link file: when it was written, and the digest that it holds, empty where it holds none."""

    written: int
    digest: str


@dataclass(slots=True)
class Tag:
    """A tag: what it names, None where its folder names nothing; and when it was last given each digest that it had."""

    current: Link | None = None
    history: dict[str, int] = field(default_factory=dict)

    def displaced(self) -> Iterator[tuple[str, int]]:
        """Yield each digest that it names no more, with the time at which it lost the tag."""
        current = self.current
        ordered = sorted(((written, digest) for digest, written in self.history.items()))
        for number, (_, digest) in enumerate(ordered):
            if current and digest == current.digest:
                continue
            later = [written for written, _ in ordered[number + 1 :][:1]]
            yield digest, min(later) if later else (current.written if current else ordered[number][0])


@dataclass(slots=True)
class Repository:
    """A repository's own folder; `folders` are those of `_layers`, `_manifests`, `tags` and `revisions` that it has."""

    folders: set[str] = field(default_factory=set)
    tags: dict[str, Tag] = field(default_factory=dict)
    revisions: dict[str, Link] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)

    @property
    def begun(self) -> bool:
        """Tell whether it has no manifests, and by its folders never had one: a first push goes on, or was given up."""
        return "_manifests" not in self.folders

    @property
    def untagged(self) -> bool:
        """Tell whether it has no tags, and by its folders never had one: it was pushed by digest alone."""
        return "_manifests" in self.folders and "tags" not in self.folders


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob's size, and when it was written."""

    size: int
    written: int


@dataclass(frozen=True, slots=True)
class References:
    """What a manifest refers to: manifests of its own repository, blobs, and the manifest that it is about.

    A manifest of an unknown media type is among `blobs`, as is a layer that an index lists: BuildKit's caches do so.
    """

    children: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    subject: str = ""


@dataclass(slots=True)
class Store:
    """A whole storage, as it was at `now`. `uploads` are the times at which parts of unfinished uploads were written."""

    now: int
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)
    uploads: list[int] = field(default_factory=list)
    references: dict[str, References] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Manifests that are no manifests, and why."""
    strays: list[str] = field(default_factory=list)
    """Files that are named as a blob's content is, where there can be no blob."""

    def revisions(self) -> set[str]:
        """Return the digests of all manifests that some repository has."""
        return {digest for repository in self.repositories.values() for digest in repository.revisions}

    def to_read(self, known: Mapping[str, References]) -> dict[str, int]:
        """Return the manifests that have to be read, with their sizes; those in `known` have been."""
        wanted = self.revisions() - known.keys()
        return {digest: self.blobs[digest].size for digest in sorted(wanted & self.blobs.keys())}


def parse(listing: str) -> Store:
    """Read what commands.LIST printed. StoreUnreadable: it is not whole."""
    sections: dict[str, list[str]] = {}
    section: list[str] = []
    for line in listing.split("\n"):  # not splitlines(): what else ends a line there may be of a name
        if line.startswith("="):
            section = sections.setdefault(line[1:], [])
        else:
            section.append(line)
    if not {"now", "end"} <= sections.keys():
        hint = "run it again; nothing was changed yet"
        raise StoreUnreadable("the registry's storage: its listing broke off", hint=hint)
    store = Store(now=int(sections["now"][0]))
    store.uploads = [int(line.partition(" ")[0]) for line in sections.get("uploads", ())]
    for line in sections.get("folders", ()):
        _folder(store, line)
    for size, written, path in _stats(sections.get("blobs", ())):
        if place := _BLOB.fullmatch(path):
            store.blobs[f"{place[1]}:{place[3]}"] = Blob(size, written)
        else:
            store.strays.append(path)
    contents: dict[str, str] = {}
    for line in sections.get("contents", ()):
        path, _, content = line.partition(":")
        contents[path] = f"{contents[path]} {content}" if path in contents else content
    for _, written, path in _stats(sections.get("links", ())):
        _link(store, path.split("/"), written, contents)
    return store


def _stats(lines: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    for line in lines:
        try:
            size, written, path = line.split(" ", 2)
            stat = int(size), int(written), path
        except ValueError as error:  # a name that has a line break
            raise StoreUnreadable(f"the registry's storage: {line!r} of its listing is no file") from error
        yield stat


def _folder(store: Store, path: str) -> None:
    parts = path.split("/")
    repository, rest = _split(store, parts)
    if rest and rest[0] in {"_manifests", "_layers"}:
        repository.folders.add(rest[0])
    if rest[:1] == ["_manifests"] and len(rest) == 2:
        repository.folders.add(rest[1])
    if rest[:2] == ["_manifests", "tags"] and len(rest) == 3:
        repository.tags.setdefault(rest[2], Tag())


def _link(store: Store, parts: list[str], written: int, contents: Mapping[str, str]) -> None:
    repository, rest = _split(store, parts)
    match rest:
        case ["_layers", algorithm, encoded, "link"]:
            # By whatever digest it was pushed, its content is stored by its sha256.
            repository.layers[contents.get("/".join(parts)) or f"{algorithm}:{encoded}"] = written
        case ["_manifests", "revisions", algorithm, encoded, "link"]:
            repository.revisions[f"{algorithm}:{encoded}"] = Link(written, contents.get("/".join(parts), ""))
        case ["_manifests", "tags", tag, "current", "link"]:
            content = contents.get("/".join(parts), "")
            digest = content if DIGEST.fullmatch(content) else ""
            repository.tags.setdefault(tag, Tag()).current = Link(written, digest)
        case ["_manifests", "tags", tag, "index", algorithm, encoded, "link"]:
            repository.tags.setdefault(tag, Tag()).history[f"{algorithm}:{encoded}"] = written


def _split(store: Store, parts: list[str]) -> tuple[Repository, list[str]]:
    """Return the repository that a path is of, and the rest of the path: no part of a repository's name begins with _."""
    place = next((number for number, part in enumerate(parts) if part.startswith("_")), len(parts))
    name = "/".join(parts[1:place])
    if parts[place : place + 1] not in (["_manifests"], ["_layers"]):  # an upload alone makes no repository
        return Repository(), []
    return store.repositories.setdefault(name, Repository()), parts[place:]


def cut(content: bytes, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Cut what commands.READ printed into the files that it was made of. A piece that has not its digest is still returned."""
    pieces, position = {}, 0
    for digest, size in sizes.items():
        pieces[digest] = content[position : position + size]
        position += size
    if position != len(content):
        raise StoreUnreadable(
            f"the registry's manifests: {len(content)} bytes came, not {position}", hint="run it again"
        )
    return pieces


def learn(store: Store, pieces: Mapping[str, bytes]) -> None:
    """Add what manifests say."""
    for digest, body in pieces.items():
        try:
            store.references[digest] = references_of(digest, body)
        except ValueError as error:
            store.unreadable[digest] = str(error)


def references_of(digest: str, body: bytes) -> References:
    """Return what a manifest refers to. ValueError: it is none, or not this one."""
    if not body:
        raise ValueError("it is empty")
    algorithm, _, encoded = digest.partition(":")
    if hashlib.new(algorithm, body).hexdigest() != encoded:
        raise ValueError("its content has another digest")
    try:
        found = json.loads(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is no manifest")  # noqa: TRY004 - of what the file says, not of a value's type
    subject = _digests([found["subject"]])[0] if found.get("subject") else ""
    config = [found["config"]] if found.get("config") is not None else []
    parts, layers, schema_1 = (manifests.array(found, name) for name in ("manifests", "layers", "fsLayers"))
    if parts is None and schema_1 is None and (layers is None or not config):
        raise ValueError("it is no manifest")
    # All of them: with an empty one of one kind may come a full one of another.
    children = [each for each in parts or () if isinstance(each, dict) and each.get("mediaType", "") in _MANIFEST_TYPES]
    others = [each for each in parts or () if each not in children]
    blobs = (*_digests([*others, *config, *(layers or ())]), *_digests(schema_1 or (), "blobSum"))
    return References(children=_digests(children), blobs=blobs, subject=subject)


def _digests(descriptors: Iterable[Any], key: str = "digest") -> tuple[str, ...]:
    found = [each.get(key) if isinstance(each, dict) else None for each in descriptors]
    if not all(isinstance(each, str) and _ANY_DIGEST.fullmatch(each) for each in found):
        raise ValueError("a descriptor of it has no digest")
    return tuple(dict.fromkeys(str(each) for each in found))
