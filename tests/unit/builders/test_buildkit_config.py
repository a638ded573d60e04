"""The files on a node, as text, and the wish they are made from."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from builders import buildkit_config
from builders.buildkit_config import BuildKit, Registry
from builders.platforms import Platform

GOLDEN = Path(__file__).parents[2] / "golden" / "node"
WANTED = BuildKit(
    node="arm64-1",
    platform=Platform("linux", "arm64"),
    version="v0.32.2",
    tarball="/t",
    sha256="ab" * 32,
    addresses=("198.51.100.11",),
    neighbours=("198.51.100.12", "2001:db8:51:2::1"),
    allow=("10.0.5.0/24",),
    registries=(
        Registry(host="registry.example.com:5000", ca="-----BEGIN CERTIFICATE-----\n", mirrors=("mirror.example.com",)),
        Registry(host="plain.example.com", http=True),
    ),
)


def _files(wanted=WANTED, vcpus=4):
    return buildkit_config.render(wanted, vcpus=vcpus, authority_certificate="the authority\n")


def _toml(wanted=WANTED, vcpus=4):
    return tomllib.loads(_files(wanted, vcpus)["/etc/buildkit/buildkitd.toml"])


def test_the_files_are_these():
    """A change of any of them is a change of tests/golden/node, to be read as a diff."""
    rendered = {path.removeprefix("/etc/").replace("/", "_"): content for path, content in _files().items()}

    assert rendered == {path.name: path.read_text() for path in GOLDEN.iterdir()}


def test_a_client_certificate_is_always_demanded():
    """With cert and key alone BuildKit would let anybody in."""
    assert _toml()["grpc"]["tls"] == {
        "cert": "/etc/buildkit/tls/cert.pem",
        "key": "/etc/buildkit/tls/key.pem",
        "ca": "/etc/buildkit/tls/ca.pem",
    }


def test_the_platform_is_pinned_and_builds_have_a_network_of_their_own():
    """No emulated platform, no host network."""
    worker = _toml()["worker"]["oci"]

    assert worker["platforms"] == ["linux/arm64"]
    assert worker["networkMode"] == "cni"


def test_layers_go_before_cache_mounts():
    """Cache mounts stay for the days of the setting while there is anything else to remove."""
    policies = _toml(replace(WANTED, cache_keep_days=21, cache_percent=60))["worker"]["oci"]["gcpolicy"]

    assert [policy.get("filters") for policy in policies] == [
        ["type==source.local", "type==source.git.checkout"],
        ["type==exec.cachemount"],
        ["type!=exec.cachemount"],
        None,
    ]
    assert policies[1] == {"filters": ["type==exec.cachemount"], "keepDuration": "504h"}
    assert [policy.get("maxUsedSpace") for policy in policies] == ["512MB", None, "60%", "60%"]


@pytest.mark.parametrize(("vcpus", "setting", "expected"), [(1, None, 2), (4, None, 4), (4, 16, 16)])
def test_as_many_steps_run_at_once_as_there_are_processors(vcpus, setting, expected):
    """At least two, and what the setting says if there is one."""
    assert _toml(replace(WANTED, max_parallelism=setting), vcpus)["worker"]["oci"]["max-parallelism"] == expected


def test_registries_have_what_they_need_and_no_more():
    """An authority's certificate is a file of its own; plain HTTP is said where it is wanted."""
    assert _toml()["registry"] == {
        "registry.example.com:5000": {"ca": ["/etc/buildkit/registries/0.pem"], "mirrors": ["mirror.example.com"]},
        "plain.example.com": {"http": True},
    }


def test_a_name_cannot_leave_its_string():
    """Settings are data in the file, whatever they hold."""
    hostile = Registry(host='x"]\n[worker.oci]\nnetworkMode = "host', http=True)

    assert list(_toml(replace(WANTED, registries=(hostile,)))["registry"]) == [hostile.host]


def test_both_families_are_routed_over_the_bridge():
    """One range for each, isolated ports, no masquerading but the guard's."""
    bridge = json.loads(_files()["/etc/buildkit/cni.conflist"])["plugins"][0]

    assert [each[0]["subnet"] for each in bridge["ipam"]["ranges"]] == ["10.83.0.0/16", "fd83:5119:3a7e::/64"]
    assert (bridge["portIsolation"], bridge["ipMasq"], bridge["bridge"]) == (True, False, "slipway0")


def test_the_wish_survives_pulumis_json():
    """Whole numbers come back as floats, tuples as lists."""
    wanted = replace(WANTED, max_parallelism=8)
    record = json.loads(json.dumps(wanted.to_json()), parse_int=float)

    assert BuildKit.from_json(record) == wanted
    assert repr(BuildKit.from_json(record)) == repr(wanted)  # 60.0 would not be the same text in a file


def test_what_is_not_told_has_its_default():
    """A stack tells only what its settings have."""
    told = {"node", "platform", "version", "tarball", "sha256", "addresses"}
    record = {key: value for key, value in WANTED.to_json().items() if key in told}

    assert BuildKit.from_json(record) == replace(WANTED, neighbours=(), allow=(), registries=())


def test_two_tarballs_of_one_version_lie_apart():
    """The folder is named for version and digest."""
    assert WANTED.folder == "/usr/local/lib/slipway/buildkit-v0.32.2-abababababab"
