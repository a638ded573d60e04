"""`merge` against real registries: what it writes, what it keeps, and what it refuses."""

import json
import shutil
import subprocess

import pytest

from scripts.benchmarks.proxy import Proxy
from scripts.benchmarks.registries import OCI_INDEX, images_of

AMD64, ARM64 = "linux/amd64", "linux/arm64"


@pytest.mark.parametrize("attest", [False, True])
def test_a_staging_tag_is_merged_and_gone_and_all_else_is_as_it_was(server, repository, slipway, attest):
    """The platform is new, the other one and its attestation keep their bytes, the staging tag is 404, its image is not."""
    server.push_index(
        repository, "1", [AMD64, ARM64], attest=attest, extra={"annotations": {"org.example": "keep"}, "x-a": [1]}
    )
    old = server.get(repository, "1")
    server.push_index(repository, "1-arm64", [ARM64], text="new", attest=attest)
    new = server.images(repository, "1-arm64")[ARM64]

    done = slipway("merge", server.name(repository, "1"), "--from", server.name(repository, "1-arm64"))

    merged = server.index(repository, "1")
    assert done.stdout == f"{server.host}/{repository}@{_digest(server, repository, '1')}\n"
    assert server.images(repository, "1") == {AMD64: images_of(old)[AMD64], ARM64: new}
    assert merged["annotations"] == {"org.example": "keep"}
    assert merged["x-a"] == [1]
    assert _entry_text(server.get(repository, "1"), AMD64) == _entry_text(old, AMD64)
    subjects = [e["annotations"]["vnd.docker.reference.digest"] for e in merged["manifests"] if "annotations" in e]
    assert sorted(subjects) == (sorted(each for (each,) in server.images(repository, "1").values()) if attest else [])
    assert server.get(repository, "1-arm64") is None
    assert server.get(repository, new[0]) is not None
    backup = next(tag for tag in server.tags(repository) if tag.startswith("slipway.backup.1."))
    assert server.get(repository, backup) == old


def test_merging_again_changes_nothing(server, repository, slipway):
    """The same input gives the same bytes, and an unchanged tag is not written."""
    server.push_index(repository, "1", [AMD64, ARM64])
    new = server.push_index(repository, "new", [ARM64], text="new")
    source = server.name(repository, new)
    slipway("merge", server.name(repository, "1"), "--from", source)
    once = server.get(repository, "1")
    tags = server.tags(repository)

    slipway("merge", server.name(repository, "1"), "--from", source)

    assert server.get(repository, "1") == once
    assert server.tags(repository) == tags


def test_a_merge_killed_after_its_staging_tag_went_is_done_when_run_again(server, repository, slipway):
    """A source that is gone was merged, if the target's record names it."""
    server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [ARM64], text="new")
    command = ("merge", server.name(repository, "1"), "--from", server.name(repository, "s"))

    first, second = slipway(*command), slipway(*command)

    assert first.stdout == second.stdout


def test_a_source_that_was_never_pushed_again_is_not_the_one_of_before(server, repository, slipway):
    """After an ordinary push, the record of an older merge from the same name stands in for nothing."""
    server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [ARM64], text="new")
    command = ("merge", server.name(repository, "1"), "--from", server.name(repository, "s"))
    slipway(*command)
    server.push_index(repository, "1", [AMD64, ARM64], text="newer")
    newer = server.get(repository, "1")

    done = slipway(*command, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert "no such source" in done.stderr
    assert server.get(repository, "1") == newer


def test_a_plain_target_becomes_an_index(server, repository, slipway):
    """What a naive push left is wrapped, its platform read from its configuration."""
    image = server.push_image(repository, AMD64, tag="1")
    new = server.push_image(repository, ARM64)

    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, new["digest"]))

    assert server.images(repository, "1") == {AMD64: [image["digest"]], ARM64: [new["digest"]]}


