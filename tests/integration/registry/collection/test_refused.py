"""What goes wrong in the middle of a collection: it ends with a name for it, and nothing that is in use is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time

import pytest

from scripts.benchmarks import registries
from scripts.benchmarks.registries import Supervised
from scripts.registry import mode
from scripts.registry.collection import reading
from scripts.registry.collection.places import ThisHost
from scripts.registry.collection.plan import Rules, plan

AMD64, ARM64 = "linux/amd64", "linux/arm64"
DAY = 86400

LIAR = """\
#!/bin/bash
# A registry whose collection does as $LIE says.
if [ "$1" = serve ]; then exec -a "$0" docker-registry "$@"; fi
[ -z "$WAIT" ] || exec sleep "$WAIT"
[ -z "$FAIL" ] || { echo "$FAIL" >&2; exit 1; }
docker-registry "$@" | sed "$LIE"
"""


@pytest.fixture
def liar(tmp_path, monkeypatch, storage):
    """A registry of two images, one of them garbage, whose program is told what to say; started by the test."""
    if not shutil.which("docker-registry"):
        pytest.skip("this host lacks registry 2.8 (run scripts/setup)")
    program = tmp_path / "registry-that-lies"
    program.write_text(LIAR)
    program.chmod(0o755)
    monkeypatch.setitem(registries.SERVERS, "2.8", str(program))
    registry = Supervised(version="2.8", home=tmp_path / "registry", entrypoint=mode.ENTRYPOINT)
    registry.start(LIE="")
    registry.push_index("app", "1", [AMD64, ARM64], text="old")
    registry.push_index("app", "1", [AMD64, ARM64], text="new")
    registry.files = storage(registry)
    registry.files.age(30 * DAY)
    registry.stop()
    yield registry
    registry.stop()


def _links(registry):
    return {str(path) for path in registry.files.folder.glob("repositories/**/_manifests/revisions/**/link")}


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("s/^blob eligible for deletion: .*/blob eligible for deletion: {live}/;t done;b;:done", "did not say"),
        ("0,/^blob eligible for deletion: .*/s//blob eligible for deletion: {live}/", "delete what is in use"),
        ("s/ 0 manifests eligible/ 1 manifests eligible/;1i manifest eligible for deletion: {live}", "untag by itself"),
        ("/marked,/d", "did not say"),
    ],
)
def test_a_collection_that_would_take_anything_else_is_stopped(liar, collect, lie, said):
    """What it says it would delete is compared with the plan; the links are written back, and writes are taken."""
    live = (liar.files.tag("app", "1") / "current/link").read_text()
    liar.start(LIE=lie.format(live=live))
    before = _links(liar), liar.files.blobs()

    done = collect(liar, "--no-backup", check=False)

    assert done.returncode == 1
    assert said in done.stderr
    assert "restoring the registry" in done.stderr
    assert (_links(liar), liar.files.blobs()) == before
    assert liar.request("POST", "app/blobs/uploads/").status_code == 202


def test_a_collection_that_fails_is_told(liar, collect):
    """With the last line of what it said; the links that were taken away for it are written back."""
    liar.start(LIE="", FAIL="failed to garbage collect: input/output error")
    before = _links(liar), liar.files.blobs()

    done = collect(liar, "--no-backup", check=False)

    assert done.returncode == 1
    assert "the registry's garbage-collect failed (failed to garbage collect: input/output error)" in done.stderr
    assert (_links(liar), liar.files.blobs()) == before
    assert liar.request("POST", "app/blobs/uploads/").status_code == 202


def test_a_collection_that_takes_too_long_is_ended(liar, collect):
    """In time for the registry to be writable again before the mode's expiry."""
    liar.start(LIE="", WAIT="60")

    done = collect(liar, "--no-backup", "--stop-limit", "20s", check=False)

    assert done.returncode == 1
    assert "garbage-collect failed (it did not end within --stop-limit)" in done.stderr
    assert liar.request("POST", "app/blobs/uploads/").status_code == 202


@pytest.mark.root
def test_a_full_disk_keeps_no_backup_and_is_emptied_all_the_same(tmp_path, collect, storage):
    """The run says what it could not back up; what nothing needs is freed, which is what a full disk waits for."""
    if os.geteuid() or not shutil.which("docker-registry"):
        pytest.skip("needs root and registry 2.8")
    (tmp_path / "registry/storage").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path / "registry/storage"], check=True)
    registry = Supervised(version="2.8", home=tmp_path / "registry", entrypoint=mode.ENTRYPOINT)
    try:
        registry.start()
        for text in ("old", "new"):
            registry.push_index("app", "1", [AMD64, ARM64], text=text)
        storage(registry).age(30 * DAY)
        filler = tmp_path / "registry/storage/filler"
        filled = subprocess.run(["cp", "/dev/zero", filler], capture_output=True, text=True, check=False)
        assert "No space left" in filled.stderr

        done = collect(registry)

        assert "no backups were taken: 0 B are free on the registry's disk" in done.stderr
        assert "freed" in done.stdout
        filler.unlink()
        assert registry.get("app", "1")
    finally:
        registry.stop()
        subprocess.run(["umount", tmp_path / "registry/storage"], check=True)


