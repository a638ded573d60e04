"""inspect, verify, backup, restore, untag, and logins, against real registries; and the one-file program."""

import base64
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import bcrypt
import pytest

from scripts.benchmarks.proxy import Cut, Proxy
from scripts.benchmarks.registries import OCI_INDEX, OCI_MANIFEST, digest_of
from scripts.registry import archive

AMD64, ARM64 = "linux/amd64", "linux/arm64"


def test_inspect_shows_each_platform(server, repository, slipway):
    """Platform, digest, size, time and attestations, as a table and as JSON."""
    server.push_index(repository, "1", [AMD64, ARM64], attest=True)

    table = slipway("inspect", server.name(repository, "1")).stdout
    found = json.loads(slipway("inspect", server.name(repository, "1"), "--format", "json").stdout)

    assert "PLATFORM" in table
    assert "2026-11-24 08:00:00" in table
    assert [each["platform"] for each in found["platforms"]] == [AMD64, ARM64]
    assert [each["attestations"] for each in found["platforms"]] == [1, 1]
    assert found["findings"] == []


def test_an_index_of_very_many_platforms_is_shown(server, repository, here):
    """Whoever made it, in a time that grows as it does."""
    image = server.push_image(repository, AMD64)
    many = [image | {"platform": {"os": "linux", "architecture": "arm", "variant": f"v{n}"}} for n in range(700)]
    twice = [*many, image, image]
    server.put(
        repository,
        "1",
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": twice}).encode(),
        OCI_INDEX,
    )

    code, shown, said = here("inspect", server.name(repository, "1"))

    assert (code, shown.count("linux/arm/v")) == (0, 700)
    assert "linux/amd64 is there 2 times" in said


def test_verify_tells_what_cannot_be_read(new_registry, slipway):
    """A layer that is gone answers HEAD from the registry's cache; its first byte is what tells."""
    server = new_registry("2.8")
    server.push_index("app", "1", [AMD64, ARM64])
    image = json.loads(server.get("app", server.images("app", "1")[ARM64][0]))
    digest = image["layers"][0]["digest"].removeprefix("sha256:")
    (server.home / "storage/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data").unlink()

    shallow = slipway("verify", server.name("app", "1"))
    deep = slipway("verify", "--deep", server.name("app", "1"), check=False)

    assert "whole" in shallow.stdout
    assert deep.returncode == 1
    assert f"layer sha256:{digest[:12]}" in deep.stderr


def test_verify_tells_an_image_that_is_not_there(server, repository, slipway):
    """The index answers, its child does not: exit code 1, and which."""
    server.push_index(repository, "1", [AMD64, ARM64])
    (digest,) = server.images(repository, "1")[ARM64]
    server.request("DELETE", f"{repository}/manifests/{digest}")

    done = slipway("verify", server.name(repository, "1"), check=False)

    assert done.returncode == 1
    assert f"linux/arm64 {digest[:19]}… is not in the registry" in done.stderr


def test_verify_sees_a_merge_that_was_overwritten(server, repository, slipway):
    """A tag that names again what a merge replaced: what is lost, and the command that brings it back."""
    server.push_index(repository, "1", [AMD64, ARM64])
    old = server.get(repository, "1")
    new = server.push_image(repository, ARM64, text="new")
    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, new["digest"]))
    server.put(repository, "1", old, "application/vnd.oci.image.index.v1+json")

    done = slipway("verify", server.name(repository, "1"), check=False)
    cure = next(line for line in done.stderr.splitlines() if line.startswith("hint: slipway "))
    slipway(*cure.split()[2:])

    assert done.returncode == 1
    assert "linux/arm64 was merged as" in done.stderr
    assert server.images(repository, "1")[ARM64] == [new["digest"]]
    assert slipway("verify", server.name(repository, "1")).returncode == 0


def test_restore_brings_back_what_a_naive_push_took(server, repository, slipway):
    """The new amd64 stays, and arm64 is there again."""
    server.push_index(repository, "1", [AMD64, ARM64], attest=True)
    arm64 = server.images(repository, "1")[ARM64]
    slipway("backup", server.name(repository, "1").rsplit(":", 1)[0])
    image = server.push_image(repository, AMD64, tag="1", text="naive")

    slipway("restore", server.name(repository, "1"))

    assert server.images(repository, "1") == {AMD64: [image["digest"]], ARM64: arm64}
    assert "whole" in slipway("verify", "--deep", server.name(repository, "1")).stdout


