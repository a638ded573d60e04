"""The stack's settings as typed values (pure); types, defaults and descriptions for the user stand in Pulumi.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

from builders.errors import InvalidSetting
from builders.platforms import Platform, parse_platform
from infra import parsing, registry_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.registry_setting import RegistrySetting

NAMESPACE = "slipway"
MAX_COUNT = 20  # of one builder; a Hetzner project starts with a limit of ten servers or fewer
MAX_ALLOWED = 100  # networks of one rule, in the API's reference
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # part of a folder's name on the builder
_REGISTRY_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?")
_MIRROR = re.compile(rf"({_REGISTRY_HOST.pattern})(/[A-Za-z0-9._/-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderSetting:
    """One entry of slipway:builders."""

    name: str
    platform: Platform
    types: tuple[str, ...]
    locations: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tarball:
    """Where a BuildKit release for one platform comes from: a URL, or a file on this machine (then `sha256` may be empty)."""

    source: str
    sha256: str

    @property
    def is_url(self) -> bool:
        """Tell a URL, which the builder fetches, from a local file, which is sent to it."""
        return "://" in self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A registry that builders trust beyond the public authorities."""

    host: str
    ca: str | None
    mirrors: tuple[str, ...]
    http: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a stack, checked against one another."""

    builders: tuple[BuilderSetting, ...]
    address: Literal["keep", "ipv6", "ephemeral"]
    allowed_cidrs: tuple[str, ...]
    protect: bool
    image: str
    buildkit_version: str
    tarballs: Mapping[Platform, Tarball]
    snapshotter: Literal["auto", "overlayfs", "native"]
    cache_keep_days: int
    reachable_private_cidrs: tuple[str, ...]
    registries: tuple[Registry, ...]
    max_price_hourly: Decimal | None
    builder_name: str | None
    registry: RegistrySetting | None

    @property
    def protects_addresses(self) -> bool:
        """Tell whether primary IPs outlive their servers, and the engine refuses to delete them."""
        return self.protect and self.address != "ephemeral"


def parse(raw: Mapping[str, str]) -> Settings:
    """Turn `{"slipway:address": "keep", …}` (objects and lists as JSON text) into Settings.

    Keys of other namespaces are left alone. Raise InvalidSetting with every problem, a line each.
    """
    prefix = f"{NAMESPACE}:"
    ours = {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)}
    reader = parsing.Reader(ours, prefix=prefix, unknown="unknown setting")
    settings = Settings(
        builders=reader.read("builders", _builders),
        address=reader.read("address", parsing.one_of("keep", "ipv6", "ephemeral")),
        allowed_cidrs=reader.read("allowedCidrs", _allowed),
        protect=reader.read("protect", parsing.boolean),
        image=reader.read("image", parsing.text),
        **reader.read("buildkit", _buildkit, {"buildkit_version": "", "tarballs": {}}),
        snapshotter=reader.read("snapshotter", parsing.one_of("auto", "overlayfs", "native")),
        cache_keep_days=reader.read("cacheKeepDays", parsing.integer(1, 3650)),
        reachable_private_cidrs=reader.read("reachablePrivateCidrs", parsing.cidrs),
        registries=reader.read("registries", _registries),
        max_price_hourly=reader.read("maxPriceHourly", _price),
        builder_name=reader.read("builderName", _optional_name),
        registry=reader.read("registry", registry_setting.parse),
    )
    reader.finish()
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    problems = [
        f"slipway:buildkit: no tarball for {platform}, which builder {builder.name} runs on"
        for builder in settings.builders
        if (platform := builder.platform) not in settings.tarballs
    ]
    names = [builder.name for builder in settings.builders]
    problems += [
        f"slipway:builders: name {name!r} is given twice, names must differ"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if problems:
        raise InvalidSetting("\n".join(problems))


def _optional_name(value: str | None) -> str | None:
    if value == "default":
        raise parsing.Problem("'default' is the name of Docker's own builder, choose another")
    return parsing.name(value) if value else None


def _price(value: str | None) -> Decimal | None:
    if not value:
        return None
    try:
        price = Decimal(value)
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price <= 0:
        raise parsing.Problem(f"{parsing.shown(value)} is not a price per hour, for example 0.05")
    return price


def _allowed(value: str | None) -> tuple[str, ...]:
    networks = parsing.cidrs(value)
    if not networks:
        raise parsing.Problem('the list is empty, so nobody could reach a builder; everybody is ["0.0.0.0/0", "::/0"]')
    if len(networks) > MAX_ALLOWED:
        raise parsing.Problem(f"{len(networks)} networks, a rule of Hetzner's firewall has room for {MAX_ALLOWED}")
    return networks


def _builders(value: str | None) -> tuple[BuilderSetting, ...]:
    entries = parsing.decoded(value, list, '[{"name": "arm64", "platform": "linux/arm64", …}]')
    if not entries:
        raise parsing.Problem("the list is empty, name at least one builder")
    return parsing.each(enumerate(entries, start=1), lambda item: _builder(*item))


def _builder(position: int, entry: Any) -> BuilderSetting:
    what = f"entry {position}"
    fields = parsing.fields(entry, ("name", "platform", "types", "locations"), ("count",), what)
    name = parsing.name(fields["name"])
    try:
        count = parsing.integer(1, MAX_COUNT)(fields.get("count", 1))
    except parsing.Problem as problem:
        raise parsing.Problem(f"builder {name}: count {problem}") from None
    return BuilderSetting(
        name=name,
        platform=parse_platform(str(fields["platform"])),
        types=parsing.strings(fields["types"], f"builder {name}: types"),
        locations=parsing.strings(fields["locations"], f"builder {name}: locations"),
        count=count,
    )


def _buildkit(value: str | None) -> dict[str, Any]:
    fields = parsing.fields(
        parsing.decoded(value, dict, '{"version": "v0.32.2", …}'), ("version", "tarballs"), (), "buildkit"
    )
    if not isinstance(fields["version"], str) or not _VERSION.fullmatch(fields["version"]):
        raise parsing.Problem(f"version: {parsing.shown(fields['version'])} is no version, for example v0.32.2")
    if not isinstance(fields["tarballs"], dict):
        raise parsing.Problem("tarballs: give {platform: {source, sha256}}")
    tarballs = parsing.each(fields["tarballs"].items(), lambda item: _tarball(*item))
    platforms = [platform for platform, _ in tarballs]
    if twice := sorted({str(platform) for platform in platforms if platforms.count(platform) > 1}):
        raise parsing.Problem(f"tarballs: {', '.join(twice)} is given twice, in other words")
    return {"buildkit_version": fields["version"], "tarballs": dict(tarballs)}


def _tarball(name: str, entry: Any) -> tuple[Platform, Tarball]:
    what = f"tarballs: {name}"
    fields = parsing.fields(entry, ("source",), ("sha256",), what)
    source, sha256 = parsing.typed(fields, "source", str, what), parsing.typed(fields, "sha256", str, what) or ""
    tarball = Tarball(source=source or "", sha256=sha256.lower().removeprefix("sha256:"))
    if not source:
        raise parsing.Problem(f"{what}: source is empty, give a URL or a file on this machine")
    if tarball.sha256 and not _SHA256.fullmatch(tarball.sha256):
        raise parsing.Problem(f"{what}: sha256 is not 64 hexadecimal digits")
    if tarball.is_url and not tarball.sha256:
        raise parsing.Problem(f"{what}: a URL needs its sha256, so that nothing else is installed")
    return parse_platform(name), tarball


def _registries(value: str | None) -> tuple[Registry, ...]:
    entries = enumerate(parsing.decoded(value, list, '[{"host": "registry.example.com", "ca": "…"}]'), start=1)
    registries = parsing.each(entries, lambda item: _registry(*item))
    hosts = [registry.host for registry in registries]
    if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
        raise parsing.Problem(f"host {', '.join(twice)} is given twice, say all of a registry in one entry")
    return registries


def _registry(position: int, entry: Any) -> Registry:
    what = f"entry {position}"
    fields = parsing.fields(entry, ("host",), ("ca", "mirrors", "http"), what)
    host, ca = parsing.typed(fields, "host", str, what), parsing.typed(fields, "ca", str, what)
    if not host or not _REGISTRY_HOST.fullmatch(host):
        raise parsing.Problem(f"{what}: host {parsing.shown(host)} is not a host name with an optional port")
    if ca is not None and "-----BEGIN CERTIFICATE-----" not in ca:
        raise parsing.Problem(f"{what}: ca of {host} is not a PEM certificate")
    mirrors = parsing.strings(fields["mirrors"], f"{what}: mirrors") if fields.get("mirrors") else ()
    if odd := [mirror for mirror in mirrors if not _MIRROR.fullmatch(mirror)]:
        raise parsing.Problem(
            f"{what}: mirror {parsing.shown(odd[0])} is not a host name with an optional port and path"
        )
    return Registry(host=host, ca=ca, mirrors=mirrors, http=bool(parsing.typed(fields, "http", bool, what)))
