"""infra.settings: what a user writes, and what they are told when it cannot be used."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from builders.errors import InvalidSetting
from builders.platforms import Platform
from infra import settings

ROOT = Path(__file__).parents[3]


def _defaults():
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    return {
        key: value["default"] if isinstance(value["default"], str) else json.dumps(value["default"])
        for key, value in declared.items()
    }


def _parse(**changes):
    return settings.parse({**_defaults(), **{f"slipway:{key}": value for key, value in changes.items()}})


def _problems(**changes):
    with pytest.raises(InvalidSetting) as caught:
        _parse(**changes)
    return str(caught.value).splitlines()


def _builder(**changes):
    entry = {"name": "arm64", "platform": "linux/arm64", "types": ["cax21"], "locations": ["fsn1"], **changes}
    return json.dumps([entry])


def test_defaults_of_the_project_file_make_one_builder_for_each_platform():
    """Pulumi.yaml's defaults are one linux/arm64 and one linux/amd64 builder, kept addresses, protected."""
    parsed = _parse()

    assert [(each.name, str(each.platform), each.count) for each in parsed.builders] == [
        ("arm64", "linux/arm64", 1),
        ("amd64", "linux/amd64", 1),
    ]
    assert parsed.builders[0].types == ("cax21", "cax31", "cax11")
    assert parsed.address == "keep"
    assert parsed.protect is True
    assert parsed.max_price_hourly is None
    assert parsed.tarballs[Platform("linux", "arm64")].sha256.startswith("9e8f46bf309ec0ab")


def test_what_is_given_is_what_is_wanted():
    """As many networks as a rule has room for; what is left out of a builder is one."""
    networks = [f"203.0.113.{number}/32" for number in range(100)]

    parsed = _parse(allowedCidrs=json.dumps(networks), builderName="team", builders=_builder(), protect="false")

    assert parsed.allowed_cidrs == tuple(networks)
    assert parsed.builder_name == "team"
    assert parsed.protect is False
    assert [each.count for each in parsed.builders] == [1]
    assert _parse(builders=_builder(count=20)).builders[0].count == 20


def test_settings_of_other_namespaces_are_left_alone():
    """A key of another package is none of ours."""
    assert settings.parse({**_defaults(), "hcloud:token": "x"}) == _parse()


