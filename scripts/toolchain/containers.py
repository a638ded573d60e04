"""The container images of the local cluster, under the names that a user would write.

No image registry is needed: each is made from Debian's packages or a tool built from source, with the paths, the entry
point and the command of the image whose name it has.
"""

from __future__ import annotations

import fnmatch
import json
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.toolchain.artefact import Artefact, digest
from scripts.toolchain.gomodules import builds
from scripts.toolchain.images import PACKAGES, RELEASE, cluster_options
from scripts.toolchain.layout import Layout, host_architecture
from scripts.toolchain.oci import Image, write_archive
from scripts.toolchain.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scripts.toolchain.commands import Log

BUSYBOX = "docker.io/library/busybox:1"
PAUSE = "registry.k8s.io/pause:3.10"
PYTHON = "docker.io/library/python:3.11-slim"
REGISTRY_2 = "docker.io/library/registry:2"
REGISTRY_3 = "docker.io/library/registry:3"

APPLETS = (
    "ash", "awk", "basename", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "du", "echo", "env", "expr",
    "false", "find", "grep", "head", "hostname", "httpd", "id", "ip", "kill", "ln", "ls", "mkdir", "mktemp", "mount", "mv", "nc",
    "nslookup", "ping", "printf", "ps", "pwd", "rm", "rmdir", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "sync",
    "tail", "tar", "tee", "test", "timeout", "touch", "tr", "true", "uname", "uniq", "vi", "wc", "wget", "which", "whoami", "xargs",
)  # fmt: skip
LIBRARIES = ("libc.so.6", "libresolv.so.2")
"""What Debian's busybox and registry are linked with."""

OF_OTHERS = (
    "dev/*", "proc/*", "run/*", "sys/*", "tmp/*", "var/cache/*", "var/lib/apt/lists/*", "var/log/*", "etc/containerd/*",
    "usr/bin/busybox", "usr/bin/containerd*", "usr/bin/ctr", "usr/bin/docker-registry", "usr/lib/cni/*", "usr/sbin/runc",
    "usr/bin/perl*", "usr/lib/*/gconv/*", "usr/lib/*/libperl*", "usr/lib/*/perl*", "usr/share/perl*",
)  # fmt: skip
"""What of Debian's packages is not in the Python image."""

ENTRYPOINT = """\
#!/bin/sh
# A configuration file alone means to serve it; a verb of the registry needs no name before it.
set -e
case "$1" in
*.yaml | *.yml) exec registry serve "$@" ;;
serve | garbage-collect | help | -*) exec registry "$@" ;;
esac
exec "$@"
"""
CONFIGURATION = """\
version: 0.1
log: {fields: {service: registry}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: /var/lib/registry}
http:
  addr: :5000
  headers: {X-Content-Type-Options: [nosniff]}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
"""
PATHS = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The files of one layer by their path: a file of this host, a text or a symbolic link; all belong to root."""

    files: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, int] = field(default_factory=dict)

    def write(self, target: Path) -> None:
        """Write the layer's tar, the same bytes for the same files."""
        with tarfile.open(target, "w") as tar:
            for name, mode in sorted(self.folders.items()):
                tar.addfile(_member(name, tarfile.DIRTYPE, mode))
            for name, path in sorted(self.files.items()):
                member = _member(name, tarfile.REGTYPE, 0o755)
                member.size = path.stat().st_size
                with path.open("rb") as content:
                    tar.addfile(member, content)
            for name, text in sorted(self.texts.items()):
                member = _member(name, tarfile.REGTYPE, 0o755 if text.startswith("#!") else 0o644)
                member.size = len(text.encode())
                tar.addfile(member, BytesIO(text.encode()))
            for name, link in sorted(self.links.items()):
                member = _member(name, tarfile.SYMTYPE, 0o777)
                member.linkname = link
                tar.addfile(member)


