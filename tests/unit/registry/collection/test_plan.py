"""Planning a collection: what can be reached is never planned, what cannot be and is old always is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.registry.collection.plan import LISTED, LOST_TAG, REFERRER, TAG, UNTAGGED, YOUNG, Rules, plan
from scripts.registry.collection.retention import Retention
from scripts.registry.collection.store import Blob, Link, References, Repository, Store, Tag
from scripts.registry.errors import InvalidReference
from scripts.registry.records import key

NOW, HOUR, DAY = 1_700_000_000, 3600, 86400
RULES = Rules(grace_s=DAY)
OLD = NOW - 30 * DAY


def _digest(name):
    return f"sha256:{name:0>64}"


def _store(*, manifests, tags=(), blobs=None, history=(), about=()):
    """Make a storage of one repository: manifests {name: (age written, children, blobs)}, tags {tag: name}."""
    store = Store(now=NOW)
    app = store.repositories["app"] = Repository(folders={"_layers", "_manifests", "tags", "revisions"})
    subjects = dict(about)
    for name, (written, children, parts) in manifests.items():
        digest = _digest(name)
        app.revisions[digest] = Link(written, digest)
        store.blobs[digest] = Blob(100, written)
        subject = _digest(subjects[name]) if name in subjects else ""
        store.references[digest] = References(tuple(map(_digest, children)), tuple(map(_digest, parts)), subject)
        for part in parts:
            store.blobs.setdefault(_digest(part), Blob(1000, OLD))
    for name, written in (blobs or {}).items():
        store.blobs[_digest(name)] = Blob(1000, written)
    for tag, name, written in tags:
        app.tags[tag] = Tag(current=Link(written, _digest(name)), history={_digest(name): written})
    for tag, name, written in history:
        app.tags[tag].history[_digest(name)] = written
    return store


def _planned(found):
    return {digest.removeprefix("sha256:").lstrip("0") for _, digest in found.unlink}


def _freed(found):
    return {digest.removeprefix("sha256:").lstrip("0") for digest in found.frees}


def test_an_untagged_image_goes_with_what_only_it_needs():
    """The layer that it shares with a tagged one stays."""
    store = _store(
        manifests={"a1": (OLD, (), ("c1", "e1")), "a2": (OLD, (), ("c2", "e1", "e2"))}, tags=[("1", "a1", OLD)]
    )

    found = plan(store, RULES)

    assert _planned(found) == {"a2"}
    assert _freed(found) == {"a2", "c2", "e2"}
    assert found.bytes == 2100
    assert found.kept == {("app", _digest("a1")): TAG}


def test_indexes_within_indexes_keep_their_images():
    """And what the images are made of."""
    store = _store(
        manifests={"1": (OLD, ("2",), ()), "2": (OLD, ("3",), ()), "3": (OLD, (), ("c",))}, tags=[("1", "1", OLD)]
    )

    assert plan(store, RULES).unlink == ()
    assert _freed(plan(store, RULES)) == set()


def test_an_index_keeps_a_manifest_of_a_media_type_that_nobody_knows():
    """It is listed as blobs are, and what it is made of stays; a layer that an index lists stays too."""
    store = _store(manifests={"1": (OLD, (), ("2", "e")), "2": (OLD, (), ("c",))}, tags=[("1", "1", OLD)])

    found = plan(store, RULES)

    assert found.unlink == ()
    assert found.kept[("app", _digest("2"))] == TAG
    assert _freed(found) == set()


def test_an_image_that_lost_its_tag_ten_minutes_ago_is_not_old():
    """Whatever its push date: it lost the tag when the next one got it."""
    store = _store(
        manifests={"1": (OLD, (), ()), "2": (NOW - 600, (), ())},
        tags=[("1", "2", NOW - 600)],
        history=[("1", "1", OLD)],
    )

    assert plan(store, RULES).kept[("app", _digest("1"))] == LOST_TAG


def test_an_image_that_lost_its_tag_before_the_grace_time_goes():
    """Also if the tag was written within it, by a third one."""
    store = _store(
        manifests={"1": (OLD, (), ()), "2": (OLD + DAY, (), ()), "3": (NOW - 600, (), ())},
        tags=[("1", "3", NOW - 600)],
        history=[("1", "1", OLD), ("1", "2", OLD + DAY)],
    )

    found = plan(store, RULES)

    assert _planned(found) == {"1"}
    assert found.kept[("app", _digest("2"))] == LOST_TAG


def test_what_was_deleted_by_its_digest_is_not_kept_for_a_tag_that_it_had():
    """Its link is gone, and with it what it was made of."""
    store = _store(
        manifests={"1": (OLD, (), ("c",)), "2": (NOW - 600, (), ())},
        tags=[("1", "2", NOW - 600)],
        history=[("1", "1", OLD)],
    )
    del store.repositories["app"].revisions[_digest("1")]

    found = plan(store, RULES)

    assert found.kept == {("app", _digest("2")): TAG}
    assert _freed(found) == {"1", "c"}


def test_what_was_pushed_within_the_grace_time_stays():
    """A push by digest has no tag yet; its children stay however old they are."""
    store = _store(manifests={"1": (NOW - HOUR, ("2",), ()), "2": (OLD, (), ("c",))})

    assert plan(store, RULES).kept == {("app", _digest("1")): YOUNG, ("app", _digest("2")): YOUNG}


def test_listed_digests_stay():
    """A deployment that runs by digest has no tag to hold its image."""
    store = _store(manifests={"1": (OLD, (), ()), "2": (OLD, (), ())})

    found = plan(store, Rules(grace_s=DAY, keep=frozenset({_digest("1")})))

    assert found.kept == {("app", _digest("1")): LISTED}
    assert _planned(found) == {"2"}


def test_subjects_and_referrers_stay_together():
    """A signature stays with its image, and an image that a tagged signature is about stays too."""
    store = _store(
        manifests={"1": (OLD, (), ()), "2": (OLD, (), ("c",)), "3": (OLD, (), ()), "4": (OLD, (), ())},
        tags=[("1", "1", OLD), ("sig", "4", OLD)],
        about={"2": "1", "4": "3"}.items(),
    )

    found = plan(store, RULES)

    assert found.unlink == ()
    assert found.kept[("app", _digest("2"))] == REFERRER


def test_young_blobs_without_a_manifest_are_held():
    """They may be of a push that goes on; old ones go. A layer that a push was just given counts as young.

    What an image needs has that to hold it.
    """
    store = _store(
        manifests={"a": (OLD, (), ("c",))}, tags=[("1", "a", OLD)], blobs={"1": NOW - 60, "2": OLD, "3": OLD}
    )
    store.repositories["app"].layers |= dict.fromkeys(map(_digest, "3c"), NOW - 60)

    found = plan(store, RULES)

    assert found.held == {_digest("1"), _digest("3")}
    assert _freed(found) == {"2"}


def test_layers_of_a_repository_that_never_had_a_manifest_are_held():
    """However old, and what no repository has, which would be the manifests of one that has lost their links."""
    store = _store(manifests={"4": (OLD, (), ())}, blobs={"1": OLD, "2": OLD, "3": OLD})
    store.repositories["app"].layers[_digest("2")] = OLD
    assert _freed(plan(store, RULES)) == {"1", "2", "3", "4"}
    store.repositories["typo"] = Repository(folders={"_layers"}, layers={_digest("1"): OLD, _digest("gone"): OLD})

    found = plan(store, RULES)

    assert found.held == {_digest("1"), _digest("3")}
    assert _freed(found) == {"2", "4"}


def test_a_repository_that_never_had_a_tag_stays_whole():
    """By digest it may be in use; what is listed is told as that."""
    store = _store(manifests={"1": (OLD, (), ("c",)), "2": (OLD, (), ())})
    store.repositories["app"].folders.remove("tags")

    found = plan(store, Rules(grace_s=DAY, keep=frozenset({_digest("1")})))

    assert found.kept == {("app", _digest("1")): LISTED, ("app", _digest("2")): UNTAGGED}
    assert found.frees == {}


def test_the_same_image_in_two_repositories_goes_from_one():
    """Its blobs stay for the other."""
    store = _store(manifests={"1": (OLD, (), ("c",))}, tags=[("1", "1", OLD)])
    store.repositories["copy"] = Repository(revisions={_digest("1"): Link(OLD, _digest("1"))})

    found = plan(store, RULES)

    assert found.unlink == (("copy", _digest("1")),)
    assert found.frees == {}


class TestRetention:
    """Tags go only where rules were given, none of which keeps them."""

    _TAGS = (("1", "1", OLD), ("2", "2", OLD + DAY), ("3", "3", OLD + 2 * DAY), ("new", "4", NOW - 60))

    def _plan(self, **rules):
        store = _store(manifests=dict.fromkeys("1234", (OLD, (), ())), tags=self._TAGS)
        return plan(store, Rules(grace_s=DAY, retention=Retention(**rules)))

    def test_without_rules_every_tag_stays(self):
        """The default."""
        assert self._plan().untag == {}

    def test_the_last_ones_stay(self):
        """By the time at which they were last written; what goes says why."""
        found = self._plan(keep_last=2)

        assert set(found.untag) == {("app", "1"), ("app", "2")}
        assert found.untag["app", "1"] == "written 30 days ago, and no rule keeps it"
        assert _planned(found) == {"1", "2"}

    def test_one_rule_that_keeps_is_enough(self):
        """Young tags stay in any case."""
        found = self._plan(keep_matching=("1|v.*",), keep_within_s=28.5 * DAY)

        assert set(found.untag) == {("app", "2")}
        assert found.kept_tags["app", "1"] == "matches 1|v.*"

    @pytest.mark.parametrize(
        ("rules", "why"),
        [
            ({"keep_last": 2}, "one of the last 2"),
            ({"keep_matching": ("3",)}, "matches 3"),
            ({"keep_within_s": 28.5 * DAY}, "young enough"),
        ],
    )
    def test_each_rule_is_one_alone(self, rules, why):
        """And whatever it says, a tag that was just written stays."""
        found = self._plan(**rules)

        assert set(found.untag) == {("app", "1"), ("app", "2")}
        assert found.kept_tags["app", "3"] == why

    def test_records_go_with_their_tag(self):
        """And backups stay: they have a policy of their own."""
        record, backup = "slipway.record.1.linux-amd64", "slipway.backup.1.20231101T000000Z.0123456789ab"
        begun = "slipway.record.next.linux-amd64"  # its tag is written next
        tags = (*self._TAGS, (record, "5", OLD), (backup, "6", OLD), (begun, "6", NOW - 60))
        store = _store(manifests=dict.fromkeys("123456", (OLD, (), ())), tags=tags)

        found = plan(store, Rules(grace_s=DAY, retention=Retention(keep_last=3)))

        assert set(found.untag) == {("app", "1"), ("app", record)}

    def test_old_backups_go_when_their_tag_is_gone(self):
        """And the tags of images that no other backup lists; those of tags that are there have a policy of their own.

        An image whose tag is young may be of a backup that is being taken.
        """
        image, shared, begun = "slipway.image.8", "slipway.image.9", "slipway.image.4"
        gone, lives = "slipway.backup.1.20200101T000000Z.0", "slipway.backup.new.20200101T000000Z.0"
        tags = (
            *self._TAGS,
            (gone, "6", OLD),
            (lives, "7", OLD),
            (image, "8", OLD),
            (shared, "9", OLD),
            (begun, "4", NOW - 60),
        )
        images = dict.fromkeys("123489", (OLD, (), ()))
        store = _store(manifests={**images, "6": (OLD, ("8", "9"), ()), "7": (OLD, ("9",), ())}, tags=tags)

        found = plan(store, Rules(grace_s=DAY, retention=Retention(keep_last=3)))

        assert set(found.untag) == {("app", "1"), ("app", gone), ("app", image)}
        assert _planned(found) == {"1", "6", "8"}

    @pytest.mark.parametrize("platform", ["linux-amd64", "windows-amd64-10.0.20348.1", "linux-amd64_0123456789abcdef"])
    def test_records_and_notes_go_though_a_tag_stays_whose_name_begins_theirs(self, platform):
        """A tag 1 keeps neither those of 1.2.3 nor those of 1.linux-arm64, but its own."""
        own = {f"slipway.record.1.{platform}", "slipway.behind.1"}
        gone = {f"slipway.record.1.2.3.{platform}", f"slipway.record.1.linux-arm64.{platform}", "slipway.behind.1.2.3"}
        unknown = "slipway.record.1.templeos-amd64"
        tags = [("1", "1", OLD + DAY), ("1.2.3", "2", OLD), *((each, "3", OLD) for each in (*own, *gone, unknown))]
        store = _store(manifests=dict.fromkeys("123", (OLD, (), ())), tags=tags)

        found = plan(store, Rules(grace_s=DAY, retention=Retention(keep_last=1)))

        assert set(found.untag) == {("app", each) for each in gone | {"1.2.3"}}

    def test_a_pattern_that_is_none_is_told(self):
        """Before anything is done."""
        with pytest.raises(InvalidReference, match="no regular expression"):
            Retention(keep_matching=("(",))


class TestSignatures:
    """Tags that are named for a digest go with what they are about, where rules were given."""

    @staticmethod
    def _about(name, suffix=""):
        return f"sha256-{name:0>64}{suffix}"

    @staticmethod
    def _gone(found):
        return {tag for _, tag in found.untag}

    def _plan(self, *tags, old=OLD, keep=(), history=(), keep_last=1, **rules):
        """Plan over signed images: 1 has the index b of the signature a, whose own is signed by c, in d; 2 is the last."""
        images = {"1": (OLD, (), ("f1",)), "2": (OLD, ("3",), ()), "3": (OLD, (), ("f3",)), "5": (OLD, (), ())}
        signatures = {"a": (old, (), ()), "b": (old, ("a",), ()), "c": (old, (), ()), "d": (old, ("c",), ())}
        store = _store(
            manifests={**images, **signatures},
            tags=[("v1", "1", OLD), ("v2", "2", OLD + DAY), *tags],
            history=history,
            about={"a": "1", "c": "a"}.items(),
        )
        retention = Retention(keep_last=keep_last, **rules)
        return plan(store, Rules(grace_s=DAY, keep=frozenset(map(_digest, keep)), retention=retention))

    def test_they_go_with_their_image(self):
        """Signatures of signatures too; nothing of it is left."""
        index, sig, chain = self._about("1"), self._about("1", ".sig"), self._about("a")

        found = self._plan((index, "b", OLD), (sig, "5", OLD), (chain, "d", OLD))

        assert self._gone(found) == {"v1", index, sig, chain}
        assert found.untag["app", sig] == "nothing else needs what it is about"
        assert _planned(found) == set("15abcd")
        assert "f1" in _freed(found)

    def test_without_rules_they_stay(self):
        """With what they are about, as any tag."""
        found = self._plan((self._about("1"), "b", OLD), (self._about("5", ".att"), "5", OLD), keep_last=0)

        assert found.untag == {}
        assert set(found.kept_tags.values()) == {"tag"}

    def test_those_of_an_image_that_stays_do_too(self):
        """By its tag, by an index's, by the list of what is kept, by the tag that it had; also those of its signatures."""
        tags = [(self._about("1"), "b", OLD), (self._about("a"), "d", OLD), (self._about("3", ".sbom"), "5", OLD)]

        assert self._gone(self._plan(*tags, keep_last=2)) == set()
        assert self._gone(self._plan(*tags, keep="1")) == {"v1"}
        assert self._gone(self._plan(*tags, ("v2.1", "2", NOW - 60), history=[("v2.1", "1", OLD)])) == {"v1", "v2"}
        assert self._gone(self._plan(tags[2])) == {"v1"}

    def test_young_ones_stay_with_what_they_are_about(self):
        """Somebody signs an old image: its tag may come next."""
        found = self._plan((self._about("1"), "b", NOW - 60), (self._about("1", ".sig"), "5", OLD))

        assert self._gone(found) == {"v1"}
        assert _planned(found) == {"d"}
        assert found.kept_tags["app", self._about("1")] == "within the grace time"
        assert self._gone(self._plan((self._about("1"), "b", OLD), old=NOW - 60)) == {"v1"}

    def test_those_about_what_is_not_in_the_repository_stay(self):
        """Cosign can be told to store signatures elsewhere."""
        assert self._gone(self._plan((self._about("9", ".sig"), "5", OLD))) == {"v1"}

    def test_their_backups_stay_with_them_and_no_longer_than_others(self):
        """A backup of a signature's index does not hold the image for good."""
        index = self._about("1")
        backup, image = f"slipway.backup.{key(index)}.20200101T000000Z.b", f"slipway.image.{_digest('a')[7:47]}"
        tags = [(index, "b", OLD), (backup, "b", OLD), (image, "a", OLD)]

        assert self._gone(self._plan(*tags, keep_last=2)) == set()
        assert self._gone(self._plan(*tags)) == {"v1", index, backup, image}
        assert self._gone(self._plan(*tags, backups_within_s=9 * 365 * DAY)) == {"v1"}


