"""Container images as archives: what is in there, and under which names."""

import hashlib
import json
import tarfile

import pytest

from scripts.toolchain.containers import Layer, busybox_layer, find_libraries, write_python_layer
from scripts.toolchain.oci import FULL_NAME, Image, write_archive


@pytest.fixture(name="archive")
def _archive(tmp_path):
    for name in ("base", "tool"):
        Layer(texts={name: name}).write(tmp_path / name)
    images = [
        Image(name="example.org/base:1", architecture="amd64", layers=[tmp_path / "base"], config={"Cmd": ["sh"]}),
        Image(name="example.org/tool:1", architecture="amd64", layers=[tmp_path / "base", tmp_path / "tool"]),
    ]
    digests = write_archive(images, tmp_path / "images.tar")
    with tarfile.open(tmp_path / "images.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        return digests, files, len(tar.getmembers())


def _blob(files, descriptor):
    return files[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]


def test_every_blob_is_what_its_name_says(archive):
    """And each is in there once, though two images share a layer."""
    _, files, members = archive
    blobs = {name.rpartition("/")[2]: content for name, content in files.items() if name.startswith("blobs/")}

    assert all(hashlib.sha256(content).hexdigest() == name for name, content in blobs.items())
    assert members == len(files) == 2 + 2 + 2 + 2  # layers, configs, manifests, the layout's two files


def test_an_image_is_found_by_tag_and_by_digest(archive):
    """A reference with the digest that is told needs no registry."""
    digests, files, _ = archive
    names = {entry["annotations"][FULL_NAME]: entry["digest"] for entry in json.loads(files["index.json"])["manifests"]}

    assert names == {
        "example.org/base:1": digests["example.org/base:1"],
        f"example.org/base@{digests['example.org/base:1']}": digests["example.org/base:1"],
        "example.org/tool:1": digests["example.org/tool:1"],
        f"example.org/tool@{digests['example.org/tool:1']}": digests["example.org/tool:1"],
    }


def test_descriptors_lead_from_the_index_to_the_layers(archive):
    """Sizes and digests of every step are right, and the configuration names the layers unpacked."""
    _, files, _ = archive
    for entry in json.loads(files["index.json"])["manifests"]:
        manifest = json.loads(_blob(files, entry))
        config = json.loads(_blob(files, manifest["config"]))

        assert all(len(_blob(files, each)) == each["size"] for each in (entry, manifest["config"], *manifest["layers"]))
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]


def test_a_layer_is_the_same_for_the_same_files(tmp_path):
    """Times and owners of this host do not get in."""
    file = tmp_path / "tool"
    layer = Layer(
        files={"bin/tool": file}, texts={"run": "#!/bin/sh\n"}, links={"bin/t": "tool"}, folders={"tmp": 0o1777}
    )
    file.write_text("tool")
    layer.write(tmp_path / "first")
    file.unlink()
    file.write_text("tool")
    layer.write(tmp_path / "second")

    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    with tarfile.open(tmp_path / "first") as tar:
        assert {m.name: (m.mode, m.uid, m.mtime) for m in tar.getmembers()} == {
            "tmp": (0o1777, 0, 0),
            "bin/tool": (0o755, 0, 0),
            "run": (0o755, 0, 0),
            "bin/t": (0o777, 0, 0),
        }


@pytest.fixture(name="packages")
def _packages(tmp_path):
    files = (
        "usr/bin/busybox", "usr/bin/containerd", "usr/bin/ctr", "usr/bin/docker-registry", "usr/bin/python3.11",
        "usr/lib/python3.11/os.py", "var/cache/apt/x", "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libresolv.so.2",
    )  # fmt: skip
    for name in files:
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "packages/usr/bin/python3").symlink_to("python3.11")
    return tmp_path / "packages"


def test_the_python_image_leaves_out_what_is_of_others(packages, tmp_path):
    """Python and its library stay; container runtime, registry and package lists go; it is found where a user's is."""
    write_python_layer(packages, tmp_path / "layer")

    with tarfile.open(tmp_path / "layer") as tar:
        names = set(tar.getnames())
        link = tar.getmember("usr/local/bin/python3").linkname
    assert {"usr/bin/python3", "usr/bin/python3.11", "usr/lib/python3.11/os.py"} <= names
    assert {
        name for name in names if "containerd" in name or "registry" in name or name.startswith("var/cache/")
    } == set()
    assert "usr/bin/ctr" not in names
    assert link == "/usr/bin/python3"


def test_the_loader_lies_where_programs_ask_for_it(packages):
    """On AMD64 that is /lib64; the libraries are where the loader looks."""
    assert {name: path.name for name, path in find_libraries(packages).items()} == {
        "lib64/ld-linux-x86-64.so.2": "ld-linux-x86-64.so.2",
        "lib/x86_64-linux-gnu/libc.so.6": "libc.so.6",
        "lib/x86_64-linux-gnu/libresolv.so.2": "libresolv.so.2",
    }


def test_every_applet_is_a_link_to_busybox(packages):
    """A shell script finds them by name."""
    links = busybox_layer(packages).links

    assert {"bin/sh", "bin/sleep", "bin/timeout", "bin/date"} <= links.keys()
    assert set(links.values()) == {"busybox"}
