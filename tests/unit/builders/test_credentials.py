"""Where a user's client certificates lie, and when they are taken for usable."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from builders import certificates, credentials
from builders.errors import InvalidSetting

NOW = datetime(2026, 11, 23, tzinfo=UTC)
AUTHORITY = certificates.create_authority("dev", now=NOW)


def _leaf(days: int = 30) -> certificates.Leaf:
    return certificates.issue_client(AUTHORITY, "operator", now=NOW, days=days)


@pytest.fixture(autouse=True)
def config_home(tmp_path, monkeypatch):
    """Give the user an empty configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_what_is_written_is_read_again():
    """The folder is the one that buildx is told."""
    leaf = _leaf()

    folder = credentials.write("dev", AUTHORITY.certificate, leaf)

    assert credentials.read("dev") == credentials.Held(folder=folder, authority=AUTHORITY.certificate, leaf=leaf)


def test_what_is_written_later_takes_the_place_of_what_was_there():
    """A renewed certificate is the same files' new content."""
    credentials.write("dev", AUTHORITY.certificate, _leaf())
    renewed = _leaf()

    credentials.write("dev", AUTHORITY.certificate, renewed)

    assert credentials.read("dev").leaf == renewed


def test_what_others_could_read_they_cannot_once_it_is_written_again():
    """Also where its content is the same."""
    leaf = _leaf()
    key = credentials.write("dev", AUTHORITY.certificate, leaf) / "key.pem"
    key.chmod(0o644)

    credentials.write("dev", AUTHORITY.certificate, leaf)

    assert key.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_told_and_leaves_nothing_behind():
    """No half of a key in the folder."""
    folder = credentials.folder("dev")
    (folder / "key.pem").mkdir(parents=True)

    with pytest.raises(OSError, match=r"key\.pem"):
        credentials.write("dev", AUTHORITY.certificate, _leaf())

    assert [path.name for path in folder.iterdir()] == ["key.pem"]


def test_nobody_else_can_read_them(config_home):
    """The folder and its three files are for this user only."""
    credentials.write("dev", AUTHORITY.certificate, _leaf())

    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (config_home / "slipway" / "dev").iterdir()}
    assert modes == {"ca.pem": "0o600", "cert.pem": "0o600", "key.pem": "0o600"}
    assert oct((config_home / "slipway" / "dev").stat().st_mode & 0o777) == "0o700"


def test_writing_the_same_again_writes_nothing():
    """A second `up` leaves the files as they are."""
    leaf = _leaf()
    folder = credentials.write("dev", AUTHORITY.certificate, leaf)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}

    credentials.write("dev", AUTHORITY.certificate, leaf)

    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_a_key_of_another_certificate_is_not_usable():
    """A run that died between two files is mended by the next."""
    folder = credentials.write("dev", AUTHORITY.certificate, _leaf())
    (folder / "key.pem").write_text(_leaf().key)

    assert credentials.read("dev") is None


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff"])
def test_a_missing_or_broken_file_is_not_usable(name, content):
    """What cannot be used counts as absent."""
    folder = credentials.write("dev", AUTHORITY.certificate, _leaf())
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)

    assert credentials.read("dev") is None


def test_removal_leaves_other_builders_alone(config_home):
    """Removing what is absent is no error."""
    credentials.write("dev", AUTHORITY.certificate, _leaf())
    credentials.write("prod", AUTHORITY.certificate, _leaf())

    credentials.remove("dev")
    credentials.remove("dev")

    assert [path.name for path in (config_home / "slipway").iterdir()] == ["prod"]


def test_a_day_that_has_begun_is_a_day_left():
    """A certificate has its full number of days at first, 1 in its last hours, and none once it has ended."""
    credentials.write("dev", AUTHORITY.certificate, _leaf(days=2))
    held = credentials.read("dev")

    assert held.days_left(NOW) == 2
    assert held.days_left(datetime(2026, 11, 24, 1, tzinfo=UTC)) == 1
    assert held.days_left(datetime(2026, 11, 26, tzinfo=UTC)) == -1


def test_of_two_that_write_at_once_one_pair_is_there():
    """A key of the one beside a certificate of the other would be usable for nobody."""
    leaves = [_leaf(), _leaf()]

    with ThreadPoolExecutor(max_workers=4) as pool:
        for _ in range(50):
            list(pool.map(lambda leaf: credentials.write("dev", AUTHORITY.certificate, leaf), leaves * 2))
            assert credentials.read("dev")


def test_a_folder_that_no_builder_can_have_is_none_of_ours(config_home):
    """Whoever keeps their configuration under version control can still see, build and disconnect."""
    credentials.write("dev", AUTHORITY.certificate, _leaf())
    (config_home / "slipway" / ".git").mkdir()
    (config_home / "slipway" / "notes").write_text("")

    assert credentials.builders() == ("dev",)


@pytest.mark.parametrize("builder", ["../dev", "a/b", "", "1st", ".", "a b"])
def test_a_name_that_is_no_builder_name_is_refused(builder):
    """No name leads out of the folder."""
    with pytest.raises(InvalidSetting):
        credentials.folder(builder)
