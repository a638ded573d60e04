"""builders.platforms: the words for a platform."""

import pytest

from builders.errors import InvalidSetting
from builders.platforms import Platform, parse_platform


@pytest.mark.parametrize(
    "text", ["linux/arm64", "arm64", "aarch64", "linux/arm64/v8", "linux/aarch64", " Linux/ARM64 "]
)
def test_every_usual_spelling_of_arm64_is_one_platform(text):
    """uname's, Docker's and OCI's words mean the same."""
    assert parse_platform(text) == Platform("linux", "arm64")


@pytest.mark.parametrize("text", ["linux/amd64", "x86_64", "linux/amd64/v1", "x86-64"])
def test_every_usual_spelling_of_amd64_is_one_platform(text):
    """uname's, Docker's and OCI's words mean the same."""
    assert parse_platform(text) == Platform("linux", "amd64")


@pytest.mark.parametrize("text", ["", "linux", "windows/amd64", "linux/arm/v7", "linux/amd64/v3", "a/b/c/d", "linux/"])
def test_what_no_server_runs_is_refused(text):
    """The message names the two platforms there are."""
    with pytest.raises(InvalidSetting, match="use linux/amd64 or linux/arm64"):
        parse_platform(text)


def test_hetzner_calls_them_arm_and_x86():
    """As in `server_types[].architecture`."""
    assert [parse_platform(text).cloud_architecture for text in ("arm64", "amd64")] == ["arm", "x86"]
