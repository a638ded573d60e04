"""What of an install can be told without a machine; the rest is tests/e2e/test_buildkit.py."""

from __future__ import annotations

import hashlib

import pytest

from builders import buildkit
from builders.errors import InvalidSetting


def test_a_local_tarball_is_found_and_its_digest_computed(tmp_path, monkeypatch):
    """`~` is the home of whoever runs this."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "buildkit.tar.gz").write_bytes(b"content")

    assert buildkit.resolve("~/buildkit.tar.gz", "") == (
        str(tmp_path / "buildkit.tar.gz"),
        "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
    )


def test_a_url_passes_through():
    """The machine downloads and checks it."""
    assert buildkit.resolve("https://example.com/b.tar.gz", "ab" * 32) == ("https://example.com/b.tar.gz", "ab" * 32)


def test_a_digest_that_does_not_fit_is_a_wrong_setting(tmp_path):
    """Both digests are shown."""
    path = tmp_path / "buildkit.tar.gz"
    path.write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()

    with pytest.raises(InvalidSetting, match=f"has the sha256 {digest}, not {'0' * 64}"):
        buildkit.resolve(str(path), "0" * 64)


def test_a_missing_tarball_names_the_cure(tmp_path):
    """The path is shown in full."""
    with pytest.raises(
        InvalidSetting, match=f"{tmp_path}/none cannot be read \\(No such file or directory\\)"
    ) as caught:
        buildkit.resolve(str(tmp_path / "none"), "")
    assert "scripts/setup" in caught.value.hint


class _Node:
    """A connection to a node that answers the look at it with these three parts."""

    def __init__(self, record, certificate):
        self.answer = f"{record}\n\n--\n{certificate}\n\n--\nthe files\n"

    def run(self, _command):
        return self.answer


RECORD = '{"version": "v0.32.2", "sha256": "", "platforms": ["linux/arm64"], "snapshotter": "overlayfs", "configuration": "c"}'


@pytest.mark.parametrize("record", ["", "{", "[]", '{"version": "v0.32.2"}', RECORD.replace("}", ', "later": 1}')])
def test_a_record_that_cannot_be_read_is_no_completed_install(record):
    """The next install mends it; a later version of this program may have written it."""
    assert buildkit.observe(_Node(record, "")) is None


@pytest.mark.parametrize("certificate", ["", "-----BEGIN CERTIFICATE-----\nMIIB\n"])
def test_a_certificate_that_cannot_be_read_has_ended(certificate):
    """So it is renewed."""
    installed = buildkit.observe(_Node(RECORD, certificate))

    assert (installed.version, installed.certificate_expires.year) == ("v0.32.2", 1)
