"""Registries of both kinds in processes of their own, and images made by hand: nothing here imports what is measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from scripts.benchmarks.stage import CACHE, StageFailed

if TYPE_CHECKING:
    from typing import Self

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"}
SERVERS = {"2.8": "docker-registry", "3.1": str(CACHE / "go" / "registry" / "registry")}
_LAYER, _CONFIG = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.config.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"


def digest_of(content: bytes) -> str:
    """Return the sha256 digest of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(kw_only=True)
class Registry:
    """A registry on loopback with storage of its own under `home`; `http` adds to that part of its configuration."""

    version: str
    home: Path
    http: dict[str, Any] = field(default_factory=dict)
    delete: bool = True
    host: str = ""
    process: subprocess.Popen[bytes] | None = None

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=30, verify=False)  # noqa: S501 - plain HTTP alone; reading the authorities takes longer

    @property
    def missing(self) -> bool:
        """Tell whether this host lacks the program."""
        return shutil.which(SERVERS[self.version]) is None

    @property
    def log(self) -> Path:
        """Where it writes what it does."""
        return self.home / "log"

    def start(self, **environment: str) -> Self:
        """Start it, again on the same port; StageFailed where it does not answer."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.host = self.host or f"127.0.0.1:{_free_port()}"
        storage = {
            "filesystem": {"rootdirectory": str(self.home / "storage")},
            "delete": {"enabled": self.delete},
            "cache": {"blobdescriptor": "inmemory"},
            "maintenance": {"uploadpurging": {"enabled": False}},
        }
        log = {"level": "error", "accesslog": {"disabled": True}}
        config = {"version": 0.1, "log": log, "storage": storage, "http": {"addr": self.host, **self.http}}
        (self.home / "config.yml").write_text(yaml.safe_dump(config))
        with self.log.open("a") as file:
            self.process = subprocess.Popen(
                self._command(),
                stdout=file,
                stderr=file,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none", **environment},
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((self.host.split(":")[0], int(self.host.split(":")[1])), timeout=5).close()
            except OSError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise StageFailed(f"registry {self.version}: {self.log.read_text()[-500:]}") from error
                time.sleep(0.02)
            else:
                return self

    def _command(self) -> list[str | Path]:
        return [SERVERS[self.version], "serve", self.home / "config.yml"]

    def stop(self) -> None:
        """End it; what it stores stays."""
        if "_client" in vars(self):
            self._client.close()
            del self._client
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
            self.process = None

    def restart(self, **environment: str) -> None:
        """End it and start it with another environment."""
        self.stop()
        self.start(**environment)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request below /v2/."""
        return self._client.request(method, f"http://{self.host}/v2/{path}", **options)

    def name(self, repository: str, version: str) -> str:
        """Return a reference to a tag or digest."""
        return f"{self.host}/{repository}{'@' if version.startswith('sha256:') else ':'}{version}"

    def get(self, repository: str, version: str) -> bytes | None:
        """Return a manifest's bytes."""
        answer = self.request("GET", f"{repository}/manifests/{version}", headers=ACCEPT)
        return answer.content if answer.status_code == 200 else None

    def tags(self, repository: str) -> set[str]:
        """Return a repository's tags."""
        return set(self.request("GET", f"{repository}/tags/list").json()["tags"] or ())

    def multiply_tag(self, repository: str, tag: str, count: int) -> None:
        """Have `count` tags where there is one, laid out as the registry itself does it, which is slow."""
        folder = self.home / "storage/docker/registry/v2/repositories" / repository / "_manifests/tags"
        digest = (folder / tag / "current/link").read_text()
        for number in range(1, count):
            (folder / f"{tag}-{number}/current").mkdir(parents=True)
            (folder / f"{tag}-{number}/current/link").write_text(digest)

    def index(self, repository: str, version: str) -> dict[str, Any]:
        """Return an index as a value."""
        found: dict[str, Any] = json.loads(self.get(repository, version) or b"{}")
        return found

    def images(self, repository: str, version: str) -> dict[str, list[str]]:
        """Return the digests of each platform, in the index's order; attestations left out."""
        return images_of(self.get(repository, version) or b'{"manifests": []}')

    def put(self, repository: str, version: str, body: bytes, media_type: str) -> str:
        """Store a manifest under a tag, or its digest where `version` is empty; its digest."""
        path = f"{repository}/manifests/{version or digest_of(body)}"
        answer = self.request("PUT", path, content=body, headers={"Content-Type": media_type})
        if answer.status_code != 201:
            raise StageFailed(f"PUT {path}: {answer.status_code} {answer.text}")
        return digest_of(body)

    def push_blob(self, repository: str, content: bytes, *, algorithm: str = "sha256") -> dict[str, Any]:
        """Store a blob; its digest and size."""
        digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        answer = self.request("POST", f"{repository}/blobs/uploads/").raise_for_status()
        place = httpx.URL(f"http://{self.host}").join(answer.headers["location"])
        place = place.copy_merge_params({"digest": digest})
        self._client.put(place, content=content).raise_for_status()
        return {"digest": digest, "size": len(content)}

    def push_image(
        self,
        repository: str,
        platform: str,
        *,
        tag: str = "",
        text: str = "",
        docker: bool = False,
        config: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Store an image of one layer; its descriptor."""
        os_name, architecture, *variant = platform.split("/")
        known = {"architecture": architecture, "os": os_name, **({"variant": variant[0]} if variant else {})}
        layer = self.push_blob(repository, f"layer of {platform} {text}".encode())
        value = {
            **known,
            "created": "2026-11-24T08:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        built = self.push_blob(repository, json.dumps(value if config is None else config).encode())
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": _DOCKER_CONFIG if docker else _CONFIG, **built},
            "layers": [{"mediaType": _DOCKER_LAYER if docker else _LAYER, **layer}],
        }
        body = json.dumps(manifest, indent=2).encode()
        self.put(repository, tag, body, media_type)
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), "platform": known}

    def push_attestation(self, repository: str, subject: str, text: str = "") -> dict[str, Any]:
        """Store what BuildKit stores beside an image; its descriptor."""
        statement = self.push_blob(repository, f"statement of {subject} {text}".encode())
        config = self.push_blob(repository, b'{"architecture":"unknown","os":"unknown"}')
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": _CONFIG, **config},
            "layers": [{"mediaType": "application/vnd.in-toto+json", **statement}],
        }
        body = json.dumps(manifest, indent=2).encode()
        self.put(repository, "", body, OCI_MANIFEST)
        return {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(body),
            "size": len(body),
            "annotations": {
                "vnd.docker.reference.digest": subject,
                "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": {"architecture": "unknown", "os": "unknown"},
        }

    def push_index(
        self,
        repository: str,
        tag: str,
        platforms: list[str],
        *,
        text: str = "",
        attest: bool = False,
        docker: bool = False,
        compact: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> str:
        """Store an index as buildx does; its digest. `extra` are further members of it."""
        images = [self.push_image(repository, each, text=text, docker=docker) for each in platforms]
        attestations = [self.push_attestation(repository, each["digest"], text) for each in images if attest]
        media_type = DOCKER_LIST if docker else OCI_INDEX
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": [*images, *attestations], **(extra or {})}
        text = json.dumps(index, separators=(",", ":")) if compact else json.dumps(index, indent=2)
        return self.put(repository, tag, text.encode(), media_type)


_SUPERVISOR = """\
trap 'kill "$child"; wait "$child"; exit 0' TERM
while :; do
	sh -c "$0" slipway "$@" &
	child=$!
	wait "$child"
	sleep 0.05
done
"""


@dataclass(kw_only=True)
class Supervised(Registry):
    """A registry that is started again whenever it ends, by an entrypoint that reads its mode from a file."""

    entrypoint: str

    @property
    def mode_file(self) -> Path:
        """Where its mode is told."""
        return self.home / "mode"

    def _command(self) -> list[str | Path]:
        return ["sh", "-c", _SUPERVISOR, self.entrypoint, *super()._command()]

    def start(self, **environment: str) -> Self:
        """Start it and what keeps it running."""
        return super().start(SLIPWAY_MODE_FILE=str(self.mode_file), **environment)

    def end(self) -> None:
        """End the registry alone; it is started again."""
        if self.process:
            children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
            for child in Path(children).read_text().split():
                os.kill(int(child), signal.SIGTERM)


def images_of(body: bytes) -> dict[str, list[str]]:
    """Return the digests of each platform of an index, in its order; attestations left out."""
    found: dict[str, list[str]] = {}
    for each in json.loads(body)["manifests"]:
        names = (each["platform"].get(name) for name in ("os", "architecture", "variant"))
        platform = "/".join(filter(None, names))
        if platform != "unknown/unknown":
            found.setdefault(platform, []).append(each["digest"])
    return found