def test_ages_are_told_by_the_clock_of_the_place(server, storage, tmp_path):
    """A job whose clock is wrong keeps and takes the same as any other."""
    repository = "clock/app"
    server.push_image(repository, AMD64, tag="1")
    server.push_image(repository, AMD64, text="by digest")
    folder = storage(server).folder
    (tmp_path / "bin").mkdir()
    date = tmp_path / "bin/date"
    date.write_text(f"#!/bin/sh\necho {int(time.time()) + 2 * DAY}\n")
    date.chmod(0o755)
    there = ThisHost(folder=folder, shell=("/usr/bin/env", f"PATH={tmp_path / 'bin'}:{os.environ['PATH']}", "sh"))

    def planned(place):
        return [name for name, _ in plan(reading.read(place), Rules(grace_s=DAY)).unlink if name == repository]

    assert planned(ThisHost(folder=folder)) == []
    assert planned(there) == [repository]


def test_a_name_that_does_not_lead_to_the_registry_is_told_before_writes_are_stopped(kept, kept_files, slipway):
    """A wrong host, authority or login ends the run while the registry serves as ever."""
    kept.push_index("app", "1", [AMD64], text="old")
    kept.push_index("app", "1", [AMD64], text="new")
    kept_files.age(30 * DAY)

    done = slipway("gc", "127.0.0.1:1", "--mode-file", kept.mode_file, "--now", "--no-backup", check=False)

    assert done.returncode == 1
    assert "127.0.0.1:1: no answer" in done.stderr
    assert "rolling" not in done.stderr


def test_a_copy_by_hand_is_not_taken_for_what_it_is_a_copy_of(kept, kept_files, collect):
    """A folder `app copy` ends the registry's own collection, and must not cost the repository `app` anything."""
    kept.push_index("app", "1", [AMD64, ARM64], text="old")
    index = kept.push_index("app", "1", [AMD64, ARM64], text="new")
    shutil.copytree(kept_files.repository("app"), kept_files.repository("app copy"))
    kept_files.age(30 * DAY)

    done = collect(kept, "--no-backup", check=False)

    assert done.returncode == 1
    assert "repositories/app copy: its name is not a repository's name" in done.stderr
    assert "mv 'repositories/app copy' ../../.." in done.stderr
    assert kept.get("app", "1") == kept.get("app", index) is not None


def test_an_upload_that_was_only_begun_is_no_damage(kept, kept_files, collect):
    """A repository that has nothing but an upload; neither this collection nor the registry's own minds it."""
    kept.push_index("app", "1", [AMD64, ARM64], text="old")
    kept.push_index("app", "1", [AMD64, ARM64], text="new")
    kept_files.age(30 * DAY)
    kept.request("POST", "begun/blobs/uploads/").raise_for_status()

    done = json.loads(collect(kept, "--format", "json").stdout)

    assert done["freed"]["blobs"] > 3


@pytest.mark.parametrize("name", ["slipway-hold", "slipway-hold/app"])
def test_a_repository_of_somebody_s_that_has_the_collection_s_name_stops_it(kept, kept_files, collect, slipway, name):
    """It would be removed; the registry takes writes all the time, and the name that is told is free again when renamed."""
    kept.push_index("app", "1", [AMD64, ARM64], text="old")
    kept.push_index("app", "1", [AMD64, ARM64], text="new")
    kept.push_image(name, AMD64, tag="mine", text="mine")
    kept_files.age(30 * DAY)
    before = kept_files.blobs(), kept.process

    for options in ((), ("--dry-run",)):
        done = collect(kept, *options, check=False)

        assert done.returncode == 1
        assert "error: somebody has the repository slipway-hold, whose name the collection needs" in done.stderr
        assert "rolling" not in done.stderr
    assert (kept_files.blobs(), kept.process) == before
    slipway("verify", "--deep", kept.name(name, "mine"))
    kept_files.repository("slipway-hold").rename(kept_files.repository("mine"))
    collect(kept)
    assert kept_files.blobs() != before[0]
    slipway("verify", "--deep", kept.name(name.replace("slipway-hold", "mine"), "mine"))
