"""What goes wrong between a merge and a registry: each ends with a named error, or with a tag that can be pulled."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.benchmarks.proxy import Cut, Proxy
from scripts.benchmarks.registries import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, SERVERS
from scripts.benchmarks.writers import Writer, account

ROOT = Path(__file__).parents[3]
AMD64, ARM64 = "linux/amd64", "linux/arm64"


@pytest.fixture
def tag(server, repository):
    """A tag of two platforms, and a staging tag with a new image for one; the new image's digest."""
    server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [ARM64], text="new")
    return server.images(repository, "s")[ARM64][0]


def _whole(server, repository, tag):
    """The tag's platforms, each of whose images can be read."""
    images = server.images(repository, tag)
    assert all(server.get(repository, digest) for each in images.values() for digest in each)
    return images


@pytest.mark.usefixtures("tag")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["merge", "{h}/App:1", "--from", "{h}/app:s"], 2, "lower case"),
        (["merge", "{h}/app:1", "--from", "{h}/app@sha256:12"], 2, "no sha256 digest"),
        (["merge", "{h}/app:-1", "--from", "{h}/app:s"], 2, "no tag"),
        (["merge", "{h}/app:1", "--from", "elsewhere.test/app:s"], 1, "another registry"),
        (["merge", "{h}/{r}:1", "--from", "{h}/{r}:none"], 1, "no such source"),
        (["merge", "{h}/{r}:none", "--from", "{h}/{r}:s"], 1, "--create"),
        (["merge", "{h}/{r}:1", "--from", "{h}/{r}:1"], 1, "the target itself"),
        (["merge", "{h}/{r}:1", "--from", "{h}/{r}:s", "--platform", "linux/s390x"], 1, "it has no linux/s390x"),
        (["merge", "{h}/{r}:1", "--from", "{h}/{r}:s", "--platform", "a/b/c/d"], 2, "OS/ARCHITECTURE"),
        (["merge", "{h}/{r}:1", "--from", "{h}/{r}:s", "--wait", "soon"], 2, "30s, 10m"),
        (["merge", "127.0.0.1:1/app:1", "--from", "127.0.0.1:1/app:s"], 1, "no answer"),
        (["inspect", "{h}/{r}:none"], 1, "not found"),
        (["inspect", ""], 2, "'' is no repository"),
        (["inspect", "http://{h}/{r}:1"], 2, "'http:' is no host"),
        (["inspect", "{h}/{r}:1", "--ca", "/no/such.pem"], 1, "--ca /no/such.pem: it cannot be read (No such file"),
        (["inspect", "{h}/{r}:1", "--ca", "/dev/null"], 1, "it cannot be read (it holds no certificate)"),
        (["untag", "{h}/{r}"], 2, "name the tag"),
        (["untag", "{h}/{r}", "--all-with-prefix", ""], 2, "every tag begins so"),
        (["untag", "{h}/{r}:1", "--all-with-prefix", "x"], 2, "name the repository alone"),
        (["backup", "{h}/{r}", "--keep", "0"], 2, "say 1 or more"),
        (["gc", "{h}", "--mode-file", "mode", "--backups", "0"], 2, "say 1 or more"),
        (["backup", "{h}/{r}:none"], 1, "not found"),
        (["backup", "{h}/{r}@sha256:" + "a" * 64], 2, "name the tag"),
        (["restore", "{h}/{r}@sha256:" + "a" * 64], 2, "name the tag"),
        (["backups", "{h}/{r}@sha256:" + "a" * 64], 2, "name the tag"),
        (["restore", "{h}/{r}:1"], 1, "no backup"),
    ],
)
def test_a_wrong_order_is_one_line_and_changes_nothing(server, repository, here, arguments, code, says):
    """Exit code 2 for what was typed, 1 for what was found."""
    before = server.tags(repository)

    ended, shown, said = here(*(each.format(h=server.host, r=repository) for each in arguments))

    assert (ended, shown) == (code, "")
    assert says in said
    assert said.count("error: ") == 1
    assert server.tags(repository) == before


