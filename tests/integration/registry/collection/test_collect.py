"""`slipway gc` on real registries that a supervisor keeps running: what it frees, what it keeps, and that writes come back."""

from __future__ import annotations

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts.benchmarks.registries import OCI_INDEX, OCI_MANIFEST, digest_of
from scripts.registry import mode
from scripts.registry.collection.keepers import ModeFile
from scripts.registry.errors import VerificationFailed

AMD64, ARM64 = "linux/amd64", "linux/arm64"
DAY = 86400


@pytest.fixture(autouse=True)
def images(kept, kept_files):
    """A tag of two platforms that was written twice, a month ago; and an image that never had a tag."""
    kept.push_index("team/app", "1", [AMD64, ARM64], attest=True)
    kept.push_index("team/app", "1", [AMD64, ARM64], attest=True, text="new")
    kept.push_image("other", ARM64, text="by digest")
    kept.push_image("other", AMD64, tag="latest")
    kept_files.age(30 * DAY)


def _writable(registry):
    return registry.request("POST", "team/app/blobs/uploads/").status_code == 202


def test_it_frees_what_nothing_needs_and_all_else_stays(kept, kept_files, collect, slipway):
    """Then there is nothing more to free, and every tag can be pulled whole."""
    before, tag = kept_files.blobs(), kept.get("team/app", "1")

    planned = json.loads(collect(kept, "--dry-run", "--format", "json").stdout)["planned"]
    assert kept_files.blobs() == before
    done = json.loads(collect(kept, "--format", "json").stdout)

    assert planned["blobs"] == done["freed"]["blobs"] == len(before - kept_files.blobs()) > 8
    assert done["freed"]["bytes"] == planned["bytes"] > 1000
    assert done["tagsVerified"] > 1
    assert set(done["stopped"]["parts"]) == {"roll", "mark", "unlink", "gate", "sweep", "back"}
    assert kept.get("team/app", "1") == tag
    slipway("verify", "--deep", kept.name("team/app", "1"), kept.name("other", "latest"))
    assert _writable(kept)
    assert not kept.mode_file.exists()
    assert "nothing to collect; writes were not stopped" in collect(kept).stdout


def test_a_platform_that_a_push_took_away_stays_and_is_restored(kept, kept_files, collect, slipway):
    """A naive push of amd64 ten minutes ago, before anybody took a backup."""
    arm64 = kept.images("team/app", "1")[ARM64]
    kept.push_image("team/app", AMD64, tag="1", text="naive")
    kept_files.age(600)

    collect(kept)
    slipway("restore", kept.name("team/app", "1"))

    assert kept.images("team/app", "1")[ARM64] == arm64
    slipway("verify", "--deep", kept.name("team/app", "1"))


def test_what_was_swept_can_be_pushed_again(kept, collect, slipway):
    """The registry does not remember blobs that are gone."""
    collect(kept)

    kept.push_index("team/app", "again", [AMD64, ARM64], attest=True)

    slipway("verify", "--deep", kept.name("team/app", "again"))


def test_layers_without_a_manifest_stay_while_they_are_young(kept, kept_files, collect):
    """They are of a push that goes on: its manifest can be written after the collection."""
    blob = kept.push_blob("team/app", b"a layer of a slow push")

    collect(kept)

    assert blob["digest"] in kept_files.blobs()
    assert not kept_files.repository("slipway-hold").exists()
    kept_files.age(2 * DAY)
    collect(kept)
    assert blob["digest"] not in kept_files.blobs()


def test_retention_takes_tags_away(kept, kept_files, collect):
    """Those that no rule keeps, with the reason; the others stay."""
    for number in range(4):
        kept.push_image("many", AMD64, tag=f"v{number}", text=str(number))
        kept_files.age(2 * DAY)

    done = collect(kept, "--keep-last", "2", "--keep-matching", "v0|1|latest", "--no-backup", "--format", "json")

    assert kept.tags("many") == {"v0", "v2", "v3"}
    assert json.loads(done.stdout)["planned"]["tags"] == {"many:v1": "written 6 days ago, and no rule keeps it"}
    assert kept.tags("team/app") == {"1"}


