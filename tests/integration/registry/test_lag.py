"""What lags behind, on real registries: noted before the tag is written, true while the tag says so, gone when it is not."""

from datetime import UTC, datetime, timedelta

import pytest

from scripts.benchmarks.registries import SERVERS
from scripts.registry import lag, maintenance, platforms, references
from scripts.registry.client import Client, Settings
from scripts.registry.errors import ReadOnly

AMD64, ARM64 = "linux/amd64", "linux/arm64"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AMD, ARM = platforms.parse("linux/amd64"), platforms.parse("linux/arm64")


@pytest.fixture
def run():
    """The door."""
    client = Client(Settings())
    yield client.run
    client.close()


@pytest.fixture
def target(server, repository):
    """A tag with both platforms."""
    server.push_index(repository, "1", [AMD64, ARM64], text="old")
    return references.parse(f"{server.host}/{repository}:1")


def _rebuilt(server, target, platform, slipway):
    image = server.push_image(target.repository, platform, text="new")
    slipway("merge", target, "--from", f"{target.name}@{image['digest']}")


def test_a_note_holds_once_the_tag_has_moved(server, target, run, slipway):
    """Until the merge it says nothing: a run that is killed before it has changed nothing."""
    run(lag.note(target, [ARM], revision="c1", now=NOW))
    assert run(lag.lagging(target)) == []

    _rebuilt(server, target, AMD64, slipway)

    (behind,) = run(lag.lagging(target))
    assert (behind.platform, behind.revision, behind.since) == (ARM, "c1", NOW)
    assert run(lag.lagging_in(target.tagged(""))) == [behind]


def test_a_second_note_keeps_the_age_and_names_the_later_commit(server, target, run, slipway):
    """The platform has been behind since the first."""
    run(lag.note(target, [ARM], revision="c1", now=NOW))
    _rebuilt(server, target, AMD64, slipway)

    run(lag.note(target, [ARM], revision="c2", now=NOW + timedelta(days=1)))

    (behind,) = run(lag.lagging(target))
    assert (behind.revision, behind.since) == ("c2", NOW)


def test_whoever_rebuilds_the_platform_ends_the_lag(server, target, run, slipway):
    """By a merge or by an ordinary push, with nothing said to the note."""
    run(lag.note(target, [ARM], revision="c1", now=NOW))
    _rebuilt(server, target, AMD64, slipway)
    _rebuilt(server, target, ARM64, slipway)

    assert run(lag.lagging(target)) == []


def test_a_platform_that_the_tag_never_had_lags_too(server, repository, run, slipway):
    """The tag was made while its builder was down."""
    target = references.parse(f"{server.host}/{repository}:1")
    run(lag.note(target, [ARM], revision="", now=NOW))
    image = server.push_image(repository, AMD64, text="new")
    slipway("merge", target, "--create", "--from", f"{target.name}@{image['digest']}")

    assert [each.platform for each in run(lag.lagging(target))] == [ARM]


def test_forgetting_leaves_no_tag_behind(server, target, run):
    """What was built is struck out; the last one takes the note with it."""
    run(lag.note(target, [AMD, ARM], revision="c1", now=NOW))
    server.push_index(target.repository, "1", [ARM64, AMD64], text="old")  # other bytes, the same images
    assert [each.platform for each in run(lag.lagging(target))] == [AMD, ARM]

    assert [each.platform for each in run(lag.forget(target, [ARM], token="a"))] == [AMD]
    assert run(lag.forget(target, [AMD], token="b")) == []
    assert [tag for tag in server.tags(target.repository) if "behind" in tag] == []


@pytest.mark.parametrize("version", SERVERS)
def test_a_registry_in_maintenance_is_told_from_one_that_writes(version, new_registry, run):
    """And the attempt leaves no upload behind; what stays of one is an empty folder, until the registry purges it."""
    registry = new_registry(version)
    target = references.parse(f"{registry.host}/app:1")

    run(maintenance.check_writable(target))
    assert [each.name for each in registry.home.rglob("_uploads/**/*") if each.name in {"startedat", "data"}] == []
    registry.restart(REGISTRY_STORAGE_MAINTENANCE_READONLY='{"enabled":true}')
    with pytest.raises(ReadOnly):
        run(maintenance.check_writable(target))