def test_restore_passes_over_what_is_odd_beside_the_lost_platform(server, repository, slipway):
    """A part without a platform, an index in the index, another platform twice: of the backup, arm64 is whole."""
    image, twice = (server.push_image(repository, AMD64, text=text) for text in ("a", "b"))
    lost = server.push_image(repository, ARM64)
    unnamed = {key: value for key, value in server.push_image(repository, AMD64, text="c").items() if key != "platform"}
    inner = server.push_index(repository, "", [AMD64], text="d")
    nested = {"mediaType": OCI_INDEX, "digest": inner, "size": len(server.get(repository, inner))}
    parts = [image, unnamed, nested, twice, lost]
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": parts}).encode()
    server.put(repository, "1", body, OCI_INDEX)
    slipway("backup", server.name(repository, "1"))
    naive = server.push_image(repository, AMD64, tag="1", text="naive")

    slipway("restore", server.name(repository, "1"))

    assert server.images(repository, "1") == {AMD64: [naive["digest"]], ARM64: [lost["digest"]]}


def test_a_backup_is_restored_to_the_byte(server, repository, slipway):
    """Also after the tag moved on by a merge; verify then takes nothing for lost."""
    server.push_index(repository, "1", [AMD64, ARM64])
    old = server.get(repository, "1")
    new = server.push_image(repository, ARM64, text="new")
    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, new["digest"]))
    (backup,) = json.loads(slipway("backups", server.name(repository, "1"), "--format", "json").stdout)

    slipway("restore", server.name(repository, "1"), backup["backup"].rsplit(":", 1)[1])

    assert server.get(repository, "1") == old
    assert slipway("verify", server.name(repository, "1")).returncode == 0


def test_a_merge_that_was_undone_stays_undone(server, repository, here):
    """A platform that it had added is not lost for verify, and the next merge does not bring it back."""
    name = server.name(repository, "1")
    server.push_index(repository, "1", [AMD64])
    old = server.get(repository, "1")
    added, new = (server.push_image(repository, each, text="new")["digest"] for each in (ARM64, AMD64))
    told = json.loads(here("merge", name, "--from", server.name(repository, added), "--format", "json")[1])

    code, _, said = here("restore", name, told["backup"].rsplit(":", 1)[1])
    restored, whole = server.get(repository, "1"), here("verify", name)
    merged = here("merge", name, "--from", server.name(repository, new))

    assert (code, restored) == (0, old), said
    assert whole[0] == 0, whole
    assert merged[0] == 0, merged
    assert server.images(repository, "1") == {AMD64: [new]}


def test_a_restore_tells_of_a_merge_that_it_undid(server, repository, here, slipway):
    """One that ran from its records to its write: run again, the tag is whole and the backup's."""
    name = server.name(repository, "1")
    server.push_index(repository, "1", [AMD64])
    old = server.get(repository, "1")
    (backup,) = here("backup", name)[1].split()
    added = server.push_image(repository, ARM64)["digest"]
    merged = []

    def merge(_n, head):
        if not merged and head.startswith(f"PUT /v2/{repository}/manifests/1 ".encode()):
            merged.append(slipway("merge", name, "--from", server.name(repository, added)).returncode)
        return head

    with Proxy(target=server.host, before=merge) as proxy:
        beside = here("restore", f"{proxy.host}/{repository}:1", backup.rsplit(":", 1)[1])
    again = here("restore", name, backup.rsplit(":", 1)[1])

    assert merged == [0]
    assert (beside[0], "somebody merged into it in the same moment" in beside[2]) == (1, True), beside
    assert again[0] == 0, again
    assert server.get(repository, "1") == old
    assert here("verify", name)[0] == 0


def test_a_backup_with_a_part_that_is_gone_is_not_restored(server, repository, here):
    """It says which, before it writes anything."""
    name = server.name(repository, "1")
    server.push_index(repository, "1", [AMD64, ARM64])
    (arm64,) = server.images(repository, "1")[ARM64]
    (backup,) = here("backup", name)[1].split()
    server.push_index(repository, "1", [AMD64, ARM64], text="later")
    server.request("DELETE", f"{repository}/manifests/{arm64}")
    before = server.get(repository, "1"), server.tags(repository)

    code, shown, said = here("restore", name, backup.rsplit(":", 1)[1])

    assert (code, shown) == (1, "")
    assert f"linux/arm64 {arm64[:19]}… is not in the registry; nothing was written" in said
    assert f"hint: slipway backups {name} lists others" in said
    assert (server.get(repository, "1"), server.tags(repository)) == before