@pytest.mark.usefixtures("tag")
def test_sources_that_cannot_be_merged_say_why(server, repository, slipway):
    """An index in an index, an entry without a platform, two images for one platform, no platform at all."""
    image = server.push_image(repository, ARM64, text="a")
    other = server.push_image(repository, ARM64, text="b")
    inner = server.get(repository, "1")
    nested = {"mediaType": OCI_INDEX, "digest": _digest(server, repository, "1"), "size": len(inner)}
    bare = {key: value for key, value in image.items() if key != "platform"}
    unnamed = server.push_image(repository, ARM64, config={"rootfs": {}})
    cases = {
        "another index": _index([nested]),
        "names no platform": _index([bare]),
        "two images for one platform": _index([image, other]),
        "it has no platform": _index([]),
    }

    for says, body in cases.items():
        server.put(repository, "odd", body, OCI_INDEX)
        done = slipway("merge", server.name(repository, "1"), "--from", server.name(repository, "odd"), check=False)
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
    plain = server.name(repository, unnamed["digest"])
    refused = slipway("merge", server.name(repository, "1"), "--from", plain, check=False)
    both = slipway("merge", server.name(repository, "1"), "--from", server.name(repository, image["digest"]),
                   "--from", server.name(repository, other["digest"]), check=False)  # fmt: skip
    named = slipway("merge", server.name(repository, "1"), "--from", plain, "--platform", ARM64)

    assert "names no platform" in refused.stderr
    assert "is for linux/arm64 too" in both.stderr
    assert named.stdout
    assert server.images(repository, "1")[ARM64] == [unnamed["digest"]]


@pytest.mark.usefixtures("tag")
def test_a_part_that_is_not_what_the_index_says_stops_the_merge(server, repository, slipway):
    """A server checks neither size nor platform; the merge does, before the tag is written."""
    image = server.push_image(repository, ARM64, text="a")
    before = server.get(repository, "1")
    for wrong, says in (
        ({"size": image["size"] + 1}, "bytes"),
        ({"platform": {"os": "linux", "architecture": "s390x"}}, "says"),
    ):
        server.put(repository, "odd", _index([image | wrong]), OCI_INDEX)
        done = slipway("merge", server.name(repository, "1"), "--from", server.name(repository, "odd"), check=False)

        assert done.returncode == 1
        assert says in done.stderr
        assert server.get(repository, "1") == before


def test_what_was_refused_is_not_carried_out_by_the_next_merge(server, repository, here):
    """An image of another architecture than its index says: the tag has it neither then nor later, and verify misses nothing."""
    server.push_index(repository, "1", [AMD64, ARM64])
    kept = server.images(repository, "1")[ARM64]
    image = server.push_image(repository, AMD64, text="odd") | {"platform": {"os": "linux", "architecture": "arm64"}}
    server.put(repository, "odd", _index([image]), OCI_INDEX)
    new = server.push_image(repository, AMD64, text="new")["digest"]
    name = server.name(repository, "1")

    refused = here("merge", name, "--from", server.name(repository, "odd"))
    checked = here("verify", name)
    code, _, said = here("merge", name, "--from", server.name(repository, new))

    assert (refused[0], "its configuration says linux/amd64" in refused[2]) == (1, True)
    assert checked[0] == 0, checked
    assert code == 0
    assert "brought back" not in said
    assert server.images(repository, "1") == {AMD64: [new], ARM64: kept}


def test_what_the_registry_refuses_is_not_carried_out_by_the_next_merge(server, repository, here):
    """It takes no index with a part that is gone: once that was pushed again, the tag has what was merged since."""
    server.push_index(repository, "1", [AMD64, ARM64])
    (kept,) = server.images(repository, "1")[AMD64]
    body = server.get(repository, kept)
    server.request("DELETE", f"{repository}/manifests/{kept}")
    new, newer = (server.push_image(repository, each, text="new")["digest"] for each in (ARM64, AMD64))
    (old,) = server.images(repository, "1")[ARM64]
    name = server.name(repository, "1")

    refused = here("merge", name, "--from", server.name(repository, new))
    server.put(repository, kept, body, OCI_MANIFEST)
    code, _, said = here("merge", name, "--from", server.name(repository, newer))

    assert refused[0] == 1
    assert code == 0, said
    assert server.images(repository, "1") == {AMD64: [newer], ARM64: [old]}


