"""Go tools: their versions and the keys of their builds."""

import pytest

from scripts.toolchain.gomodules import MODULES, builds, parse_version, required_version
from scripts.toolchain.layout import Layout


def test_versions_are_the_pinned_ones():
    """A go.mod that moves on by accident is noticed."""
    assert {name: build.version for name, build in builds().items()} == {
        "pulumi": "v3.259.0",
        "buildkit-amd64": "v0.32.2",
        "buildkit-arm64": "v0.32.2",
        "kubernetes": "v1.34.2",
        "buildx": "v0.38.2",
        "runc": "v1.3.3",
        "cni": "v1.9.1",
        "registry": "v3.1.2",
        "crane": "v0.22.1",
        "regctl": "v0.11.7",
    }


def test_every_module_names_its_tools():
    """`go build tool` builds what the tool directives name, so each module has some."""
    for folder in MODULES.iterdir():
        assert "\ntool " in (folder / "go.mod").read_text(), folder.name
        assert (folder / "go.sum").exists(), folder.name


@pytest.mark.parametrize(
    "text",
    ["require example.org/tool v1.2.3", "require (\n\texample.org/tool v1.2.3 // indirect\n)"],
)
def test_a_requirement_is_found_alone_and_in_a_block(text):
    """Both ways of writing a requirement are read."""
    assert required_version(text, "example.org/tool") == "v1.2.3"


def test_a_requirement_of_a_longer_name_is_another():
    """example.org/tool/v2 is not example.org/tool."""
    with pytest.raises(ValueError, match=r"^example\.org/tool: no such requirement"):
        required_version("require example.org/tool/v2 v2.0.0", "example.org/tool")


def test_each_build_has_its_own_key(tmp_path):
    """Architectures and flags are part of the key."""
    layout = Layout(checkout=tmp_path, cache=tmp_path)
    keys = {build.artefact(layout).key for build in builds().values()}

    assert len(keys) == len(builds())


def test_the_version_is_built_into_the_tool():
    """A plain build would call itself unknown, and peers refuse to work with that."""
    assert "-X github.com/moby/buildkit/version.Version=v0.32.2" in builds()["buildkit-arm64"].arguments[-1]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v3.259.0\n", (3, 259, 0)),
        ("github.com/docker/buildx v0.38.2 abcdef", (0, 38, 2)),
        ("buildx 0.20.1-desktop.2", (0, 20, 1)),
        ("unknown", ()),
    ],
)
def test_a_tool_s_version_is_read_from_its_own_words(text, version):
    """What has no version is never new enough."""
    assert parse_version(text) == version
