"""References: what is read, what is refused, and the names of our own tags."""

import re

import pytest

from scripts.registry import platforms, records, references
from scripts.registry.errors import InvalidReference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "host", "repository", "version"),
    [
        ("localhost/app", "localhost", "app", "latest"),
        ("reg.example.com:5000/a/b-c/d_e:1.2", "reg.example.com:5000", "a/b-c/d_e", "1.2"),
        (f"[::1]:5000/app@{DIGEST}", "[::1]:5000", "app", DIGEST),
        ("alpine", references.HUB, "library/alpine", "latest"),
        ("docker.io/team/app:x", references.HUB, "team/app", "x"),
        ("team/app:x", references.HUB, "team/app", "x"),
        ("reg.test:65535/app", "reg.test:65535", "app", "latest"),
        (f"reg.test/app:1@{DIGEST}", "reg.test", "app", DIGEST),
    ],
)
def test_a_reference_has_its_parts(text, host, repository, version):
    """Docker's own rules, its hub included."""
    found = references.parse(text)

    assert (found.host, found.repository, found.version) == (host, repository, version)


def test_a_digest_has_no_tag_beside_it_and_a_tag_no_digest():
    """What is written to a tag is written to that, whatever named it before."""
    found = references.parse(f"reg.test/app@{DIGEST}")

    assert (found.tag, found.tagged("2").version, found.tagged("2").at(DIGEST).tag) == ("", "2", "")


@pytest.mark.parametrize(
    "host", ["reg.test:65536", "[::1::2]", "[1:2]:5000", ".".join(["a" * 60] * 4) + ".longer-than-253"]
)
def test_a_host_that_is_none_is_refused(host):
    """Neither its length nor its address or port is left to a resolver."""
    assert not references.is_host(host)
    with pytest.raises(InvalidReference, match="is no host"):
        references.parse(f"{host}/app:1")


@pytest.mark.parametrize(
    ("text", "hint"), [("reg.test/App", "a repository's name is in lower case"), ("reg.test/a//b", "say REGISTRY/")]
)
def test_a_repository_that_is_none_is_told_with_what_to_do(text, hint):
    """Capitals are what is tried most."""
    with pytest.raises(InvalidReference) as caught:
        references.parse(text)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("text", ["", "reg.test/", "reg.test/App", "reg.test/app:", "reg.test/a//b", "reg.test/app:-x",
                                  "reg.test/app@md5:1", "re g.test/app", "reg.test/app:" + "x" * 129])  # fmt: skip
def test_what_is_none_is_refused_by_name(text):
    """Before anything is asked."""
    with pytest.raises(InvalidReference, match=r"^reference "):
        references.parse(text)


@pytest.mark.parametrize("tag", ["1", "x" * 128, "a.b-c_d"])
@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm/v7", "windows/amd64"])
def test_a_records_tag_is_a_tag_whatever_it_is_for(tag, platform):
    """At most 128 characters, and different for different tags."""
    target = references.parse(f"reg.test/app:{tag}")

    name = records.record_tag(target, platforms.parse(platform)).tag

    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", name)
    assert name != records.record_tag(target.tagged(tag[:-1] + "y"), platforms.parse(platform)).tag