def test_damaged_content_is_noticed(new_registry, slipway):
    """The registry's own header says the right digest; the content has another."""
    server = new_registry("2.8")
    server.push_index("app", "1", [AMD64, ARM64])
    digest = _digest(server, "app", "1").removeprefix("sha256:")
    blob = server.home / "storage/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
    blob.write_bytes(blob.read_bytes().replace(b"arm64", b"arm65"))
    server.push_index("app", "s", [ARM64], text="new")

    done = slipway("merge", server.name("app", "1"), "--from", server.name("app", "s"), check=False)

    assert done.returncode == 1
    assert "the content has the digest" in done.stderr


@pytest.mark.usefixtures("tag")
def test_an_index_beyond_the_registrys_limit_is_refused_before_the_write(server, repository, slipway):
    """4 MiB and one byte are too many."""
    image = server.push_image(repository, AMD64)
    extra = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image], "x": ""}
    room = 4 * 1024 * 1024 - len(json.dumps(extra))
    server.put(repository, "big", json.dumps(extra | {"x": "x" * room}).encode(), OCI_INDEX)

    done = slipway("merge", server.name(repository, "big"), "--from", server.name(repository, "s"), check=False)

    assert done.returncode == 1
    assert "registries take 4194304" in done.stderr


@pytest.mark.parametrize("version", ["2.8", "3.1"])
def test_where_nothing_may_be_deleted_the_staging_tag_stays_as_it_is(new_registry, slipway, version):
    """Delete off is the default of registry:2: the merge stands, exit code 3, and nothing was overwritten."""
    server = new_registry(version, delete=False)
    server.push_index("app", "1", [AMD64, ARM64])
    server.push_index("app", "s", [ARM64], text="new")
    staging = server.get("app", "s")

    done = slipway("merge", server.name("app", "1"), "--from", server.name("app", "s"), check=False)

    assert done.returncode == 3
    assert "the registry deletes nothing" in done.stderr
    assert server.get("app", "s") == staging
    assert set(server.images("app", "1")) == {AMD64, ARM64}


@pytest.mark.parametrize("version", ["2.8", "3.1"])
def test_a_read_only_registry_is_waited_for(new_registry, slipway, version):
    """405 without JSON is maintenance: the merge waits, and ends with an error at its limit."""
    server = new_registry(version)
    server.push_index("app", "1", [AMD64, ARM64])
    server.push_index("app", "s", [ARM64], text="new")
    server.restart(REGISTRY_STORAGE_MAINTENANCE_READONLY='{"enabled":true}')
    command = ("merge", server.name("app", "1"), "--from", server.name("app", "s"))

    refused = slipway(*command, "--wait", "1s", check=False)
    threading.Timer(2, server.restart).start()
    done = slipway(*command, "--wait", "40s")

    assert refused.returncode == 1
    assert "read-only" in refused.stderr
    assert "waiting for it" in done.stderr
    assert server.get("app", "s") is None


@pytest.mark.parametrize("version", ["2.8", "3.1"])
def test_a_merge_stands_where_the_registry_turns_read_only_before_the_staging_tag_went(new_registry, slipway, version):
    """It is not repeated, as others may have written since: the result is told, exit code 3, and the tag that stays."""
    server = new_registry(version)
    server.push_index("app", "1", [AMD64, ARM64])
    server.push_index("app", "s", [ARM64], text="new")
    staging, turned = server.get("app", "s"), []

    def turn(_n, head):
        if not turned and head.startswith(b"PUT /v2/app/manifests/1 "):
            turned.append(True)
            server.restart(REGISTRY_STORAGE_MAINTENANCE_READONLY='{"enabled":true}')

    with Proxy(target=server.host, after=turn) as proxy:
        done = slipway("merge", f"{proxy.host}/app:1", "--from", f"{proxy.host}/app:s", check=False)

    assert (done.returncode, turned) == (3, [True])
    assert done.stdout.strip().startswith(f"{proxy.host}/app@sha256:")
    assert f"{proxy.host}/app:s is still there" in done.stderr
    assert f"slipway untag {proxy.host}/app:s" in done.stderr
    assert server.get("app", "s") == staging
    assert set(server.images("app", "1")) == {AMD64, ARM64}


