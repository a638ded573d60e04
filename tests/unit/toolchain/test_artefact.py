"""Artefacts are there whole or not at all."""

import pytest

from scripts.toolchain.artefact import Artefact, digest


@pytest.fixture
def artefact(tmp_path):
    return Artefact(path=tmp_path / "tool", key="one")


def test_what_was_made_for_another_key_counts_as_missing(artefact):
    """A changed recipe makes the thing again; the same one does not."""
    with artefact.replace() as path:
        path.write_text("made")

    assert artefact.is_made()
    assert not Artefact(path=artefact.path, key="two").is_made()


def test_a_failed_making_leaves_nothing_new(artefact):
    """A build that fails half-way leaves no file of its own and the earlier result in place."""
    with artefact.replace() as path:
        path.write_text("first")

    with pytest.raises(NotADirectoryError), artefact.replace() as path:
        fail_half_way(path)

    assert artefact.path.read_text() == "first"
    assert artefact.is_made()
    assert sorted(each.name for each in artefact.path.parent.iterdir()) == [".tool.key", "tool"]


def fail_half_way(path):
    path.write_text("half")
    (path / "file").touch()


def test_what_a_killed_making_left_is_removed_by_the_next(artefact):
    """A killed build ran no clean-up; the next one does it."""
    (artefact.path.parent / ".tool.unfinished-123").mkdir()

    with artefact.replace() as path:
        path.write_text("made")

    assert sorted(each.name for each in artefact.path.parent.iterdir()) == [".tool.key", "tool"]


def test_a_folder_takes_the_place_of_a_folder(artefact):
    """A new folder holds nothing of the one before."""
    for name in ("old", "new"):
        with artefact.replace() as folder:
            folder.mkdir()
            (folder / name).touch()

    assert [each.name for each in artefact.path.iterdir()] == ["new"]


def test_a_removed_file_counts_as_missing(artefact):
    """The key alone is no proof."""
    with artefact.replace() as path:
        path.write_text("made")

    artefact.path.unlink()

    assert not artefact.is_made()


def test_the_borders_between_parts_count():
    """Moving a character from one part to the next is another key."""
    assert digest("ab", "c") != digest("a", "bc")
