"""Storages of registries made by hand, file by file, with what a perfect collection would do to them known from the start.

Laid out as distribution does (registry/storage/paths.go). Nothing here imports what is measured: an image is garbage
because the generator made it so, not because anybody marked it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.registries import OCI_INDEX, OCI_MANIFEST, digest_of

if TYPE_CHECKING:
    from pathlib import Path

DAY_S, GRACE_S = 86400, 86400
_PLATFORMS = ("amd64", "arm64")
_PER_REPOSITORY, _SHARED = 50, 10
_LAYER_BYTES = 2000


@dataclass(slots=True, kw_only=True)
class Made:
    """A storage, and what must become of it: blobs that go with their sizes, and tags with all that each is made of."""

    garbage: dict[str, int] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    tags: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    young: set[str] = field(default_factory=set)
    """Blobs that no tag needs, and that are within the grace time all the same."""
    bytes: int = 0
    images: int = 0


class Generator:
    """Writes one storage. `now` is in seconds since the epoch."""

    def __init__(self, folder: Path, *, now: float) -> None:
        self._root = folder / "docker" / "registry" / "v2"
        self._now = now
        self._made = Made()
        self._times: dict[str, float] = {}

    def make(self, images: int) -> Made:
        """Write that many images of two platforms with attestations.

        Of six, three have a tag; two had one that another image got a month ago, or never had one: they are garbage; one
        lost its tag ten minutes ago to a push of one platform alone, and stays. A layer in ten of a repository is shared.
        """
        self._made.images = images
        for number in range(images):
            repository = f"team-{number // _PER_REPOSITORY}/app"
            match number % 6:
                case 0 | 1 | 2:
                    digest, parts = self._image(repository, number, age_s=40 * DAY_S)
                    self._tag(repository, f"v{number}", [(digest, 40 * DAY_S)], parts)
                    self._made.needed |= set(parts)
                case 3:  # it lost its tag a month ago
                    old, gone = self._image(repository, number, age_s=60 * DAY_S)
                    new, parts = self._image(repository, number, age_s=30 * DAY_S, text="next")
                    self._tag(repository, f"v{number}", [(old, 60 * DAY_S), (new, 30 * DAY_S)], parts)
                    self._made.needed |= set(parts)
                    self._made.garbage |= dict.fromkeys(gone, 0)
                case 4:  # it never had one
                    _, gone = self._image(repository, number, age_s=20 * DAY_S)
                    self._made.garbage |= dict.fromkeys(gone, 0)
                case 5:  # a push of one platform alone took its tag ten minutes ago
                    old, had = self._image(repository, number, age_s=60 * DAY_S)
                    new, parts = self._single(repository, number, age_s=600)
                    self._tag(repository, f"v{number}", [(old, 60 * DAY_S), (new, 600)], parts)
                    self._made.needed |= set(parts)
                    self._made.young |= set(had)
        return self._finish()

    def _finish(self) -> Made:
        made = self._made
        sizes = {f"sha256:{path.parent.name}": path.stat().st_size for path in self._root.glob("blobs/sha256/*/*/data")}
        made.bytes = sum(sizes.values())
        made.young -= made.needed
        made.garbage = {digest: sizes[digest] for digest in made.garbage.keys() - made.needed - made.young}
        return made

    def _image(self, repository: str, number: int, *, age_s: float, text: str = "") -> tuple[str, tuple[str, ...]]:
        """Write an index of two platforms with attestations; its digest, and all that it is made of."""
        descriptors: list[dict[str, Any]] = []
        parts: list[str] = []
        for architecture in _PLATFORMS:
            image, made = self._platform(repository, number, architecture, age_s=age_s, text=text)
            parts += made
            descriptors.append(image | {"platform": {"os": "linux", "architecture": architecture}})
        for image in tuple(descriptors):
            attested, made = self._manifest(
                repository, [f"statement of {image['digest']}".encode()], b'{"os":"unknown"}', age_s=age_s
            )
            parts += made
            descriptors.append(
                attested
                | {"platform": {"os": "unknown", "architecture": "unknown"}}
                | {"annotations": {"vnd.docker.reference.digest": image["digest"]}}
            )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
        digest = self._revision(repository, json.dumps(index).encode(), age_s=age_s)
        return digest, (digest, *parts)

    def _single(self, repository: str, number: int, *, age_s: float) -> tuple[str, tuple[str, ...]]:
        image, parts = self._platform(repository, number, _PLATFORMS[0], age_s=age_s, text="naive")
        return image["digest"], tuple(parts)

    def _platform(
        self, repository: str, number: int, architecture: str, *, age_s: float, text: str
    ) -> tuple[dict[str, Any], list[str]]:
        shared = f"base {architecture} {repository} {number // _SHARED}".encode() * 20
        own = f"layer {architecture} {number} {text}".encode()
        own += b"." * (_LAYER_BYTES - len(own))
        config = json.dumps({"os": "linux", "architecture": architecture, "number": number, "text": text}).encode()
        return self._manifest(repository, [shared, own], config, age_s=age_s)

    def _manifest(
        self, repository: str, layers: list[bytes], config: bytes, *, age_s: float
    ) -> tuple[dict[str, Any], list[str]]:
        blobs = [self._blob(each, age_s=age_s) for each in (config, *layers)]
        for digest in blobs:
            self._link(f"repositories/{repository}/_layers/{digest.replace(':', '/')}", digest, age_s=age_s)
        sizes = [len(config), *map(len, layers)]
        described = [{"digest": digest, "size": size} for digest, size in zip(blobs, sizes, strict=True)]
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **described[0]},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **each} for each in described[1:]],
            }
        ).encode()
        digest = self._revision(repository, body, age_s=age_s)
        return {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(body)}, [digest, *blobs]

    def _tag(self, repository: str, tag: str, history: list[tuple[str, float]], parts: tuple[str, ...]) -> None:
        folder = f"repositories/{repository}/_manifests/tags/{tag}"
        for digest, age_s in history:
            self._link(f"{folder}/index/{digest.replace(':', '/')}", digest, age_s=age_s)
        self._link(f"{folder}/current", *history[-1][:1], age_s=history[-1][1])
        self._made.tags[repository, tag] = parts

    def _revision(self, repository: str, body: bytes, *, age_s: float) -> str:
        digest = self._blob(body, age_s=age_s)
        self._link(f"repositories/{repository}/_manifests/revisions/{digest.replace(':', '/')}", digest, age_s=age_s)
        return digest

    def _blob(self, content: bytes, *, age_s: float) -> str:
        """Write a blob; one that is there keeps the time at which it was first written."""
        digest = digest_of(content)
        encoded = digest.removeprefix("sha256:")
        path = f"blobs/sha256/{encoded[:2]}/{encoded}/data"
        if path not in self._times:
            self._write(path, content, age_s=age_s)
        return digest

    def _link(self, folder: str, digest: str, *, age_s: float) -> None:
        """Write a link; one that is there is written again, so that the latest time stays."""
        path = f"{folder}/link"
        if self._times.get(path, age_s + 1) > age_s:
            self._write(path, digest.encode(), age_s=age_s)

    def _write(self, path: str, content: bytes, *, age_s: float) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        os.utime(target, (self._now - age_s, self._now - age_s))
        self._times[path] = age_s


def blobs_of(folder: Path) -> dict[str, int]:
    """Return the blobs of a storage with their sizes."""
    root = folder / "docker" / "registry" / "v2"
    return {f"sha256:{path.parent.name}": path.stat().st_size for path in root.glob("blobs/sha256/*/*/data")}


def unpullable(folder: Path, made: Made) -> int:
    """Count the tags that lack something they are made of: a blob, or the link of a manifest."""
    root = folder / "docker" / "registry" / "v2"
    present = blobs_of(folder)
    count = 0
    for (repository, tag), parts in made.tags.items():
        manifests = root / "repositories" / repository / "_manifests"
        current = manifests / "tags" / tag / "current" / "link"
        linked = [manifests / "revisions" / each.replace(":", "/") / "link" for each in _manifests_of(root, parts[0])]
        whole = all(each in present for each in parts) and all(each.exists() for each in (current, *linked))
        count += not whole
    return count


def _manifests_of(root: Path, digest: str) -> list[str]:
    encoded = digest.removeprefix("sha256:")
    path = root / "blobs" / "sha256" / encoded[:2] / encoded / "data"
    if not path.exists():
        return [digest]
    return [digest, *(each["digest"] for each in json.loads(path.read_bytes()).get("manifests", ()))]
