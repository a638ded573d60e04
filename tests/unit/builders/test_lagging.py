"""What this machine remembers of tags that lag behind."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from builders import lagging
from scripts.registry import lag, references
from scripts.registry.errors import RegistryUnreachable

TAGS = [references.parse(f"registry.example.com/app:{number}") for number in range(40)]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """Give the user an empty memory; it is this file."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "XDG_STATE_HOME" / "slipway" / "lagging"


def test_what_is_remembered_is_there_until_it_is_forgotten():
    """In the order in which it came, each tag once."""
    for tag in (TAGS[1], TAGS[0], TAGS[1]):
        lagging.remember(tag)
    lagging.forget(TAGS[1])

    assert lagging.remembered() == (TAGS[0],)


def test_a_line_that_is_no_tag_is_passed_over(file):
    """Whatever bytes are in it."""
    lagging.remember(TAGS[0])
    with file.open("ab") as stream:
        stream.write(b"\xc7\xff\0 not a tag\n")

    assert lagging.remembered() == (TAGS[0],)


def test_what_was_never_remembered_is_forgotten_without_a_write(monkeypatch):
    """A job whose home cannot be written has nothing to forget."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")

    lagging.forget(TAGS[0])


def test_builds_side_by_side_lose_no_tag():
    """Two shells of one user."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lagging.remember, TAGS))
        assert set(lagging.remembered()) == set(TAGS)
        list(pool.map(lagging.forget, TAGS[1:]))

    assert lagging.remembered() == (TAGS[0],)


def test_each_place_is_asked_once_and_a_tag_that_lags_no_more_is_forgotten(monkeypatch):
    """Tags one by one, a repository as a whole; one that cannot be asked is told, and remembered."""
    monkeypatch.setattr(lag, "lagging", lambda place: f"tag {place.name}:{place.tag}")
    monkeypatch.setattr(lag, "lagging_in", lambda place: f"all of {place.name}")
    away = RegistryUnreachable("away.example.com: no answer")
    answers = {
        "tag registry.example.com/app:0": ["a lag"],
        "tag registry.example.com/app:1": [],
        "all of registry.example.com/team": ["another", "and one more"],
        "all of registry.example.com/quiet": [],
        "tag away.example.com/app:1": away,
    }
    team, gone = (references.parse(name) for name in ("registry.example.com/team:7", "away.example.com/app:1"))
    for tag in (TAGS[0], TAGS[1], team, gone):
        lagging.remember(tag)

    def registry(begin):
        answer = answers.pop(begin())
        if answer is away:
            raise away
        return answer

    found = lagging.find(["registry.example.com/team", "registry.example.com/quiet"], registry)

    assert found == (["a lag", "another", "and one more"], {gone: away})
    assert answers == {}
    assert lagging.remembered() == (TAGS[0], team, gone)
