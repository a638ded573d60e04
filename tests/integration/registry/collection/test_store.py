"""Reading, judging and planning the storage of real registries, 2.8.2 and 3.1.2, with Debian's commands and with busybox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time

import pytest

from scripts.benchmarks.registries import OCI_INDEX, OCI_MANIFEST, SERVERS, digest_of
from scripts.registry.collection import commands, damage, reading
from scripts.registry.collection.places import ThisHost
from scripts.registry.collection.plan import LOST_TAG, UNTAGGED, YOUNG, Rules, plan
from scripts.registry.errors import StoreUnreadable

AMD64, ARM64 = "linux/amd64", "linux/arm64"
DAY = 86400
RULES = Rules(grace_s=DAY)


@pytest.fixture(params=list(SERVERS))
def server(request, new_registry):
    """A registry of a test's own, whose files may be broken."""
    return new_registry(request.param)


@pytest.fixture
def files(server, storage):
    """Its files."""
    return storage(server)


def _read(files, **options):
    return reading.read(ThisHost(folder=files.folder, **options))


def _damages(files):
    return [str(each) for each in damage.find(_read(files))]


def _repair(files):
    """Do what the findings say."""
    for each in damage.find(_read(files)):
        subprocess.run(["sh", "-c", each.command], cwd=files.folder, check=True)