def test_a_backup_is_taken_only_when_the_tag_changed_and_old_ones_go(server, repository, slipway):
    """By count and by age; the newest stays whatever its age, and images that no backup needs lose their own tags."""
    name = server.name(repository, "1").rsplit(":", 1)[0]
    server.push_index(repository, "1", [AMD64, ARM64])
    first = slipway("backup", name)
    again = slipway("backup", name)
    old = datetime.now(UTC) - timedelta(days=200)
    server.push_index(repository, f"slipway.backup.1.{old:%Y%m%dT%H%M%SZ}.0123456789ab", [AMD64], text="old")

    rotated = json.loads(slipway("backup", name, "--format", "json").stdout)[name]

    assert first.stdout.count("slipway.backup.1.") == 1
    assert again.stdout == ""
    assert len(rotated["removed"]) == 1
    tags = server.tags(repository)
    assert sum(tag.startswith("slipway.backup.") for tag in tags) == 1
    assert sum(tag.startswith("slipway.image.") for tag in tags) == 2
    for (digest,) in server.images(repository, "1").values():
        assert server.get(repository, f"slipway.image.{digest.removeprefix('sha256:')[:40]}")


def test_backups_beyond_the_count_go_those_of_merges_too(server, repository, here):
    """The newest stay, and `backups` lists those."""
    name = server.name(repository, "1").rsplit(":", 1)[0]
    for text in ("a", "b", "c"):
        server.push_index(repository, "1", [AMD64, ARM64], text=text)
        taken = datetime.now(UTC) - timedelta(days=ord("z") - ord(text))
        body = server.get(repository, "1")
        server.put(repository, f"slipway.backup.1.{taken:%Y%m%dT%H%M%SZ}.{digest_of(body)[7:19]}", body, OCI_INDEX)
    new = server.push_image(repository, ARM64, text="new")
    assert here("merge", f"{name}:1", "--from", f"{name}@{new['digest']}")[0] == 0

    rotated = json.loads(here("backup", name, "--keep", "2", "--format", "json")[1])[name]
    listed = json.loads(here("backups", f"{name}:1", "--format", "json")[1])

    assert len(rotated["removed"]) == 3
    kept = {digest_of(body)[7:19], digest_of(server.get(repository, "1"))[7:19]}  # before the merge, and now
    assert {each["digest"] for each in listed} == kept
    assert {tag for tag in server.tags(repository) if tag.startswith("slipway.backup.")} == {
        each["backup"].rsplit(":", 1)[1] for each in listed
    }


def test_a_backup_of_one_tag_leaves_the_backups_of_others(server, repository, here):
    """However many and however old, and the images that they need keep their own tags."""
    for tag, text in (("1", "a"), ("1", "b"), ("1", "c"), ("dev", "d"), ("dev", "e")):
        server.push_index(repository, tag, [AMD64, ARM64], text=text)
        _back_up(server, repository, tag, days=ord("z") - ord(text))
    old = {tag for tag in server.tags(repository) if tag.startswith("slipway.backup.1.")}
    needed = {_image_tag(digest) for tag in (*old, "dev") for (digest,) in server.images(repository, tag).values()}

    code, shown, _ = here("backup", server.name(repository, "dev"), "--keep", "1", "--within", "1d", "--format", "json")

    ((gone,),) = (each["removed"] for each in json.loads(shown).values())
    tags = server.tags(repository)
    assert (code, "slipway.backup.dev." in gone) == (0, True)
    assert {tag for tag in tags if tag.startswith("slipway.backup.1.")} == old
    assert {tag for tag in tags if tag.startswith("slipway.image.")} == needed