def test_every_problem_is_told_at_once():
    """Two bad settings are two lines, so that they are mended in one go."""
    assert _problems(address="kept", snapshotter="zfs") == [
        "slipway:address: 'kept' is not one of keep, ipv6, ephemeral",
        "slipway:snapshotter: 'zfs' is not one of auto, overlayfs, native",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"adress": "keep"}, "slipway:adress: unknown setting, did you mean 'address'?"),
        ({"image": ""}, "slipway:image: not set"),
        ({"protect": "yes"}, "slipway:protect: 'yes' is neither true nor false"),
        ({"cacheKeepDays": "0"}, "slipway:cacheKeepDays: '0' is not a whole number from 1 to 3650"),
        ({"maxPriceHourly": "cheap"}, "slipway:maxPriceHourly: 'cheap' is not a price per hour, for example 0.05"),
        *(
            ({"maxPriceHourly": price}, f"slipway:maxPriceHourly: '{price}' is not a price per hour, for example 0.05")
            for price in ("-1", "0", "NaN", "Infinity")
        ),
        (
            {"allowedCidrs": "[]"},
            "slipway:allowedCidrs: the list is empty, so nobody could reach a builder; "
            'everybody is ["0.0.0.0/0", "::/0"]',
        ),
        (
            {"allowedCidrs": '["10.0.0.1/8"]'},
            "slipway:allowedCidrs: '10.0.0.1/8' is no network: 10.0.0.1/8 has host bits set",
        ),
        (
            {"allowedCidrs": "10.0.0.0/8"},
            "slipway:allowedCidrs: '10.0.0.0/8' is not a list, for example [\"203.0.113.0/24\"]",
        ),
        (
            {"reachablePrivateCidrs": "[5]"},
            "slipway:reachablePrivateCidrs: 5 is no network: write it as in 203.0.113.0/24",
        ),
        (
            {"reachablePrivateCidrs": '["fe80::%eth0/64"]'},
            "slipway:reachablePrivateCidrs: 'fe80::%eth0/64' is no network: write it as in 203.0.113.0/24",
        ),
        (
            {"allowedCidrs": json.dumps([f"203.0.113.{number}/32" for number in range(101)])},
            "slipway:allowedCidrs: 101 networks, a rule of Hetzner's firewall has room for 100",
        ),
        (
            {"builderName": "default"},
            "slipway:builderName: 'default' is the name of Docker's own builder, choose another",
        ),
        (
            {"builderName": "My Team"},
            "slipway:builderName: 'My Team' is no name: small letters, digits and dashes, at most 32, a letter first",
        ),
        ({"builders": "[]"}, "slipway:builders: the list is empty, name at least one builder"),
        ({"builders": '["arm64"]'}, "slipway:builders: entry 1: 'arm64' is not an object"),
        *(
            (
                {"builders": _builder(count=count)},
                f"slipway:builders: builder arm64: count {count!r} is not a whole number from 1 to 20",
            )
            for count in (0, 21, True, 1.5, "two", None)
        ),
        *(
            (
                {"builders": _builder(types=types)},
                f"slipway:builders: builder arm64: types: {types!r} is not a list of names",
            )
            for types in ("cax21", [], [5], [""])
        ),
        (
            {"builders": _builder(platform="linux/riscv64")},
            "slipway:builders: platform 'linux/riscv64': no Hetzner server runs it natively, "
            "use linux/amd64 or linux/arm64",
        ),
        (
            {"builders": _builder(type=["cax21"])},
            "slipway:builders: entry 1: unknown field 'type', did you mean 'types'?",
        ),
        (
            {"builders": _builder(name="ARM")},
            "slipway:builders: 'ARM' is no name: small letters, digits and dashes, at most 32, a letter first",
        ),
        (
            {"buildkit": '{"version": "v1", "tarballs": {"linux/arm64": {"source": "https://example.com/x"}}}'},
            "slipway:buildkit: tarballs: linux/arm64: a URL needs its sha256, so that nothing else is installed",
        ),
        (
            {"buildkit": '{"version": "v1", "tarballs": {"linux/arm64": {"source": "/x", "sha256": "abc"}}}'},
            "slipway:buildkit: tarballs: linux/arm64: sha256 is not 64 hexadecimal digits",
        ),
        (
            {"builders": _builder(name=5)},
            "slipway:builders: 5 is no name: small letters, digits and dashes, at most 32, a letter first",
        ),
        (
            {"builders": _builder(gpu=True)},
            "slipway:builders: entry 1: unknown field 'gpu', known: count, locations, name, platform, types",
        ),
        (
            {"buildkit": '{"version": "v1", "tarballs": ["/x"]}'},
            "slipway:buildkit: tarballs: give {platform: {source, sha256}}",
        ),
        (
            {"registries": '[{"host": "r.example.com", "ca": "no"}]'},
            "slipway:registries: entry 1: ca of r.example.com is not a PEM certificate",
        ),
        (
            {"registries": '[{"host": "r.example.com", "http": "false"}]'},
            "slipway:registries: entry 1: http 'false' is neither true nor false",
        ),
        ({"registries": '[{"host": 5}]'}, "slipway:registries: entry 1: host 5 is no text"),
        (
            {"registries": '[{"host": "r.example.com", "mirrors": ["https://m.example.com"]}]'},
            "slipway:registries: entry 1: mirror 'https://m.example.com' is not a host name with an optional port and path",
        ),
        (
            {"registries": '[{"host": "r.example.com"}, {"host": "r.example.com", "http": true}]'},
            "slipway:registries: host r.example.com is given twice, say all of a registry in one entry",
        ),
        (
            {"buildkit": '{"version": "../x", "tarballs": {}}'},
            "slipway:buildkit: version: '../x' is no version, for example v0.32.2",
        ),
        (
            {"buildkit": '{"version": 0.32, "tarballs": {}}'},
            "slipway:buildkit: version: 0.32 is no version, for example v0.32.2",
        ),
        (
            {"buildkit": '{"version": "v1", "tarballs": {"linux/arm64": {"source": null}}}'},
            "slipway:buildkit: tarballs: linux/arm64: source is empty, give a URL or a file on this machine",
        ),
        (
            {"buildkit": '{"version": "v1", "tarballs": {"linux/arm64": {"source": "/a"}, "arm64": {"source": "/b"}}}'},
            "slipway:buildkit: tarballs: linux/arm64 is given twice, in other words",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_to_do(changes, line):
    """The line names the setting, the value and what would do."""
    assert line in _problems(**changes)


def test_every_problem_of_a_list_is_told_at_once():
    """Registries, tarballs and builders alike."""
    assert _problems(registries='[{"host": "a b"}, {"host": "r.example.com", "mirror": []}]') == [
        "slipway:registries: entry 1: host 'a b' is not a host name with an optional port",
        "slipway:registries: entry 2: unknown field 'mirror', did you mean 'mirrors'?",
    ]
    assert _problems(builders=json.dumps([*json.loads(_builder(platform="linux/riscv64")), {"name": "amd64"}])) == [
        "slipway:builders: platform 'linux/riscv64': no Hetzner server runs it natively, use linux/amd64 or linux/arm64",
        *(f"slipway:builders: entry 2: {name} is missing" for name in ("platform", "types", "locations")),
    ]


def test_a_registry_has_an_authority_mirrors_or_no_tls():
    """What is left out is as by default; a mirror may have a path."""
    mirrored = {"host": "docker.io", "mirrors": ["mirror.example.com:5000/hub", "[2001:db8::1]:5000"], "http": True}
    signed = {"host": "r.example.com", "ca": "-----BEGIN CERTIFICATE-----\n"}

    assert _parse(registries=json.dumps([mirrored, signed])).registries == (
        settings.Registry(host="docker.io", ca=None, mirrors=tuple(mirrored["mirrors"]), http=True),
        settings.Registry(host="r.example.com", ca=signed["ca"], mirrors=(), http=False),
    )


def test_a_builder_needs_a_tarball_for_its_platform():
    """A release for one platform does not serve a builder of the other."""
    amd64 = json.dumps({"version": "v1", "tarballs": {"linux/amd64": {"source": "/x.tar.gz"}}})

    assert _problems(builders=_builder(), buildkit=amd64) == [
        "slipway:buildkit: no tarball for linux/arm64, which builder arm64 runs on"
    ]


def test_two_builders_need_two_names():
    """Names of servers derive from them."""
    twice = json.dumps(json.loads(_builder()) * 2)

    assert _problems(builders=twice) == ["slipway:builders: name 'arm64' is given twice, names must differ"]


def test_a_price_ceiling_is_an_exact_number():
    """0.02 is a decimal, not a binary fraction."""
    assert _parse(maxPriceHourly="0.02").max_price_hourly == Decimal("0.02")


def test_a_local_tarball_needs_no_digest():
    """A file on the operator's machine is hashed when it is used."""
    local = json.dumps({"version": "v1", "tarballs": {"linux/arm64": {"source": "~/buildkit.tar.gz"}}})

    tarball = _parse(builders=_builder(), buildkit=local).tarballs[Platform("linux", "arm64")]

    assert (tarball.source, tarball.sha256, tarball.is_url) == ("~/buildkit.tar.gz", "", False)


def test_a_digest_may_be_in_capitals():
    """As some tools write it; what is compared with it is not."""
    entry = {"source": "https://example.com/b.tar.gz", "sha256": "SHA256:" + "AB" * 32}
    told = json.dumps({"version": "v1", "tarballs": {"linux/arm64": entry}})

    assert _parse(builders=_builder(), buildkit=told).tarballs[Platform("linux", "arm64")].sha256 == "ab" * 32