@st.composite
def _stores(draw):
    """Make storages of two repositories with random references, tags, histories and times."""
    names = [f"{number:x}" for number in range(1, draw(st.integers(2, 12)))]
    times = st.sampled_from([OLD, NOW - 2 * DAY, NOW - HOUR])
    store = Store(now=NOW)
    store.blobs = {_digest(f"b{name}"): Blob(10, draw(times)) for name in names}
    for number, name in enumerate(names):
        below = names[:number] or [name]
        children = draw(st.lists(st.sampled_from(below), max_size=3)) if number else []
        parts = draw(st.lists(st.sampled_from([*below, *(f"b{each}" for each in names)]), max_size=3))
        subject = draw(st.sampled_from(["", *names]))
        store.references[_digest(name)] = References(
            tuple(map(_digest, children)), tuple(map(_digest, parts)), subject and _digest(subject)
        )
        store.blobs[_digest(name)] = Blob(10, draw(times))
    for name in ("app", "team/app"):
        repository = store.repositories[name] = Repository()
        for each in names:
            repository.revisions[_digest(each)] = Link(draw(times), _digest(each))
        for tag in draw(st.lists(st.sampled_from(["1", "2", "sha256-x"]), unique=True)):
            current = draw(st.sampled_from(names))
            written = draw(times)
            past = {_digest(draw(st.sampled_from(names))): draw(times) for _ in range(draw(st.integers(0, 2)))}
            repository.tags[tag] = Tag(Link(written, _digest(current)), {**past, _digest(current): written})
    return store


