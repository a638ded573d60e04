"""Merging as a function of bytes: what changes, what never does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.registry import manifests, platforms
from scripts.registry.errors import InvalidManifest, SourceRefused
from scripts.registry.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Contribution

NAMES = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "windows/amd64"]
WANTED = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 3)), min_size=1, max_size=4, unique_by=lambda each: each[0]
)
STYLES = st.sampled_from([None, 1, 2, 4])


def _digest(text):
    return manifests.digest_of(str(text).encode())


def _entry(name, number, **more):
    platform = dict(zip(("os", "architecture", "variant"), name.split("/"), strict=False))
    return {"mediaType": OCI_MANIFEST, "digest": _digest((name, number)), "size": 7, "platform": platform, **more}


def _attestation(subject):
    return {
        "mediaType": OCI_MANIFEST,
        "digest": _digest(("attestation", subject)),
        "size": 9,
        "annotations": {"vnd.docker.reference.digest": subject, "vnd.docker.reference.type": "attestation-manifest"},
        "platform": {"architecture": "unknown", "os": "unknown"},
    }


def _index(entries, indent=2, media_type=OCI_INDEX, **more):
    value = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **more}
    return manifests.parse(json.dumps(value, indent=indent).encode(), media_type, name="index")


def _contribution(name, number, *, attest=False):
    image = _entry(name, number)
    entries = [image, *([_attestation(image["digest"])] if attest else [])]
    index = _index(entries)
    ((platform, descriptor),) = index.images().items()
    return Contribution(platform=platform, image=descriptor, attestations=index.attestations(descriptor.digest))


def _digests(index):
    return {str(platform): each.digest for platform, each in index.images().items()}


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_that_go_wrote_as_null_is_an_empty_one(indent):
    """Registries take it: an index without parts can be merged into, and an image without layers is one."""
    target = _index(None, indent, config=None, layers=None)
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": _digest("config"), "size": 2}
    body = json.dumps({"schemaVersion": 2, "config": config, "layers": None, "manifests": None}).encode()

    merged, _ = manifests.merge(target, [_contribution("linux/amd64", 1)])

    assert target.descriptors == ()
    assert _digests(merged) == {"linux/amd64": _digest(("linux/amd64", 1))}
    assert json.loads(merged.body)["manifests"] == [_entry("linux/amd64", 1)]
    for media_type in (OCI_MANIFEST, ""):
        assert manifests.parse(body, media_type, name="image").layers == ()


@given(present=WANTED, wanted=WANTED, attest=st.booleans(), indent=STYLES)
def test_a_merge_is_idempotent_and_never_shrinks(present, wanted, attest, indent):
    """Once more is the same bytes; every platform of before is there, and every wanted one is what was wanted."""
    images = [_entry(*each) for each in present]
    target = _index([*images, *(_attestation(each["digest"]) for each in images)], indent)
    parts = [_contribution(*each, attest=attest) for each in wanted]

    once, _ = manifests.merge(target, parts)
    twice, _ = manifests.merge(once, parts)

    assert twice.body == once.body
    assert manifests.parse(once.body, once.media_type, name="once").descriptors == once.descriptors
    assert _digests(target).keys() <= _digests(once).keys()
    assert {str(each.platform): each.image.digest for each in parts}.items() <= _digests(once).items()
    assert once.orphans() == ()


@given(present=WANTED, wanted=WANTED, indent=STYLES, data=st.data())
def test_the_order_of_sources_does_not_change_what_clients_get(present, wanted, indent, data):
    """The same images for the same platforms; only new entries may stand in another order."""
    target = _index([_entry(*each) for each in present], indent)
    parts = [_contribution(*each) for each in wanted]

    one, _ = manifests.merge(target, parts)
    other, _ = manifests.merge(target, data.draw(st.permutations(parts)))

    assert _digests(one) == _digests(other)


@given(
    present=WANTED,
    wanted=WANTED,
    indent=STYLES,
    unknown=st.dictionaries(
        st.text(), st.recursive(st.none() | st.floats(allow_nan=False) | st.text(), st.lists), max_size=3
    ),
)
def test_what_is_not_replaced_keeps_its_bytes(present, wanted, indent, unknown):
    """Unknown members of the index and of its entries, escapes and white space stay as they were."""
    names = {name for name, _ in wanted}
    more = {f"x-{key}": value for key, value in unknown.items()}
    target = _index([_entry(*each, **more) for each in present], indent, **more)

    merged, _ = manifests.merge(target, [_contribution(*each) for each in wanted])

    text = merged.body.decode()
    kept = [each for each in target.descriptors if str(each.platform) not in names]
    assert all(each.text in text for each in kept)
    assert text.startswith(target.body.decode()[: target.body.decode().index("[")])
    assert {key: value for key, value in json.loads(text).items() if key.startswith("x-")} == {
        key: value for key, value in json.loads(target.body).items() if key.startswith("x-")
    }


@pytest.mark.parametrize("present", range(3))
@pytest.mark.parametrize("style", [{"indent": 2}, {"separators": (",", ":")}])
def test_new_parts_are_laid_out_as_the_rest_is(present, style):
    """As one writer would lay out the whole."""
    entries = [_entry(name, 0) for name in NAMES[:present]]
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, "annotations": {"org.example": "keep"}}
    target = manifests.parse(json.dumps(value, **style).encode(), OCI_INDEX, name="index")

    merged, _ = manifests.merge(target, [_contribution("linux/arm64", 1, attest=True)])

    assert merged.body.decode() == json.dumps(json.loads(merged.body), **style)
    assert merged.descriptors == manifests.parse(merged.body, OCI_INDEX, name="merged").descriptors


def test_an_attestation_goes_with_its_image_and_no_other():
    """Those of the replaced image and theirs; the new image's stand right after it."""
    old, other = _entry("linux/arm64", 0), _entry("linux/amd64", 0)
    of_old, of_other = _attestation(old["digest"]), _attestation(other["digest"])
    deeper = _attestation(of_old["digest"])
    target = _index([old, other, of_old, of_other, deeper])

    merged, (change,) = manifests.merge(target, [_contribution("linux/arm64", 1, attest=True)])

    new = _entry("linux/arm64", 1)["digest"]
    order = [new, _attestation(new)["digest"], other["digest"], of_other["digest"]]
    assert [each.digest for each in merged.descriptors] == order
    assert (change.before, change.after) == ((old["digest"],), new)


