"""What this machine remembers of tags that lag behind."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from builders import lagging
from scripts.registry import references

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