def busybox_layer(packages: Path) -> Layer:
    """Return what every small image begins with."""
    return Layer(
        files={
            "bin/busybox": packages / "usr/bin/busybox",
            "etc/ssl/certs/ca-certificates.crt": packages / "etc/ssl/certs/ca-certificates.crt",
            **find_libraries(packages),
        },
        texts={
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
            "etc/group": "root:x:0:\nnobody:x:65534:\n",
            "etc/nsswitch.conf": "hosts: files dns\n",
        },
        links={f"bin/{applet}": "busybox" for applet in APPLETS},
        folders={"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777, "home": 0o755},
    )


def registry_layer(binary: Path, configuration: str) -> Layer:
    """Return what a registry has beside busybox."""
    return Layer(
        files={"bin/registry": binary},
        texts={"entrypoint.sh": ENTRYPOINT, configuration: CONFIGURATION},
        folders={"var/lib/registry": 0o755},
    )


def find_libraries(packages: Path) -> dict[str, Path]:
    """Return Debian's C library and loader for an image: the path inside, and the file."""
    (loader,) = (packages / "usr/lib").glob("*/ld-linux-*.so.*")
    in_lib64 = {f"lib64/{loader.name}": loader} if "x86-64" in loader.name else {f"lib/{loader.name}": loader}
    return in_lib64 | {f"lib/{loader.parent.name}/{name}": loader.parent / name for name in LIBRARIES}


def write_python_layer(packages: Path, target: Path) -> None:
    """Write a layer of Debian's own Python; owners, modes and times stay, since its compiled modules go by the times."""
    with tarfile.open(target, "w") as tar:
        for path in _walk(packages):
            name = path.relative_to(packages).as_posix()
            if not any(fnmatch.fnmatch(name, pattern) for pattern in OF_OTHERS):
                tar.add(path, name, recursive=False)
        for name in ("python", "python3"):
            member = _member(f"usr/local/bin/{name}", tarfile.SYMTYPE, 0o777)
            member.linkname = "/usr/bin/python3"
            tar.addfile(member)


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, mode
    return member


def make_images(layout: Layout, folder: Path) -> None:
    """Write images.tar, and images.json with the digest of each image by its name."""
    packages = layout.packages
    layers = {
        "busybox": busybox_layer(packages),
        "registry2": registry_layer(packages / "usr/bin/docker-registry", "etc/docker/registry/config.yml"),
        "registry3": registry_layer(layout.go / "registry/registry", "etc/distribution/config.yml"),
    }
    paths = {name: folder / f"{name}.layer" for name in (*layers, "python")}
    for name, layer in layers.items():
        layer.write(paths[name])
    write_python_layer(packages, paths["python"])

    def image(name: str, of: Sequence[str], **config: Any) -> Image:
        return Image(
            name=name,
            architecture=host_architecture(),
            layers=[paths[each] for each in of],
            config={"Env": [PATHS], **config},
        )

    served = {"Entrypoint": ["/entrypoint.sh"], "ExposedPorts": {"5000/tcp": {}}, "Volumes": {"/var/lib/registry": {}}}
    images = [
        image(BUSYBOX, ["busybox"], Cmd=["sh"]),
        image(PAUSE, ["busybox"], Entrypoint=["/bin/busybox", "sleep", "infinity"]),
        image(PYTHON, ["python"], Cmd=["python3"]),
        image(REGISTRY_2, ["busybox", "registry2"], Cmd=["/etc/docker/registry/config.yml"], **served),
        image(
            REGISTRY_3,
            ["busybox", "registry3"],
            Cmd=["serve", "/etc/distribution/config.yml"],
            **served | {"Env": [PATHS, "OTEL_TRACES_EXPORTER=none"]},
        ),
    ]
    digests = write_archive(images, folder / "images.tar")
    for path in paths.values():
        path.unlink()
    (folder / "images.json").write_text(json.dumps(digests, indent=2) + "\n")


def container_step(layout: Layout) -> Step:
    """Return the step that makes the images."""
    registry = builds()["registry"]
    sources = [Path(__file__), Path(__file__).with_name("oci.py")]
    key = digest(
        RELEASE,
        *cluster_options(host_architecture()),
        registry.artefact(layout).key,
        *(source.read_bytes() for source in sources),
    )
    artefact = Artefact(path=layout.cluster, key=key)

    def make(_log: Log) -> None:
        with artefact.replace() as folder:
            folder.mkdir()
            make_images(layout, folder)

    return Step(
        name="container images of the cluster",
        part="machines",
        about_s=5,
        is_made=artefact.is_made,
        make=make,
        needs=(PACKAGES, f"{registry.name} {registry.version}"),
    )