def test_signatures_go_with_their_image(kept, kept_files, collect):
    """A referrer that names its subject, under its fallback tag, and cosign's tag: of the tag that goes, and no other's."""
    names = []
    for number in range(2):
        image = kept.push_image("signed", AMD64, tag=f"v{number}", text=str(number))
        tag = image["digest"].replace(":", "-")
        kept.push_image("signed", AMD64, tag=f"{tag}.sig", text=f"cosign {number}")
        config = {"mediaType": "application/vnd.oci.empty.v1+json", **kept.push_blob("signed", b"{}")}
        value = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [], "subject": image}
        body = json.dumps(value).encode()
        kept.put("signed", "", body, OCI_MANIFEST)
        referrer = {"mediaType": OCI_MANIFEST, "digest": digest_of(body), "size": len(body)}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [referrer]}
        kept.put("signed", tag, json.dumps(index).encode(), OCI_INDEX)
        names.append({f"v{number}", tag, f"{tag}.sig"})
        kept_files.age(2 * DAY)

    collect(kept, "--keep-last", "1", "--no-backup")

    assert kept.tags("signed") == names[1]
    revisions = {
        path.parent.name for path in kept_files.repository("signed").glob("_manifests/revisions/sha256/*/link")
    }
    assert len(revisions) == 4


def test_what_was_never_pushed_to_the_end_or_never_tagged_stays(kept, kept_files, collect):
    """Neither keeps the rest from being collected; the report says what is left, and what gives it up."""
    layer = kept.push_blob("typo", b"a layer, and then ^C")["digest"]
    image = kept.push_image("bydigest", AMD64, text="by digest")["digest"]
    kept_files.age(30 * DAY)

    planned = collect(kept, "--dry-run")
    done = collect(kept, "--format", "json")

    notes = json.loads(done.stdout)["notes"]
    folder = f"(in {kept_files.folder})"
    assert [note for note in notes if folder in note] == [
        "bydigest: it has manifests and no tags, as of pushes by digest alone; all of it stays; "
        f"if nothing of it is in use: rm -r repositories/bydigest {folder}",
        "typo: it has layers and no _manifests, as of a first push that was given up; its layers stay, and what no repository has; "
        f"if nothing of it is in use: rm -r repositories/typo {folder}",
    ]
    assert all(note in planned.stderr for note in notes if folder in note)
    assert json.loads(done.stdout)["freed"]["blobs"] > 8
    assert layer in kept_files.blobs()
    assert kept.get("bydigest", image)
    kept_files.age(30 * DAY)
    assert "nothing to collect" in collect(kept).stdout


def test_an_artifact_without_layers_is_nothing_special(kept, kept_files, collect):
    """Go writes an empty slice as null, and registries take it so."""
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **kept.push_blob("artifact", b"{}")}
    for tag, media_type, members in (
        ("image", OCI_MANIFEST, {"config": config, "layers": None}),
        ("index", OCI_INDEX, {"manifests": None}),
    ):
        body = json.dumps({"schemaVersion": 2, "mediaType": media_type, **members}).encode()
        kept.put("artifact", tag, body, media_type)
    kept_files.age(2 * DAY)

    done = json.loads(collect(kept, "--format", "json").stdout)

    assert done["freed"]["blobs"] > 8
    assert config["digest"] in kept_files.blobs()
    assert kept.get("artifact", "index")


def test_listed_digests_stay(kept, collect, tmp_path):
    """As cluster workloads that run by digest need them."""
    image = kept.push_image("other", ARM64, text="by digest")
    (tmp_path / "list").write_text(f"# in use\n{kept.host}/other@{image['digest']}\n")

    collect(kept, "--grace", "0s", "--keep-list", tmp_path / "list")

    assert kept.get("other", image["digest"])


def test_a_tag_that_a_client_removes_before_it_is_verified_is_not_missed(kept, collect_with):
    """As waiting merges remove their staging tags when writes are taken again."""
    staged = kept.push_image("other", AMD64, tag="staged", text="staged")

    def remove():
        assert kept.request("DELETE", f"other/manifests/{staged['digest']}").status_code == 202

    found = collect_with(kept, "verifying 3 tags", remove)

    assert kept.tags("other") == {"latest"}
    assert found.blobs_freed
    assert found.tags_verified == 2


def test_a_tag_that_cannot_be_read_though_the_storage_has_it_is_told(kept, kept_files, collect_with):
    """It names a manifest that is not there."""
    digest = (kept_files.tag("other", "latest") / "current/link").read_text()

    with pytest.raises(
        VerificationFailed, match=r"1 tags cannot be read after the collection: .*/other:latest: not found"
    ):
        collect_with(kept, "verifying", (kept_files.revision("other", digest) / "link").unlink)


def test_a_blob_in_use_that_is_gone_is_told_though_every_tag_can_be_read(kept, kept_files, collect_with):
    """A tag's answer is its manifest's alone; by then writes are taken again."""
    digest = json.loads(kept.get("other", "latest"))["config"]["digest"]

    with pytest.raises(VerificationFailed, match=f"^1 blobs that are in use are gone: {digest}$"):
        collect_with(kept, "rolling the registry back", kept_files.blob(digest).unlink)

    assert kept.get("other", "latest")
    assert _writable(kept)