def _collect(server, *options):
    """Run the registry's own collection."""
    return subprocess.run(
        [SERVERS[server.version], "garbage-collect", *options, server.home / "config.yml"],
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _sweep(server, files):
    """Take away the links that are planned and let the registry's own collection do the rest; the plan, and how that ended."""
    found = plan(_read(files), RULES)
    for name, digest in found.unlink:
        shutil.rmtree(files.revision(name, digest))
    return found, _collect(server)


@pytest.fixture(params=["debian", "busybox"])
def shell(request, tmp_path):
    """A shell with Debian's commands, and one that knows no others than busybox's."""
    if request.param == "debian":
        return ("sh",)
    if not shutil.which("busybox"):
        pytest.skip("this host lacks busybox (run scripts/setup)")
    (tmp_path / "bin").mkdir()
    subprocess.run(["busybox", "--install", "-s", tmp_path / "bin"], check=True)
    return ("/usr/bin/env", f"PATH={tmp_path / 'bin'}", "sh")


def test_a_storage_is_read_whole(server, files, shell):
    """Repositories, tags with what they named before, manifests with their parts, and unfinished uploads."""
    first = server.push_index("team/app", "1", [AMD64, ARM64], attest=True)
    second = server.push_index("team/app", "1", [AMD64], text="new")
    server.push_image("other", AMD64, tag="latest")
    server.request("POST", "other/blobs/uploads/").raise_for_status()

    found = _read(files, shell=shell)

    tag = found.repositories["team/app"].tags["1"]
    assert set(found.repositories) == {"team/app", "other"}
    assert found.repositories["team/app"].folders == {"_layers", "_manifests", "revisions", "tags"}
    assert tag.current.digest == second
    assert set(tag.history) == {first, second}
    assert [digest for digest, _ in tag.displaced()] == [first]
    assert len(found.references[first].children) == 4
    assert found.blobs.keys() == files.blobs()
    assert found.blobs[first].size == len(server.get("team/app", first))
    assert found.uploads
    assert damage.find(found) == ()


def test_the_plan_is_what_the_registry_then_frees(server, files):
    """Unlinking what is planned and running the stock collection frees the planned blobs, and no other."""
    server.push_index("app", "1", [AMD64, ARM64], attest=True)
    server.push_index("app", "1", [AMD64, ARM64], attest=True, text="new")
    server.push_index("copy", "1", [AMD64], attest=True)
    server.push_image("app", ARM64, text="by digest")
    before = files.blobs()
    files.age(2 * DAY)

    found, done = _sweep(server, files)

    assert done.returncode == 0, done.stderr
    assert before - files.blobs() == set(found.frees)
    assert found.live <= files.blobs()
    assert plan(_read(files), RULES).frees == {}


def _push_list(server, tag, *descriptors):
    """Push an index that lists these; the index's digest."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    return server.put("app", tag, json.dumps(index).encode(), OCI_INDEX)


def test_a_manifest_of_an_unknown_media_type_stays_with_its_index(server, files):
    """Only its own link keeps its layers from the stock collection."""
    image = server.push_image("app", AMD64)
    _push_list(server, "1", {**image, "mediaType": "application/vnd.example.bundle.v1+json"})
    server.push_image("app", AMD64, text="garbage")
    before = files.blobs()
    files.age(2 * DAY)

    found, _ = _sweep(server, files)

    assert server.get("app", image["digest"])
    assert len(found.unlink) == 1
    assert before - files.blobs() == set(found.frees)
    layers = json.loads(server.get("app", image["digest"]))["layers"]
    assert {each["digest"] for each in layers} <= files.blobs()


def test_layers_that_an_index_lists_are_no_damage(server, files):
    """As BuildKit's caches have them; and the index keeps them."""
    layer = server.push_blob("app", b"a cache's layer")
    _push_list(server, "cache", {**layer, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"})
    files.age(2 * DAY)

    assert _damages(files) == []
    assert plan(_read(files), RULES).frees == {}


def test_a_platform_that_a_push_took_away_is_kept(server, files):
    """A naive push of one architecture, ten minutes ago, over an index of last month."""
    old = server.push_index("app", "1", [AMD64, ARM64])
    files.age(30 * DAY)
    server.push_image("app", AMD64, tag="1", text="naive")
    files.age(600)

    found = plan(_read(files), RULES)

    assert found.kept["app", old] == LOST_TAG
    assert found.unlink == ()
    files.age(DAY)
    assert ("app", old) in plan(_read(files), RULES).unlink


def test_a_push_by_digest_and_layers_alone_are_young(server, files):
    """Neither has a tag; a repository that has only layers is a push that goes on."""
    image = server.push_image("app", AMD64)
    server.push_blob("begun", b"a layer")

    found = plan(_read(files), RULES)

    assert found.kept == {("app", image["digest"]): YOUNG}
    assert len(found.held) == 1
    assert _damages(files) == []


class TestDamage:
    """What stops the stock collection, or makes it delete what is in use: found, told, and cured by what is told."""

    @pytest.fixture(autouse=True)
    def image(self, server, files):
        """A tag of two platforms, whole, from two days ago; and one that it named before."""
        self.before = server.push_index("app", "1", [AMD64, ARM64], text="before")
        self.index = server.push_index("app", "1", [AMD64, ARM64])
        self.arm64 = server.images("app", "1")[ARM64][0]
        files.age(2 * DAY)

    def _only(self, files):
        (found,) = _damages(files)
        return found

    def test_an_empty_revision_link(self, server, files):
        """A crash while it was written: the stock collection ends there."""
        (files.revision("app", self.arm64) / "link").write_text("")

        assert _collect(server).returncode != 0
        assert "the link is empty" in self._only(files)
        _repair(files)
        assert _damages(files) == []
        assert _collect(server).returncode == 0

    def test_an_empty_tag_link(self, server, files):
        """The tag's history tells what it named."""
        (files.tag("app", "1") / "current/link").write_text("")

        assert "app:1: its link is empty" in self._only(files)
        _repair(files)
        assert _damages(files) == []
        assert server.get("app", "1")

    def test_a_tag_without_current(self, server, files):
        """It is listed and cannot be pulled."""
        shutil.rmtree(files.tag("app", "1") / "current")

        assert "app:1: its folder names nothing" in self._only(files)
        _repair(files)
        assert _damages(files) == []
        assert server.get("app", "1")

    def test_a_tag_that_names_nothing_gets_the_last_manifest_that_is_there(self, files):
        """Where there is none any more, only a push helps."""
        link = files.tag("app", "1") / "current/link"
        link.write_text("")
        shutil.rmtree(files.revision("app", self.index))

        _repair(files)
        assert link.read_text() == self.before
        link.write_text("")
        shutil.rmtree(files.revision("app", self.before))
        (found,) = damage.find(_read(files))
        assert (found.command, found.repair) == ("", found.advice)

    def test_a_manifest_that_is_gone(self, files):
        """The stock collection says nothing and deletes its layers."""
        files.blob(self.arm64).unlink()

        assert f"app@{self.arm64}: its manifest is gone" in self._only(files)
        assert "push it again" in damage.find(_read(files))[0].repair

    @pytest.mark.parametrize("content", ["", '{"schemaVersion": 2}', "{}", "no JSON"])
    def test_a_manifest_that_is_none(self, files, content):
        """Empty, cut, or another."""
        files.blob(self.arm64).write_text(content)

        assert "its manifest cannot be read" in self._only(files)

    def test_a_manifest_that_refers_to_another_digest_than_sha256(self, server, files):
        """The registry stores the layer by its sha256, and its own collection finds nobody who refers to that."""
        config = server.push_blob("sha512", b"{}")
        layer = server.push_blob("sha512", b"a layer", algorithm="sha512")
        types = {
            "config": "application/vnd.oci.image.config.v1+json",
            "layer": "application/vnd.oci.image.layer.v1.tar",
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": types["config"], **config},
            "layers": [{"mediaType": types["layer"], **layer}],
        }
        image = server.put("sha512", "1", json.dumps(manifest).encode(), OCI_MANIFEST)
        files.age(2 * DAY)
        found = damage.find(_read(files))

        assert [str(each) for each in found] == [
            f"sha512@{image}: it refers to {layer['digest']}; what it refers to would be deleted"
        ]
        assert server.request("HEAD", f"sha512/blobs/{layer['digest']}").status_code == 200
        _collect(server)
        server.restart()
        assert server.request("HEAD", f"sha512/blobs/{layer['digest']}").status_code == 404
        server.push_image("sha512", AMD64, tag="1")
        subprocess.run(["sh", "-c", found[0].repair.partition(": ")[2]], cwd=files.folder, check=True)
        assert _damages(files) == []

    def test_a_repository_without_layers(self, files):
        """It is overlooked by the stock collection of 2.8."""
        shutil.rmtree(files.repository("app") / "_layers")

        assert "it has manifests and no _layers" in self._only(files)

    def test_a_child_that_was_deleted(self, server, files):
        """As an API deletion by digest leaves it, or 2.8's --delete-untagged: the index answers, the platform does not."""
        server.request("DELETE", f"app/manifests/{self.arm64}")

        assert f"app:1: {self.arm64} of its index is missing" in self._only(files)
        _repair(files)
        assert _damages(files) == []
        assert server.get("app", self.arm64)

    def test_a_child_that_was_deleted_below_an_unknown_media_type(self, server, files):
        """What is listed so is walked as any other index."""
        inner = {"digest": self.index, "size": len(server.get("app", self.index))}
        _push_list(server, "2", {**inner, "mediaType": "application/vnd.example.bundle.v1+json"})
        shutil.rmtree(files.tag("app", "1"))
        server.request("DELETE", f"app/manifests/{self.arm64}")

        assert f"app:2: {self.arm64} of its index is missing" in self._only(files)

    def test_a_tag_whose_manifest_has_no_link(self, files):
        """The stock collection would take its layers."""
        shutil.rmtree(files.revision("app", self.index))

        assert "app:1: the manifest that it names has no link" in self._only(files)

    @pytest.mark.parametrize("name", ["app copy", "App", "app/.old", "app\x0bcopy", "'app'"])
    def test_a_repository_whose_name_is_none(self, server, files, name):
        """A copy that somebody made by hand: the stock collection ends there."""
        shutil.copytree(files.repository("app") / "_layers", files.repository(name) / "_layers")
        shutil.copytree(files.repository("app") / "_manifests", files.repository(name) / "_manifests")

        assert _collect(server).returncode != 0
        assert f"repositories/{name}: its name is not a repository's name" in self._only(files)
        _repair(files)
        assert _damages(files) == []
        assert _collect(server).returncode == 0
        assert server.get("app", "1")

    def test_a_tag_whose_name_is_none(self, server, files):
        """It is listed, and no client takes its name."""
        shutil.copytree(files.tag("app", "1"), files.tag("app", "1 copy"))

        assert "/tags/1 copy: its name is not a tag" in self._only(files)
        _repair(files)
        assert _damages(files) == []
        assert server.tags("app") == {"1"}

    def test_a_manifests_folder_whose_name_is_no_digest(self, server, files):
        """A copy of it is moved away, and no command is made of its name."""
        folder = files.revision("app", self.arm64)
        shutil.copytree(folder, folder.with_name(f"{folder.name} copy"))

        assert " copy: its name is not a manifest's digest" in self._only(files)
        _repair(files)
        assert _damages(files) == []
        assert server.get("app", self.arm64)

    @pytest.mark.parametrize("name", ["app\n", "app\nrepositories/app", "app\ncopy"])
    def test_a_line_break_in_a_name_ends_the_reading(self, files, name, shell):
        """What is listed by lines cannot tell it from two names."""
        (files.repository(name) / "_layers").mkdir(parents=True)

        with pytest.raises(StoreUnreadable, match=r"the name of a file has a line break: repositories/app\.\.\."):
            _read(files, shell=shell)

    @pytest.mark.parametrize("place", ["{}/x/data", "{} copy/data", "data", "../../data"])
    def test_a_file_where_no_blob_can_be(self, server, files, place):
        """Of a copy by hand, say: the stock collection ends there."""
        path = files.folder / "blobs/sha256" / self.arm64[7:9] / place.format(self.arm64[7:])
        path.parent.mkdir(exist_ok=True)
        path.write_text("")

        assert _collect(server).returncode != 0
        assert ": no blob can be there" in self._only(files)
        (found,) = damage.find(_read(files))
        advice = found.repair.partition(": ")[2].replace("ELSEWHERE", "../../..")
        subprocess.run(["sh", "-c", advice], cwd=files.folder, check=True)
        assert _damages(files) == []
        assert _collect(server).returncode == 0

    def test_a_line_break_in_a_blobs_name_ends_the_reading(self, files):
        """There too."""
        folder = files.folder / "blobs/sha256/ab/a\nb"
        folder.mkdir(parents=True)
        (folder / "data").write_text("")

        with pytest.raises(StoreUnreadable, match="'b/data' of its listing is no file"):
            _read(files)

    def test_what_two_points_of_damage_say(self, files):
        """All are told at once, each with its place."""
        files.blob(self.arm64).unlink()
        (files.tag("app", "1") / "current/link").write_text("")

        assert len(_damages(files)) == 2


@pytest.mark.parametrize("name", ["a copy", " a", "-a", "a'b", 'a"b', "a\\b", "a\tb", "*"])
def test_commands_take_names_as_they_are(tmp_path, shell, name):
    """Whatever is in a name, it is one: what is removed or linked is that, and nothing that a part of it names."""
    until = int(time.time()) + 60
    place = ThisHost(folder=tmp_path, shell=shell)
    (tmp_path / "a").mkdir()
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "SLIPWAY_READONLY_UNTIL": str(until)}) as readonly:

        def sh(script, line):
            stdin = f"{line}\n".encode()
            return place.sh(script, str(readonly.pid), str(until), str(len(stdin)), stdin=stdin).code

        try:
            assert sh(commands.LINK, f"sha256:0 ./{name}") == 0
            assert (tmp_path / name / "link").read_text() == "sha256:0"
            assert place.sh(commands.READ, str(len(name) + 6), stdin=f"{name}/link\n".encode()).text == "sha256:0"
            assert sh(commands.REMOVE, name) == 0
        finally:
            readonly.kill()

    assert {each.name for each in tmp_path.iterdir()} - {"bin"} == {"a"}


class TestSpared:
    """A repository of which nobody can tell what it was to become stays as it is, and does not keep the rest from going."""

    @pytest.fixture(autouse=True)
    def garbage(self, server):
        """An image that nothing needs, and a tag."""
        server.push_image("app", AMD64, text="garbage")
        server.push_image("app", AMD64, tag="1")

    def _goes_on(self, server, files, spared):
        files.age(2 * DAY)
        before = files.blobs()
        found, done = _sweep(server, files)

        assert done.returncode == 0, done.stderr
        assert _damages(files) == []
        assert damage.spared(_read(files), grace_s=DAY) == (spared,)
        assert before - files.blobs() == set(found.frees) | found.held
        assert len(found.frees) == 3
        return found

    def test_a_first_push_that_was_given_up(self, server, files):
        """Its layers are held, however old they are and by whatever digest they were pushed."""
        layers = [server.push_blob("typo", b"a layer")["digest"]]
        server.push_blob("typo", b"another", algorithm="sha512")
        layers.append(digest_of(b"another"))
        assert damage.spared(_read(files), grace_s=DAY) == ()

        found = self._goes_on(
            server,
            files,
            "typo: it has layers and no _manifests, as of a first push that was given up; its layers stay, and what no repository has; "
            "if nothing of it is in use: rm -r repositories/typo",
        )

        assert found.held == set(layers)

    def test_a_repository_that_was_only_pushed_by_digest(self, server, files):
        """All its manifests stay, for a reason of their own."""
        image = server.push_image("bydigest", AMD64, text="by digest")["digest"]
        assert damage.spared(_read(files), grace_s=DAY) == ()

        found = self._goes_on(
            server,
            files,
            "bydigest: it has manifests and no tags, as of pushes by digest alone; all of it stays; "
            "if nothing of it is in use: rm -r repositories/bydigest",
        )

        assert found.kept["bydigest", image] == UNTAGGED
        assert server.get("bydigest", image)


def test_a_storage_that_cannot_be_read_is_told(server, files):
    """A folder that is not the registry's user's to read."""
    server.push_image("app", AMD64, tag="1")
    place = ThisHost(folder=files.folder, shell=("setpriv", "--reuid=65534", "--clear-groups", "sh"))
    files.folder.chmod(0o755)
    for path in files.folder.parents:
        path.chmod(path.stat().st_mode | 0o711)
    (files.repository("app") / "_manifests").chmod(0o700)

    with pytest.raises(StoreUnreadable, match="it cannot be listed"):
        reading.read(place)