class TestWhatIsThereAlready:
    """A platform that has the wanted image, whole or in part."""

    _AMD64, _ARM64 = _entry("linux/amd64", 0), _entry("linux/arm64", 0, annotations={"org.example": "keep"})
    _OF_AMD64, _OF_ARM64 = _attestation(_AMD64["digest"]), _attestation(_ARM64["digest"])

    @staticmethod
    def _merged(entries, wanted):
        """Merge into these entries; the entries then."""
        merged, _ = manifests.merge(_index(entries), [wanted])
        return json.loads(merged.body)["manifests"]

    @pytest.mark.parametrize("attest", [False, True])
    def test_the_order_and_the_bytes_are_the_targets_own(self, attest):
        """Nothing is written for an image that is there, be its attestation asked for or not."""
        target = _index([self._AMD64, self._ARM64, self._OF_AMD64, self._OF_ARM64])

        merged, (change,) = manifests.merge(target, [_contribution("linux/arm64", 0, attest=attest)])

        assert merged is target
        assert change.before == (change.after,)

    def test_another_image_of_the_platform_goes_and_its_attestation_with_it(self):
        """Those of the one that stays do too."""
        other = _entry("linux/arm64", 1)
        entries = [other, self._ARM64, self._AMD64, _attestation(other["digest"]), self._OF_ARM64]

        assert self._merged(entries, _contribution("linux/arm64", 0)) == [self._ARM64, self._AMD64, self._OF_ARM64]

    def test_a_new_attestation_takes_the_place_of_the_old_one(self):
        """The image's own entry keeps its bytes."""
        old = self._OF_ARM64 | {"digest": _digest("old")}

        found = self._merged([self._ARM64, self._AMD64, old], _contribution("linux/arm64", 0, attest=True))

        assert found == [self._ARM64, self._OF_ARM64, self._AMD64]

    def test_an_attestation_stays_with_the_other_platform_of_its_image(self):
        """One image may be of several platforms."""
        both = self._AMD64 | {"digest": self._ARM64["digest"]}

        found = self._merged([self._ARM64, both, self._OF_ARM64], _contribution("linux/arm64", 1))

        assert found == [_entry("linux/arm64", 1), both, self._OF_ARM64]

    def test_an_attestation_that_is_there_for_another_platform_is_not_listed_twice(self):
        """It stands after the image that came last."""
        both = self._AMD64 | {"digest": self._ARM64["digest"]}

        found = self._merged([both, self._OF_ARM64], _contribution("linux/arm64", 0, attest=True))

        assert found == [both, _entry("linux/arm64", 0), self._OF_ARM64]


