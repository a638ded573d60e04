"""BuildKit tarballs."""

import tarfile

from scripts.toolchain.layout import Layout
from scripts.toolchain.tarballs import members, pack


def test_the_layout_is_that_of_the_official_release(tmp_path):
    """What installs the official tarball installs ours."""
    assert sorted(members(Layout(checkout=tmp_path, cache=tmp_path), "arm64")) == [
        "bin/buildctl",
        "bin/buildkit-cni-bridge",
        "bin/buildkit-cni-firewall",
        "bin/buildkit-cni-host-local",
        "bin/buildkit-cni-loopback",
        "bin/buildkit-runc",
        "bin/buildkitd",
    ]


def test_the_same_tools_make_the_same_bytes(tmp_path):
    """Order, times and owners of the files leave no trace, so the sha256 stays."""
    first, second = tmp_path / "first", tmp_path / "second"
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)

    pack({"bin/a": tmp_path / "a", "bin/b": tmp_path / "b"}, first)
    (tmp_path / "a").touch(mode=0o600)
    pack({"bin/b": tmp_path / "b", "bin/a": tmp_path / "a"}, second)

    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        assert [(member.name, member.mode, member.mtime, member.uid) for member in tar] == [
            ("bin", 0o755, 0, 0),
            ("bin/a", 0o755, 0, 0),
            ("bin/b", 0o755, 0, 0),
        ]
