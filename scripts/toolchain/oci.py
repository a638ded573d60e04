"""Container images as an archive that every runtime imports: an OCI image layout in a tar."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
FULL_NAME = "io.containerd.image.name"
"""The annotation that containerd takes a whole name from; the specification's own holds a tag alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image for one platform. `layers` are tar files; `config` is what a Dockerfile sets: Cmd, Env, …"""

    name: str
    architecture: str
    layers: Sequence[Path]
    config: Mapping[str, Any] = field(default_factory=dict)


def write_archive(images: Sequence[Image], target: Path) -> dict[str, str]:
    """Write `images` as one archive; returns the digest of each by its name.

    Each is in there by its tag and by its digest, so that either reference finds it without a registry.
    """
    digests: dict[str, str] = {}
    entries: list[dict[str, Any]] = []
    with tarfile.open(target, "w") as archive:
        blobs = _Blobs(archive)
        for image in images:
            manifest = _add_image(blobs, image)
            repository, _, _ = image.name.rpartition(":")
            digests[image.name] = manifest["digest"]
            entries += [
                manifest | {"annotations": {FULL_NAME: name}}
                for name in (image.name, f"{repository}@{manifest['digest']}")
            ]
        blobs.add_file("index.json", _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
        blobs.add_file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    return digests


def _add_image(blobs: _Blobs, image: Image) -> dict[str, Any]:
    layers = [blobs.add_layer(path) for path in image.layers]
    config = {
        "architecture": image.architecture,
        "os": "linux",
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blobs.add(CONFIG, _json(config)),
        "layers": layers,
    }
    return blobs.add(MANIFEST, _json(manifest))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


class _Blobs:
    """The archive's files; each content is in there once."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._written: set[str] = set()

    def add(self, media_type: str, content: bytes) -> dict[str, Any]:
        """Add a blob; returns its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._written:
            self.add_file(f"blobs/sha256/{digest}", content)
            self._written.add(digest)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_layer(self, path: Path) -> dict[str, Any]:
        """Add a tar as a layer; returns its descriptor."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest not in self._written:
                member = tarfile.TarInfo(f"blobs/sha256/{digest}")
                member.size = path.stat().st_size
                file.seek(0)
                self._archive.addfile(member, file)
                self._written.add(digest)
        return {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": path.stat().st_size}

    def add_file(self, name: str, content: bytes) -> None:
        """Add a file of the layout."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))