def test_docker_types_stay_a_list_until_an_oci_part_comes(server, repository, slipway):
    """A list of Docker images stays one; an OCI image makes it an OCI index."""
    server.push_index(repository, "1", [AMD64, ARM64], docker=True)
    docker = server.push_image(repository, ARM64, text="docker", docker=True)
    oci = server.push_image(repository, ARM64, text="oci")

    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, docker["digest"]))
    first = server.index(repository, "1")["mediaType"]
    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, oci["digest"]))

    assert first.endswith("manifest.list.v2+json")
    assert server.index(repository, "1")["mediaType"].endswith("image.index.v1+json")


def test_a_source_of_another_repository_is_mounted(server, repository, here):
    """Its image, layers and attestation are readable in the target's repository; no blob travelled but configurations, down."""
    target, source = f"{repository}/a", f"{repository}/b"
    server.push_index(target, "1", [AMD64])
    server.push_index(source, "new", [ARM64], attest=True)
    entries = server.index(source, "new")["manifests"]
    parts = [json.loads(server.get(source, each["digest"])) for each in entries]

    with Proxy(target=server.host) as proxy:
        code, _, said = here("merge", f"{proxy.host}/{target}:1", "--from", f"{proxy.host}/{source}:new")

    assert code == 0, said
    blobs = {each for each in proxy.requests if "/blobs/" in each}
    digests = {blob["digest"] for part in parts for blob in (part["config"], *part["layers"])}
    mounts = {f"POST /v2/{target}/blobs/uploads/?mount={digest}&from={source}" for digest in digests}
    assert mounts == {each for each in blobs if each.startswith("POST ")}
    assert {each.rsplit("/", 1)[1] for each in blobs - mounts} == {parts[0]["config"]["digest"]}
    assert "whole" in here("verify", "--deep", server.name(target, "1"))[1]
    assert set(server.images(target, "1")) == {AMD64, ARM64}


def test_an_absent_target_is_made_only_when_asked(server, repository, slipway):
    """Without --create it is an error that says so."""
    server.push_index(repository, "s", [ARM64])
    command = ("merge", server.name(repository, "1"), "--from", server.name(repository, "s"), "--keep-staging")

    refused = slipway(*command, check=False)
    slipway(*command, "--create")

    assert refused.returncode == 1
    assert "--create" in refused.stderr
    assert set(server.images(repository, "1")) == {ARM64}
    assert server.get(repository, "s") is not None


def test_a_dry_run_prints_the_bytes_and_writes_nothing(server, repository, slipway):
    """What it prints is what a merge then writes."""
    server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [ARM64], text="new")
    tags = server.tags(repository)
    command = ("merge", server.name(repository, "1"), "--from", server.name(repository, "s"))

    dry = slipway(*command, "--dry-run")
    untouched = server.tags(repository)
    slipway(*command)

    assert untouched == tags
    assert dry.stdout.encode() == server.get(repository, "1")
    assert "BEFORE" in dry.stderr


def test_json_tells_the_whole_of_a_merge(server, repository, here):
    """The result, each platform before and after, the backup, and what became of the staging tag."""
    before = server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [ARM64], text="new")
    old, new = server.images(repository, "1"), server.images(repository, "s")[ARM64][0]
    name = server.name(repository, "1")

    told = json.loads(here("merge", name, "--from", server.name(repository, "s"), "--format", "json")[1])

    after = _digest(server, repository, "1")
    assert (told["target"], told["digest"], told["before"]) == (name, after, before)
    assert told["reference"] == f"{server.host}/{repository}@{after}"
    assert told["platforms"] == [
        {"platform": AMD64, "before": old[AMD64][0], "after": old[AMD64][0]},
        {"platform": ARM64, "before": old[ARM64][0], "after": new},
    ]
    assert told["replaced"] == {ARM64: old[ARM64]}
    assert told["staging"] == [{"reference": server.name(repository, "s"), "kept": None}]
    assert _digest(server, repository, told["backup"].rsplit(":", 1)[1]) == before