@pytest.mark.parametrize(
    "entry",
    [
        _attestation(_digest("image")) | {"platform": {"os": "linux", "architecture": "arm64"}},
        _entry("unknown/unknown", 0),
        {name: value for name, value in _entry("linux/arm64", 0).items() if name != "platform"},
    ],
)
def test_what_no_client_chooses_is_no_image_and_stays(entry):
    """An attestation, also with its image's platform; and what has none."""
    merged, (change,) = manifests.merge(_index([entry]), [_contribution("linux/arm64", 1)])

    assert _index([entry]).images() == {}
    assert change.before == ()
    assert json.loads(merged.body)["manifests"] == [entry, _entry("linux/arm64", 1)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("linux/arm64/v8", "linux/arm64"), ("linux/aarch64", "arm64"), ("linux/amd64/v1", "linux/x86_64"),
        ("linux/arm", "linux/arm/v7"), ("linux/armhf", "linux/arm/7"), ("LINUX/AMD64", "linux/amd64"), ("macos/arm64", "darwin/arm64"),
    ],
)  # fmt: skip
def test_platforms_of_several_names_are_one(one, other):
    """As containerd has them."""
    assert platforms.parse(one) == platforms.parse(other)


def test_windows_versions_are_platforms_of_their_own():
    """A client chooses by them; on Linux they say nothing."""
    windows, linux = {"os": "windows", "architecture": "amd64"}, {"os": "linux", "architecture": "amd64"}

    assert platforms.from_json(windows | {"os.version": "10.1"}) != platforms.from_json(
        windows | {"os.version": "10.2"}
    )
    assert platforms.from_json(linux | {"os.version": "1"}) == platforms.from_json(linux)


def test_a_list_becomes_an_index_only_for_an_oci_part():
    """And then in its media type alone."""
    entry = _entry("linux/amd64", 0) | {"mediaType": DOCKER_MANIFEST}
    target = _index([entry], media_type=DOCKER_LIST)

    merged, _ = manifests.merge(target, [_contribution("linux/arm64", 0)])

    assert merged.media_type == OCI_INDEX
    assert json.loads(merged.body)["mediaType"] == OCI_INDEX
    assert json.loads(merged.body)["manifests"][0] == entry


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"\xff", b'{"manifests": {}}', b'{"manifests": [1]}', b'{"manifests": [{}]}',
        b'{"manifests": [], "config": {}}', b'{"manifests": [], "manifests": []}', b'{"layers": []}',
        b'{"mediaType": "text/plain"}', b"[" * 100_000, b'{"manifests": [], "layers": []}',
        *(b'{%s"config": {"digest": "%s", "size": 1}}' % (kind, _digest("config").encode())
          for kind in (b"", f'"mediaType": "{OCI_MANIFEST}", '.encode())),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_named(body):
    """Whatever comes, it is one error, and no traceback."""
    with pytest.raises(InvalidManifest, match=r"^reg/app:1: "):
        manifests.parse(body, "", name="reg/app:1")


def test_an_index_without_a_media_type_is_one():
    """The registry's own header says what it is."""
    body = json.dumps({"schemaVersion": 2, "manifests": [_entry("linux/amd64", 0)]}).encode()

    merged, _ = manifests.merge(manifests.parse(body, OCI_INDEX, name="x"), [_contribution("linux/arm64", 0)])

    assert "mediaType" not in json.loads(merged.body)
    assert len(merged.images()) == 2


@pytest.mark.parametrize(
    ("header", "more", "found"),
    [
        (f"{DOCKER_LIST}; charset=utf-8", {"manifests": []}, DOCKER_LIST),
        (OCI_INDEX, {"manifests": [], "mediaType": DOCKER_LIST}, DOCKER_LIST),
        (OCI_INDEX, {"layers": [], "mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST),
        ("text/plain", {"manifests": []}, OCI_INDEX),
        ("text/plain", {"layers": []}, OCI_MANIFEST),
    ],
)
def test_what_it_says_of_itself_is_what_it_is(header, more, found):
    """The header counts where it does not say; where neither tells, its parts do."""
    config = {} if "manifests" in more else {"config": {"digest": _digest("config"), "size": 1}}

    parsed = manifests.parse(json.dumps({"schemaVersion": 2, **config, **more}).encode(), header, name="x")

    assert parsed.media_type == found


def test_an_index_too_large_is_refused():
    """Registries take 4 MiB."""
    target = _index([_entry("linux/amd64", 0)], x="x" * (4 << 20))

    with pytest.raises(SourceRefused, match="registries take 4194304"):
        manifests.merge(target, [_contribution("linux/arm64", 0)])


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_layout_is_that_of_every_json_writer(value):
    """Indented as Go and Python indent, compact as they are compact."""
    text = json.dumps(value)

    assert manifests.layout(text, None) == json.dumps(value, separators=(",", ":"))
    assert manifests.layout(text, 0) == json.dumps(value, indent=2)
