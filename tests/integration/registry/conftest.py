"""Real registries, 2.8.2 and 3.1.2, and images made by hand: nothing here imports what is tested."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[3]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"}
SERVERS = {"2.8": "docker-registry", "3.1": str(CACHE / "go" / "registry" / "registry")}


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Registry:
    """A registry in a process of its own, and a plain way to put things there."""

    version: str
    host: str
    storage: Path
    config: Path
    process: subprocess.Popen | None = None
    environment: dict = field(default_factory=dict)
    secret: str = ""

    def start(self):
        with (self.config.parent / "log").open("a") as log:
            self.process = subprocess.Popen(
                [SERVERS[self.version], "serve", self.config],
                stdout=log,
                stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none", **self.environment},
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://{self.host}/v2/", timeout=5)
            except httpx.TransportError:
                assert time.monotonic() < deadline, (self.config.parent / "log").read_text()
                time.sleep(0.02)
            else:
                return self

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
            self.process = None

    def restart(self, **environment):
        self.stop()
        self.environment = environment
        return self.start()

    def name(self, repository, version):
        return f"{self.host}/{repository}{'@' if version.startswith('sha256:') else ':'}{version}"

    def request(self, method, path, **options):
        return httpx.request(method, f"http://{self.host}/v2/{path}", timeout=30, **options)

    def push_blob(self, repository, content):
        answer = self.request("POST", f"{repository}/blobs/uploads/")
        answer.raise_for_status()
        place = httpx.URL(answer.headers["location"])
        place = place.copy_merge_params({"digest": digest_of(content)})
        url = place if place.is_absolute_url else f"http://{self.host}{place}"
        httpx.put(url, content=content, timeout=30).raise_for_status()
        return {"digest": digest_of(content), "size": len(content)}

    def put(self, repository, version, body, media_type):
        """Store a manifest; its digest."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        version = version or digest_of(body)
        answer = self.request(
            "PUT", f"{repository}/manifests/{version}", content=body, headers={"Content-Type": media_type}
        )
        assert answer.status_code == 201, answer.text
        return digest_of(body)

    def get(self, repository, version):
        """A manifest's bytes, or None."""
        answer = self.request("GET", f"{repository}/manifests/{version}", headers=ACCEPT)
        return answer.content if answer.status_code == 200 else None

    def tags(self, repository):
        return set(self.request("GET", f"{repository}/tags/list").json()["tags"] or ())

    def index(self, repository, version):
        return json.loads(self.get(repository, version))

    def images(self, repository, version):
        """Platform → digest of the runnable entries, each list in order."""
        found = {}
        for each in self.index(repository, version)["manifests"]:
            platform = "/".join(filter(None, (each["platform"].get(k) for k in ("os", "architecture", "variant"))))
            if platform != "unknown/unknown":
                found.setdefault(platform, []).append(each["digest"])
        return found

    def push_image(self, repository, platform, *, tag="", text="", docker=False, config=None):
        """An image with one layer; its descriptor."""
        os_name, architecture, *variant = platform.split("/")
        layer = self.push_blob(repository, f"layer of {platform} {text}".encode())
        known = {"architecture": architecture, "os": os_name, **({"variant": variant[0]} if variant else {})}
        value = {
            **known,
            "created": "2026-11-24T08:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        value = value if config is None else config
        configuration = self.push_blob(repository, json.dumps(value).encode())
        kinds = (
            ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
            if docker
            else ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
        )
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": kinds[0], **configuration},
            "layers": [{"mediaType": kinds[1], **layer}],
        }
        body = json.dumps(manifest, indent=2).encode()
        self.put(repository, tag, body, media_type)
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), "platform": known}

    def push_attestation(self, repository, subject, text=""):
        """What BuildKit stores beside an image; its descriptor."""
        statement = self.push_blob(repository, f"statement of {subject} {text}".encode())
        config = self.push_blob(repository, b'{"architecture":"unknown","os":"unknown"}')
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.in-toto+json", **statement}],
        }
        body = json.dumps(manifest, indent=2).encode()
        self.put(repository, "", body, OCI_MANIFEST)
        annotations = {"vnd.docker.reference.digest": subject, "vnd.docker.reference.type": "attestation-manifest"}
        return {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(body),
            "size": len(body),
            "annotations": annotations,
            "platform": {"architecture": "unknown", "os": "unknown"},
        }

    def push_index(
        self, repository, tag, platforms, *, text="", attest=False, docker=False, indent=2, extra=None, annotations=None
    ):
        """An index as buildx pushes it; its digest."""
        images = [self.push_image(repository, each, text=text, docker=docker) for each in platforms]
        attestations = [self.push_attestation(repository, each["digest"], text) for each in images if attest]
        index = {
            "schemaVersion": 2,
            "mediaType": DOCKER_LIST if docker else OCI_INDEX,
            "manifests": [*images, *attestations],
            **({"annotations": annotations} if annotations else {}),
            **(extra or {}),
        }
        body = json.dumps(index, indent=indent, separators=None if indent else (",", ":")).encode()
        return self.put(repository, tag, body, DOCKER_LIST if docker else OCI_INDEX)

    def slipway(self, *arguments, check=True, **options):
        """Run the one-file program's command."""
        done = subprocess.run(
            [sys.executable, "-m", "scripts.registry", *map(str, arguments)],
            cwd=ROOT,
            text=True,
            capture_output=True,
            timeout=50,
            check=False,
            **options,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_registry(version, home, **http):
    """A registry with storage of its own."""
    if not shutil.which(SERVERS[version]):
        pytest.skip(f"this host lacks registry {version} (run scripts/setup)")
    home.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(home / "storage")},
            "delete": {"enabled": True},
            "cache": {"blobdescriptor": "inmemory"},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": host, **http},
    }
    (home / "config.yml").write_text(yaml.safe_dump(config))
    return Registry(version=version, host=host, storage=home / "storage", config=home / "config.yml")


@pytest.fixture(params=list(SERVERS), scope="session")
def server(request, tmp_path_factory):
    """One registry of each version, for the session: tests take repositories of their own."""
    registry = make_registry(request.param, tmp_path_factory.mktemp("registry")).start()
    yield registry
    registry.stop()


@pytest.fixture
def repository(request):
    """A repository's name that no other test has."""
    return f"app/{digest_of(request.node.nodeid.encode())[7:23]}"


@pytest.fixture
def new_registry(tmp_path):
    """Make registries of a test's own."""
    made = []

    def make(version, **http):
        registry = make_registry(version, tmp_path / f"registry-{len(made)}", **http).start()
        made.append(registry)
        return registry

    yield make
    for each in made:
        each.stop()