def test_duplicates_of_the_platform_go(server, repository, slipway):
    """What an appending tool left is put right: one image for the platform."""
    old = server.push_image(repository, ARM64, text="old")
    older = server.push_image(repository, ARM64, text="older")
    keep = server.push_image(repository, AMD64)
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [old, keep, older]}
    server.put(repository, "1", json.dumps(body).encode(), OCI_INDEX)
    new = server.push_image(repository, ARM64, text="new")

    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, new["digest"]))

    assert server.images(repository, "1") == {ARM64: [new["digest"]], AMD64: [keep["digest"]]}


def test_the_requests_are_within_their_budget(server, repository, slipway):
    """By digest 9 + 2P; from a staging tag 13 + 2P on 2.8 and 11 + 2P on 3.x; 9 round trips deep at most."""
    for attest in (False, True):
        for count in (2, 3, 4):
            names = [AMD64, ARM64, "linux/s390x", "linux/riscv64"][:count]
            tag = f"{count}-{attest}"
            server.push_index(repository, tag, names, attest=attest)
            by_digest = server.push_index(repository, f"d-{tag}", [ARM64], text=f"d{tag}", attest=attest)
            server.push_index(repository, f"s-{tag}", [ARM64], text=f"s{tag}", attest=attest)
            for source, limit in ((by_digest, 9), (f"s-{tag}", 13 if server.version == "2.8" else 11)):
                done = slipway(
                    "merge", server.name(repository, tag), "--from", server.name(repository, source), "--debug"
                )
                requests, rounds = _cost(done.stderr)
                assert requests <= limit + 2 * count, (source, requests)
                assert rounds <= 9


def test_a_repository_of_very_many_tags_costs_no_more_requests(server, repository, here):
    """A merge lists none. The benchmark has 20,000 of them."""
    counts = {}
    for tags in (1, 2_000):
        name = f"{repository}-{tags}"
        server.push_index(name, "1", [AMD64, ARM64])
        server.push_index(name, "s", [ARM64], text="new")
        server.multiply_tag(name, "1", tags)
        with Proxy(target=server.host) as proxy:
            code, _, said = here("merge", f"{proxy.host}/{name}:1", "--from", f"{proxy.host}/{name}:s")
            assert code == 0, said
            counts[tags] = len(proxy.requests)

    assert counts[1] == counts[2_000]
    assert (
        len(json.loads(here("backups", server.name(name, "1"), "--format", "json")[1])) == 1
    )  # the whole list was read
    shutil.rmtree(server.home / "storage/docker/registry/v2/repositories" / name)


def _cost(text):
    line = next(line for line in text.splitlines() if "round trips deep" in line)
    return int(line.split()[1]), int(line.split()[3])


def _entry_text(body, platform):
    architecture = platform.split("/")[1]
    entry = next(each for each in json.loads(body)["manifests"] if each["platform"]["architecture"] == architecture)
    lines = "\n    ".join(json.dumps(entry, indent=2).splitlines()).encode()
    assert lines in body
    return lines


def _digest(server, repository, tag):
    answer = server.request("HEAD", f"{repository}/manifests/{tag}", headers={"Accept": OCI_INDEX})
    return answer.headers["docker-content-digest"]


def test_another_reader_takes_it_whole(server, repository, slipway, tmp_path):
    """skopeo copies every part of the result."""
    server.push_index(repository, "1", [AMD64, ARM64], attest=True)
    server.push_index(repository, "s", [ARM64], text="new", attest=True)

    slipway("merge", server.name(repository, "1"), "--from", server.name(repository, "s"))

    name = f"docker://{server.name(repository, '1')}"
    raw = subprocess.run(["skopeo", "inspect", "--tls-verify=false", "--raw", name], capture_output=True, check=True)
    assert raw.stdout == server.get(repository, "1")
    subprocess.run(
        ["skopeo", "copy", "--all", "--src-tls-verify=false", name, f"oci:{tmp_path}/copy:1"],
        check=True,
        capture_output=True,
    )