@pytest.mark.parametrize("kept", ["2.8"], indirect=True)
def test_a_manifest_of_schema_1_is_verified_by_what_the_registry_tells_of_it(kept, kept_files, collect):
    """What 2.8 sends has signatures that the digest does not cover."""
    layer = kept.push_blob("old", b"layer")
    history = [{"v1Compatibility": json.dumps({"id": "a" * 64})}]
    value = {
        "schemaVersion": 1, "name": "old", "tag": "1", "architecture": "amd64",
        "fsLayers": [{"blobSum": layer["digest"]}], "history": history,
    }  # fmt: skip
    body = json.dumps(value, indent=3).encode()
    digest = digest_of(body)
    kept_files.blob(digest).parent.mkdir(parents=True)
    kept_files.blob(digest).write_bytes(body)
    for folder in (kept_files.revision("old", digest), kept_files.tag("old", "1") / "current"):
        folder.mkdir(parents=True)
        (folder / "link").write_text(digest)
    kept_files.age(30 * DAY)

    done = json.loads(collect(kept, "--no-backup", "--format", "json").stdout)

    assert done["tagsVerified"] == 3
    assert kept.request("GET", "old/manifests/1").headers["docker-content-digest"] == digest


def test_damage_stops_it_before_anything_is_done(kept, kept_files, collect):
    """Each finding with its repair; the registry takes writes all the time."""
    (kept_files.tag("team/app", "1") / "current/link").write_text("")
    before, process = kept_files.blobs(), kept.process

    done = collect(kept, check=False)

    assert done.returncode == 1
    assert "error: team/app:1: its link is empty; what it named would count as untagged" in done.stderr
    assert "printf sha256:" in done.stderr
    assert kept_files.blobs() == before
    assert kept.process is process
    assert _writable(kept)


@pytest.mark.parametrize("read_only", [False, True])
def test_what_a_push_leaves_for_a_moment_is_no_damage(kept, kept_files, collect, read_only):
    """Each reading finds a tag whose link is not written yet, as beside pushes to 2.8, and each time another.

    So it is beside a collection of somebody else's, who has stopped the writes and takes links away.
    """
    for number in range(30):
        kept.push_image("other", AMD64, tag=f"push-{number}")
    links = [kept_files.tag("other", f"push-{number}") / "current/link" for number in range(30)]
    if read_only:
        ModeFile(kept.mode_file).roll(mode.read_only(int(time.time()) + 60))
    collected = threading.Event()

    def push():
        written = links[0].read_text()
        for before, link in itertools.pairwise(itertools.cycle(links)):
            link.write_text("")
            collected.wait(0.1)
            before.write_text(written)  # only now, or a reading could pass between the two
            collected.wait(0.1)
            if collected.is_set():
                link.write_text(written)
                return

    with ThreadPoolExecutor() as client:
        pushing = client.submit(push)
        try:
            said = collect(kept, "--dry-run").stderr
        finally:
            collected.set()
    pushing.result()

    assert "reading it again, as a push may be going on (other:push-" in said


def test_too_large_a_share_stops_it(kept, kept_files, collect):
    """A rule that would empty the registry is not obeyed by default."""
    before = kept_files.blobs()

    done = collect(kept, "--max-share", "10", check=False)

    assert done.returncode == 1
    assert "of all blobs, more than 10%" in done.stderr
    assert kept_files.blobs() == before


def test_deletion_by_the_api_need_not_be_on(kept, kept_files, collect):
    """Links are removed in the registry's own files; the report says what was found."""
    config = (kept.home / "config.yml").read_text()
    kept.stop()
    kept.delete = False
    kept.start()
    before = kept_files.blobs()

    done = collect(kept)

    assert "the registry's API deletes nothing" in done.stderr
    assert "enabled: true" in config
    assert kept_files.blobs() < before


def test_a_second_collection_is_turned_away(kept, collect):
    """While the first one holds the lock."""
    import fcntl

    with (kept.home / "mode.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = collect(kept, check=False)

    assert done.returncode == 1
    assert "mode: another collection is at work\n" in done.stderr
    assert "hint: let that one end, then run this\n" in done.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"cache": {"blobdescriptor": "redis"}}, "remembers blobs in Redis"),
        ({"inmemory": None, "cache": None}, "stores in inmemory, not in files"),
    ],
)
def test_storage_that_is_not_for_it_is_refused(setting, said):
    """Before anything is read: Redis would go on to tell of blobs that are gone, and other drivers have no files."""
    from scripts.registry.collection.server import Server
    from scripts.registry.errors import CollectionStopped

    server = Server(
        pid="1", now=0, arguments=("registry", "serve", "f"), environment={}, configuration={"storage": setting}
    )

    with pytest.raises(CollectionStopped, match=said):
        server.check()
