"""What a merge wrote, seen by others: skopeo copies it whole, containerd takes the new image, other tools write the same bytes."""

import os
import shutil
import subprocess
import time

import pytest

from scripts.benchmarks.registries import OCI_INDEX
from scripts.benchmarks.stage import CACHE

AMD64, ARM64, S390X = "linux/amd64", "linux/arm64", "linux/s390x"

CONTAINERD = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/sock"
"""


@pytest.fixture(scope="module")
def containerd(tmp_path_factory):
    """Ask a containerd of its own which manifests it takes from a tag for a platform; each tag in a namespace of its own."""
    if os.geteuid() or not shutil.which("containerd"):
        pytest.skip("containerd needs root, and to be installed (run scripts/setup)")
    folder = tmp_path_factory.mktemp("containerd")
    (folder / "config.toml").write_text(CONTAINERD.format(folder=folder))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["containerd", "--config", folder / "config.toml"], stdout=log, stderr=log)
    deadline = time.monotonic() + 20
    while not (folder / "sock").exists():
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)

    def choose(name, platform):
        ctr = ["ctr", "-a", folder / "sock", "-n", f"n{time.monotonic_ns()}", "content"]
        subprocess.run([*ctr, "fetch", "--plain-http", "--platform", platform, name], check=True, capture_output=True)
        return set(subprocess.run([*ctr, "ls", "-q"], check=True, capture_output=True, text=True).stdout.split())

    yield choose
    process.terminate()
    process.wait(20)


@pytest.fixture
def is_whole(server, containerd, tmp_path):
    """Check a tag: skopeo reads its bytes and copies every part, and containerd takes for each platform what it is to be."""

    def is_whole(repository, tag, wanted, *, gone=()):
        name = server.name(repository, tag)
        raw = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}"]
        copied = f"oci:{tmp_path}/{time.monotonic_ns()}:1"
        copy = ["skopeo", "copy", "--all", "--quiet", "--src-tls-verify=false", f"docker://{name}", copied]
        assert subprocess.run(raw, check=True, capture_output=True).stdout == server.get(repository, tag)
        subprocess.run(copy, check=True, capture_output=True)
        assert server.images(repository, tag) == {platform: [digest] for platform, digest in wanted.items()}
        for platform, digest in wanted.items():
            taken = containerd(name, platform)
            assert digest in taken
            assert taken.isdisjoint(gone)
            assert taken.isdisjoint(set(wanted.values()) - {digest})

    return is_whole


def _image(server, repository, reference, platform):
    return server.images(repository, reference)[platform][0]


@pytest.mark.parametrize("attest", [False, True])
@pytest.mark.parametrize("docker", [False, True])
def test_a_staging_tag(server, repository, slipway, is_whole, attest, docker):
    """An index as buildx pushes it, into an index or a Docker list, attestations or not."""
    server.push_index(repository, "1", [AMD64, ARM64], attest=attest and not docker, docker=docker)
    server.push_index(repository, "s", [ARM64], text="new", attest=attest, docker=docker and not attest)
    old, keep, new = (_image(server, repository, *each) for each in (("1", ARM64), ("1", AMD64), ("s", ARM64)))

    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, "s"))

    is_whole(repository, "1", {AMD64: keep, ARM64: new}, gone={old})


def test_a_plain_image_into_a_plain_image(server, repository, slipway, is_whole):
    """What two pushes of `--provenance=false` leave."""
    one = server.push_image(repository, AMD64, tag="1")["digest"]
    other = server.push_image(repository, ARM64, tag="s")["digest"]

    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, "s"))

    is_whole(repository, "1", {AMD64: one, ARM64: other})


def test_several_sources_into_a_new_tag_in_any_order(server, repository, slipway, is_whole):
    """Tags and digests at once, from another repository too; in another order they give the same bytes."""
    first = server.push_image(repository, ARM64, tag="a", text="a")["digest"]
    server.push_index(repository, "b", [S390X], attest=True)
    server.push_index(f"{repository}-ci", "c", [AMD64], attest=True)
    names = [server.name(repository, first), server.name(repository, "b"), server.name(f"{repository}-ci", "c")]
    wanted = {
        AMD64: _image(server, f"{repository}-ci", "c", AMD64),
        ARM64: first,
        S390X: _image(server, repository, "b", S390X),
    }

    slipway("merge", server.name(repository, "1"), "--create", "--keep-staging", "--from", *names)
    slipway(
        "merge", server.name(repository, "2"), "--create", *(word for each in names[::-1] for word in ("--from", each))
    )

    is_whole(repository, "1", wanted)
    assert server.get(repository, "2") == server.get(repository, "1")
    assert server.get(repository, "a") is not None
    assert server.get(repository, "b") is server.get(f"{repository}-ci", "c") is None


def test_what_an_appending_tool_left(server, repository, slipway, is_whole):
    """The old image first, so that clients went on taking it: one of each is left, and it is the new one."""
    server.push_index(repository, "1", [AMD64, ARM64], attest=True)
    old, keep = _image(server, repository, "1", ARM64), _image(server, repository, "1", AMD64)
    new = server.push_image(repository, ARM64, text="new")["digest"]
    crane = str(CACHE / "go" / "crane" / "crane")
    target = server.name(repository, "1")
    subprocess.run(
        [crane, "index", "append", target, "-m", server.name(repository, new), "-t", target],
        check=True,
        capture_output=True,
    )
    assert server.images(repository, "1")[ARM64] == [old, new]

    slipway("merge", target, "--from", server.name(repository, new))

    is_whole(repository, "1", {AMD64: keep, ARM64: new}, gone={old})


def test_what_was_restored(server, repository, slipway, is_whole):
    """After a naive push took one platform off."""
    server.push_index(repository, "1", [AMD64, ARM64], attest=True)
    old, keep = _image(server, repository, "1", AMD64), _image(server, repository, "1", ARM64)
    slipway("backup", server.name(repository, "1").rsplit(":", 1)[0])
    new = server.push_image(repository, AMD64, tag="1", text="naive")["digest"]

    slipway("restore", server.name(repository, "1"))

    is_whole(repository, "1", {AMD64: new, ARM64: keep}, gone={old})


@pytest.fixture
def peer(server, tmp_path):
    """Run another tool against the registry, with a configuration of its own."""
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path), "REGCTL_CONFIG": str(tmp_path / "regctl.json")}

    def peer(tool, *arguments):
        program = str(CACHE / "bin" / "buildx") if tool == "buildx" else str(CACHE / "go" / tool / tool)
        subprocess.run([program, *arguments], env=environment, check=True, capture_output=True)

    peer("regctl", "registry", "set", "--tls", "disabled", "--skip-check", server.host)
    return peer


@pytest.mark.parametrize("attest", [False, True])
def test_the_same_bytes_as_buildx(server, repository, slipway, peer, attest):
    """Where a platform is new, and where the tag is new: rules and layout are the same, and so is the digest."""
    base = server.push_index(repository, "base", [AMD64], attest=attest)
    server.push_index(repository, "new", [ARM64], attest=attest)
    for tag in ("ours", "theirs"):
        server.put(repository, tag, server.get(repository, base), OCI_INDEX)
    name = {tag: server.name(repository, tag) for tag in ("base", "new", "ours", "theirs", "ours-2", "theirs-2")}

    slipway("merge", name["ours"], "--keep-staging", "--from", name["new"])
    peer("buildx", "imagetools", "create", "--append", "-t", name["theirs"], name["new"])
    slipway("merge", name["ours-2"], "--create", "--keep-staging", "--from", name["base"], name["new"])
    peer("buildx", "imagetools", "create", "-t", name["theirs-2"], name["base"], name["new"])

    assert server.get(repository, "ours") == server.get(repository, "theirs")
    assert server.get(repository, "ours-2") == server.get(repository, "theirs-2")


def test_the_same_bytes_as_regctl(server, repository, slipway, peer):
    """Its indexes are compact, and ours are what they were."""
    base = server.push_index(repository, "base", [AMD64], compact=True)
    new = server.push_image(repository, ARM64)["digest"]
    for tag in ("ours", "theirs"):
        server.put(repository, tag, server.get(repository, base), OCI_INDEX)

    slipway("merge", server.name(repository, "ours"), "--from", server.name(repository, new))
    peer("regctl", "index", "add", server.name(repository, "theirs"), "--ref", server.name(repository, new))

    assert server.get(repository, "ours") == server.get(repository, "theirs")
