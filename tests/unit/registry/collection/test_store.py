"""What manifests and listings say, as a storage's value."""

from __future__ import annotations

import json

import pytest

from scripts.registry import manifests
from scripts.registry.collection import store
from scripts.registry.collection.store import References
from scripts.registry.manifests import OCI_MANIFEST

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def _references(**members):
    body = json.dumps({"schemaVersion": 2, **members}).encode()
    return store.references_of(manifests.digest_of(body), body)


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"config": {"digest": A}, "layers": None}, References(blobs=(A,))),
        ({"manifests": None}, References()),
        ({"config": None, "layers": None, "manifests": [{"digest": A}]}, References(children=(A,))),
        ({"config": {"digest": A}, "layers": [{"digest": B}], "manifests": None}, References(blobs=(A, B))),
        ({"fsLayers": [{"blobSum": A}], "manifests": None}, References(blobs=(A,))),
    ],
)
def test_an_array_that_go_wrote_as_null_is_an_empty_one(members, found):
    """And hides nothing that is listed beside it."""
    assert _references(**members) == found


def test_what_an_index_lists_is_a_manifest_or_a_blob():
    """By its media type, and an unknown one's is a blob; what an image is about is neither."""
    listed = [{"mediaType": OCI_MANIFEST, "digest": A}, {"mediaType": "application/vnd.example", "digest": B}]

    assert _references(manifests=listed) == References(children=(A,), blobs=(B,))
    assert _references(config={"digest": A}, layers=[], subject={"digest": C}) == References(blobs=(A,), subject=C)


def test_a_manifest_of_schema_1_is_one():
    """Nobody pushes it any more, and its layers stay."""
    assert _references(fsLayers=[{"blobSum": A}, {"blobSum": B}]) == References(blobs=(A, B))


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"", "it is empty"), (b'{"manifests": []}', "its content has another digest"), (b"[]", "it is no manifest")],
)
def test_a_file_that_is_not_the_manifest_is_told(body, said):
    """A whole manifest too, where it is another one."""
    digest = A if "another" in said else manifests.digest_of(body)

    with pytest.raises(ValueError, match=said):
        store.references_of(digest, body)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"layers": []},
        {"config": None, "layers": []},
        {"manifests": {}},
        {"config": {"digest": A}, "layers": "none"},
    ],
)
def test_what_is_no_manifest_is_told(members):
    """Neither an index nor an image."""
    with pytest.raises(ValueError, match="it is no manifest"):
        _references(**members)


def test_a_manifest_that_is_nested_too_deeply_is_told():
    """Registries take it where nobody looks at the member."""
    body = b'{"schemaVersion": 2, "layers": [], "config": {}, "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    found = store.Store(now=0)

    store.learn(found, {manifests.digest_of(body): body})

    assert found.unreadable == {manifests.digest_of(body): "it is nested too deeply"}


@pytest.mark.parametrize("listed", [5, [], "manifest", None])
def test_a_descriptor_that_is_none_is_told(listed):
    """As one without a digest."""
    with pytest.raises(ValueError, match="a descriptor of it has no digest"):
        _references(manifests=[listed])


@pytest.mark.parametrize("digest", ["", "sha256", "sha256:", "sha256:a b", "sha256:../x", None, 5])
def test_a_descriptor_without_a_digest_is_told(digest):
    """No path and no command is ever made of what is none."""
    with pytest.raises(ValueError, match="a descriptor of it has no digest"):
        _references(manifests=[{"mediaType": OCI_MANIFEST, "digest": digest}])