def test_a_staging_tag_that_was_pushed_again_stays_however_often_the_merge_began_anew(server, repository, here):
    """Both tags are pushed while a merge is under way: the second attempt looks at the staging tag too."""
    server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [ARM64], text="new")
    merged, pushed = server.images(repository, "s")[ARM64], []

    def push(_n, head):
        if not pushed and b"/manifests/slipway.record." in head.partition(b"\r\n")[0] and head.startswith(b"PUT "):
            pushed.append(server.push_index(repository, "1", [AMD64, ARM64], text="pushed"))
            pushed.append(server.push_index(repository, "s", [ARM64], text="pushed"))
        return head

    with Proxy(target=server.host, before=push) as proxy:
        name = f"{proxy.host}/{repository}"
        code, _, said = here("merge", f"{name}:1", "--from", f"{name}:s")

    again = server.images(repository, pushed[1])[ARM64]
    assert (code, "it was pushed again since it was merged" in said) == (3, True), said
    assert (server.images(repository, "1")[ARM64], server.images(repository, "s")[ARM64]) == (merged, again)


@pytest.fixture(params=["its repository", "another repository"])
def order(request, server, repository):
    """Make a tag of two platforms and a staging tag, there or elsewhere; where they are, and what the tag is to have."""

    def order(number):
        target = f"{repository}-{number}"
        source = target if request.param == "its repository" else f"{target}/ci"
        server.push_index(target, "1", [AMD64, ARM64])
        server.push_index(source, "s", [ARM64], text="new")
        wanted = {AMD64: server.images(target, "1")[AMD64], ARM64: server.images(source, "s")[ARM64]}
        return target, source, wanted

    return order


def _merge(host, target, source):
    return "merge", f"{host}/{target}:1", "--from", f"{host}/{source}:s"