@given(_stores())
def test_nothing_that_can_be_reached_is_planned(store):
    """Walk from every tag by the rules of a client, not the planner's: each manifest and blob on the way stays."""
    found = plan(store, RULES)
    gone = set(found.unlink)

    for name, repository in store.repositories.items():
        for tag in repository.tags.values():
            pending = [tag.current.digest]
            for digest in pending:
                assert (name, digest) not in gone
                assert not set(store.references[digest].blobs) & found.frees.keys()
                assert digest not in found.frees
                listed = {*store.references[digest].children, *store.references[digest].blobs} & store.references.keys()
                pending += listed - set(pending)


@given(_stores())
def test_what_stays_is_whole_and_what_goes_is_old(store):
    """No kept manifest lacks a part, and nothing younger than the grace time goes."""
    found = plan(store, RULES)

    for name, digest in found.kept:
        parts = store.references[digest]
        listed = {*parts.children, *parts.blobs} & store.references.keys()
        assert all((name, child) in found.kept for child in listed)
        assert not {*parts.blobs, digest} & found.frees.keys()
    for name, digest in found.unlink:
        assert store.repositories[name].revisions[digest].written <= NOW - DAY
    assert all(store.blobs[digest].written <= NOW - DAY for digest in found.frees)


@given(_stores())
def test_all_that_nothing_needs_goes(store):
    """An image that no root reaches is planned, and planning what remains plans nothing more."""
    first = plan(store, RULES)
    for name, digest in first.unlink:
        del store.repositories[name].revisions[digest]
    for digest in first.frees:
        del store.blobs[digest]

    again = plan(store, RULES)

    assert again.unlink == ()
    assert again.frees == {}