def test_an_images_tag_whose_removal_was_cut_off_protects_nothing(new_registry, here):
    """On registry 2.8 it names an empty index by then, which says what it named; the next backup names the image again."""
    server, begun = new_registry("2.8"), []
    server.push_index("app", "1", [AMD64, ARM64])
    body, ((image,), _) = server.get("app", "1"), server.images("app", "1").values()
    _back_up(server, "app", "1", days=1)
    server.push_index("app", "1", [AMD64, ARM64], text="new")

    def cut(_n, head):
        if begun and head.startswith(b"DELETE /v2/app/manifests/sha256:"):
            raise Cut
        if head.startswith(f"PUT /v2/app/manifests/{_image_tag(image)} ".encode()):
            begun.append(True)
        return head

    with Proxy(target=server.host, before=cut) as proxy:
        code, _, _ = here("backup", f"{proxy.host}/app", "--keep", "1")
    cut_off = server.index("app", _image_tag(image))
    server.put("app", "1", body, OCI_INDEX)
    again = here("backup", f"{server.host}/app")[0]

    assert (code, again) == (1, 0)
    assert cut_off["annotations"]["dev.slipway.untagged"] == image
    assert digest_of(server.get("app", _image_tag(image))) == image


def _back_up(server, repository, tag, *, days):
    """Do what a backup did that long ago."""
    body, taken = server.get(repository, tag), datetime.now(UTC) - timedelta(days=days)
    server.put(repository, f"slipway.backup.{tag}.{taken:%Y%m%dT%H%M%SZ}.{digest_of(body)[7:19]}", body, OCI_INDEX)
    for (digest,) in server.images(repository, tag).values():
        server.put(repository, _image_tag(digest), server.get(repository, digest), OCI_MANIFEST)


def _image_tag(digest):
    return f"slipway.image.{digest.removeprefix('sha256:')[:40]}"


def test_a_closed_stdout_is_no_traceback(server, repository):
    """As in a job that closes what it does not read."""
    server.push_index(repository, "1", [AMD64])
    command = f"{sys.executable} -m scripts.registry inspect {server.name(repository, '1')} >&-"

    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_untag_takes_the_tag_and_nothing_else(server, repository, slipway):
    """Another tag of the same digest stays, and so does all that it names."""
    server.push_index(repository, "1", [AMD64, ARM64])
    body = server.get(repository, "1")
    server.put(repository, "2", body, "application/vnd.oci.image.index.v1+json")

    done = slipway("untag", server.name(repository, "2"))

    assert done.stdout == f"{server.name(repository, '2')}\n"
    assert server.tags(repository) == {"1"}
    assert "whole" in slipway("verify", "--deep", server.name(repository, "1")).stdout
    assert slipway("untag", server.name(repository, "2"), check=False).returncode == 1


def test_a_tag_made_anew_has_nothing_of_the_one_that_was_taken_away(server, repository, here):
    """The records of merges go with their tag."""
    name = server.name(repository, "1")
    first, second = (server.push_image(repository, each)["digest"] for each in (ARM64, AMD64))
    assert here("merge", name, "--create", "--from", server.name(repository, first))[0] == 0

    code, _, said = here("untag", name)
    left = server.tags(repository)
    made = here("merge", name, "--create", "--from", server.name(repository, second))

    assert (code, left) == (0, set()), said
    assert made[0] == 0, made
    assert server.images(repository, "1") == {AMD64: [second]}


def test_a_tag_that_is_taken_away_beside_a_merge_stays_away(server, repository, here, slipway):
    """The merge says so, and does not put back what the tag named."""
    server.push_index(repository, "1", [AMD64, ARM64])
    new = server.push_image(repository, ARM64, text="new")["digest"]
    gone = []

    def untag(_n, head):
        if not gone and head.startswith(f"HEAD /v2/{repository}/manifests/1 ".encode()):
            gone.append(slipway("untag", server.name(repository, "1")))
        return head

    with Proxy(target=server.host, before=untag) as proxy:
        code, _, said = here("merge", f"{proxy.host}/{repository}:1", "--from", f"{proxy.host}/{repository}@{new}")

    assert code == 1
    assert "somebody took it away meanwhile" in said
    assert server.get(repository, "1") is None


def test_forgotten_staging_tags_go_together(server, repository, slipway):
    """All with the prefix, and no other."""
    server.push_index(repository, "1", [AMD64])
    for number in range(5):
        server.push_index(repository, f"staging-{number}", [AMD64], text=str(number))

    slipway("untag", server.name(repository, "1").rsplit(":", 1)[0], "--all-with-prefix", "staging-")

    assert server.tags(repository) == {"1"}