def _requests(server, here, order):
    """Tell how many requests such a merge has; a mount is none where all is in one repository."""
    target, source, _ = order("count")
    with Proxy(target=server.host) as proxy:
        assert here(*_merge(proxy.host, target, source))[0] == 0
        mounts = [each for each in proxy.requests if each.startswith("POST ")]
        assert bool(mounts) is (target != source)
        return len(proxy.requests)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_cut_at_any_request_loses_nothing(server, here, order, moment):
    """Each request in turn never arrives, or its answer never does: the tag stays whole, and one more run converges."""
    for number in range(1, _requests(server, here, order) + 1):
        target, source, wanted = order(number)

        def cut(n, data, number=number):
            if n == number:
                raise Cut
            return data

        with Proxy(target=server.host, **{moment: cut}) as proxy:
            code, _, said = here(*_merge(proxy.host, target, source))
            assert code in {0, 3} or said.count("error: ") == 1, (number, said)
            assert _whole(server, target, "1")[AMD64] == wanted[AMD64]
            assert here(*_merge(proxy.host, target, source))[0] == 0

        assert _whole(server, target, "1") == wanted, number
        assert server.get(source, "s") is None


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_merge_killed_at_any_request_is_finished_by_the_next(server, here, order, tmp_path, moment):
    """A real SIGKILL to a real process, when the proxy sees each request in turn."""
    for number in range(1, _requests(server, here, order) + 1):
        target, source, wanted = order(number)
        running = []

        def kill(n, data, number=number, running=running):
            if n == number:
                running[0].send_signal(signal.SIGKILL)
            return data

        with Proxy(target=server.host, **{moment: kill}) as proxy:
            process = subprocess.Popen(
                [sys.executable, "-c", "import sys; sys.stdin.read(1); from scripts.registry.cli import main; sys.exit(main())",
                 *_merge(proxy.host, target, source)],
                cwd=ROOT, env={**os.environ, "DOCKER_CONFIG": str(tmp_path)}, stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            running.append(process)
            process.communicate(b"x", timeout=30)
            assert process.returncode == -signal.SIGKILL, number
            assert _whole(server, target, "1")[AMD64] == wanted[AMD64]
            assert here(*_merge(server.host, target, source))[0] == 0

        assert _whole(server, target, "1") == wanted, number
        assert server.get(source, "s") is None


@pytest.mark.parametrize("version", SERVERS)
def test_a_proxy_that_drops_the_accept_header_is_noticed(new_registry, here, version):
    """Registry 2.8 says 404 to an OCI index then, and both send the amd64 image of a Docker list: neither is obeyed."""
    server = new_registry(version)
    server.push_index("app", "oci", [AMD64, ARM64])
    server.push_index("app", "docker", [AMD64, ARM64], docker=True)
    new = server.push_image("app", ARM64, text="new", docker=True)
    before = {tag: server.get("app", tag) for tag in ("oci", "docker")}

    def strip(_n, head):
        return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"accept:"))

    def keep_last(_n, head):
        lines = head.split(b"\r\n")
        return b"\r\n".join(
            b"Accept: " + line.split(b", ")[-1] if line.startswith(b"Accept:") else line for line in lines
        )

    noticed = ["oci", "docker"] if version == "2.8" else ["docker"]  # 3.x sends an OCI index to everybody
    for hook in (strip, keep_last):
        with Proxy(target=server.host, before=hook) as proxy:
            for target in noticed:
                code, shown, said = here(
                    "merge", f"{proxy.host}/app:{target}", "--from", f"{proxy.host}/app@{new['digest']}"
                )
                assert (code, shown) == (1, "")
                assert "Accept header" in said

    assert {tag: server.get("app", tag) for tag in ("oci", "docker")} == before


@pytest.fixture
def merge_at_once(server, repository, slipway):
    """Merge one image for each of some platforms into one tag, all at once, and count what became of them."""

    def run(wanted):
        server.push_index(repository, "1", [AMD64, ARM64])
        images = [server.push_image(repository, each, text=f"w{n}")["digest"] for n, each in enumerate(wanted)]

        def write(image):
            source = server.name(repository, image)
            done = slipway("merge", server.name(repository, "1"), "--from", source, "--format", "json", check=False)
            assert done.returncode in {0, 4}, done.stderr
            return Writer(image=image, exit_code=done.returncode, told=json.loads(done.stdout))

        with ThreadPoolExecutor(len(images)) as pool:
            writers = list(pool.map(write, images))
        return account(writers, _whole(server, repository, "1"))

    return run


@pytest.mark.parametrize(("wanted", "kept"), [((AMD64, ARM64), 2), ((AMD64, AMD64), 1)], ids=["two platforms", "one"])
def test_two_writers_at_once_are_in_the_tag_or_told(merge_at_once, wanted, kept):
    """Each acknowledged digest is there in the end, or was reported superseded."""
    counts = merge_at_once(wanted)

    assert (counts["acknowledged"], counts["in the tag"], counts["lost"]) == (2, kept, 0)


def test_of_many_writers_at_once_each_platform_has_one_that_was_acknowledged(merge_at_once):
    """Six for each of two platforms; that one of six gave way need not be told (docs/merge.md), and no platform goes back."""
    counts = merge_at_once([AMD64, ARM64] * 6)

    assert (counts["acknowledged"], counts["in the tag"], counts["platforms"]) == (12, 2, 2)


def _index(entries):
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def _digest(server, repository, tag):
    headers = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}"}
    return server.request("HEAD", f"{repository}/manifests/{tag}", headers=headers).headers["docker-content-digest"]