@pytest.fixture
def guarded(new_registry, tmp_path):
    """A registry that wants a password."""
    hashed = bcrypt.hashpw(b"pass:word", bcrypt.gensalt(rounds=4)).decode()
    (tmp_path / "htpasswd").write_text(f"ada:{hashed}\n")
    environment = {"REGISTRY_AUTH": json.dumps({"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})}
    server = new_registry("2.8")
    server.push_index("app", "1", [AMD64, ARM64])
    server.push_index("app", "s", [ARM64], text="new")
    server.restart(**environment)
    return server


def test_logins_come_from_where_docker_keeps_them(guarded, slipway, tmp_path):
    """config.json, a credential helper, or stdin; no login is an error that says so; the secret is in no output."""
    docker = tmp_path / "docker"
    docker.mkdir()
    inspect = ("inspect", guarded.name("app", "1"))

    nobody = slipway(*inspect, check=False)
    wrong = slipway(*inspect, "--username", "ada", "--password-stdin", stdin="nonsense\n", check=False)
    typed = slipway(*inspect, "--username", "ada", "--password-stdin", stdin="pass:word\n")
    auth = base64.b64encode(b"ada:pass:word").decode()
    (docker / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": auth}}}))
    stored = slipway(*inspect)
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"ada\\", \\"Secret\\": \\"pass:word\\"}"\n')
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    (docker / "config.json").write_text(json.dumps({"credHelpers": {guarded.host: "test"}}))
    helped = slipway(*inspect, environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    missing = slipway(*inspect, check=False)

    assert "docker login" in nobody.stderr
    assert wrong.returncode == 1
    assert typed.stdout == stored.stdout == helped.stdout
    assert "docker-credential-test: not on PATH" in missing.stderr
    for done in (nobody, wrong, typed, stored, helped, missing):
        assert "pass:word" not in done.stdout + done.stderr
        assert auth not in done.stdout + done.stderr


def test_a_merge_logs_in_once_for_requests_side_by_side(guarded, slipway):
    """Also where the first batch is refused as a whole."""
    done = slipway(
        "merge", guarded.name("app", "1"), "--from", guarded.name("app", "s"), "--username", "ada", "--password-stdin",
        stdin="pass:word\n",
    )  # fmt: skip

    assert done.stdout.startswith(guarded.host)


def test_tls_with_an_authority_of_ones_own(new_registry, slipway, tmp_path, monkeypatch):
    """Refused without --ca; taken with it, or where Docker trusts it for this host; never tried as plain HTTP."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem",
         "-out", tmp_path / "ca.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = new_registry("2.8")
    server.push_index("app", "1", [AMD64])
    server.http = {"tls": {"certificate": str(tmp_path / "ca.pem"), "key": str(tmp_path / "key.pem")}}
    server.restart()

    taken = slipway("inspect", server.name("app", "1"), "--ca", tmp_path / "ca.pem")
    plain = slipway("inspect", server.name("app", "1"), check=False)
    none = slipway("inspect", server.name("app", "1"), "--ca", tmp_path / "none.pem", check=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    trust = tmp_path / ".docker/certs.d" / server.host
    trust.mkdir(parents=True)
    (trust / "ca.crt").write_bytes((tmp_path / "ca.pem").read_bytes())
    trusted = slipway("inspect", server.name("app", "1"))
    (trust / "broken.crt").write_text("no certificate")
    broken = slipway("inspect", server.name("app", "1"), check=False)

    assert "linux/amd64" in taken.stdout
    assert trusted.stdout == taken.stdout
    assert f"{trust}/broken.crt: it cannot be read (it holds no certificate)" in broken.stderr
    assert plain.returncode == 1
    assert "none.pem: it cannot be read" in none.stderr


def test_the_one_file_program_needs_nothing_else(server, repository, tmp_path):
    """Run by a Python that sees no package, from another folder."""
    server.push_index(repository, "1", [AMD64, ARM64])
    archive.write(tmp_path / "slipway-registry.pyz")

    done = subprocess.run(
        [sys.executable, "-I", "-S", tmp_path / "slipway-registry.pyz", "verify", server.name(repository, "1")],
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "whole" in done.stdout


def test_every_verb_has_an_example():
    """`slipway merge --help` shows one."""
    for verb in ("merge", "inspect", "verify", "backup", "backups", "restore", "untag"):
        done = subprocess.run(
            [sys.executable, "-m", "builders.cli", verb, "--help"], capture_output=True, text=True, check=True
        )
        assert f"example: slipway {verb}" in done.stdout
