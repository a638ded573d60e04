"""The stack's settings as typed values (pure); types, defaults and descriptions for the user stand in Pulumi.yaml."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

from builders.errors import InvalidSetting
from builders.platforms import Platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NAMESPACE = "slipway"
MAX_COUNT = 20  # of one builder; a Hetzner project starts with a limit of ten servers or fewer
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
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


def parse(raw: Mapping[str, str]) -> Settings:
    """Turn `{"slipway:address": "keep", …}` (objects and lists as JSON text) into Settings.

    Keys of other namespaces are left alone. Raise InvalidSetting with every problem, a line each.
    """
    reader = _Reader(raw)
    settings = Settings(
        builders=reader.read("builders", _builders),
        address=reader.read("address", _one_of("keep", "ipv6", "ephemeral")),
        allowed_cidrs=reader.read("allowedCidrs", _allowed),
        protect=reader.read("protect", _boolean),
        image=reader.read("image", _text),
        **reader.read("buildkit", _buildkit, {"buildkit_version": "", "tarballs": {}}),
        snapshotter=reader.read("snapshotter", _one_of("auto", "overlayfs", "native")),
        cache_keep_days=reader.read("cacheKeepDays", _integer(1, 3650)),
        reachable_private_cidrs=reader.read("reachablePrivateCidrs", _cidrs),
        registries=reader.read("registries", _registries),
        max_price_hourly=reader.read("maxPriceHourly", _price),
        builder_name=reader.read("builderName", _optional_name),
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


class _Problem(Exception):
    """What is wrong with one value."""


class _Reader:
    """Reads key by key and collects every problem."""

    def __init__(self, raw: Mapping[str, str]) -> None:
        prefix = f"{NAMESPACE}:"
        self._raw = {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)}
        self._known: list[str] = []
        self._problems: list[str] = []

    def read(self, key: str, parse_value: Callable[[str | None], Any], fallback: Any = None) -> Any:
        self._known.append(key)
        try:
            return parse_value(self._raw.get(key))
        except (_Problem, InvalidSetting) as problem:
            self._problems += [f"slipway:{key}: {line}" for line in str(problem).splitlines()]
            return fallback

    def finish(self) -> None:
        for key in sorted(self._raw.keys() - set(self._known)):
            self._problems.append(f"slipway:{key}: unknown setting, {_suggest(key, self._known)}")
        if self._problems:
            raise InvalidSetting("\n".join(self._problems))


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def _text(value: str | None) -> str:
    if not value:
        raise _Problem("not set")
    return value


def _optional_name(value: str | None) -> str | None:
    return _name(value) if value else None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _Problem(f"{value!r} is no name: small letters, digits and dashes, at most 32, a letter first")
    return value


def _boolean(value: str | None) -> bool:
    if value not in {"true", "false"}:
        raise _Problem(f"{value!r} is neither true nor false")
    return value == "true"


def _one_of(*choices: str) -> Callable[[str | None], str]:
    def parse_choice(value: str | None) -> str:
        if value not in choices:
            raise _Problem(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return parse_choice


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def parse_integer(value: Any) -> int:
        try:
            number = int(value) if not isinstance(value, bool | float) else None
        except (TypeError, ValueError):
            number = None
        if number is None or not least <= number <= most:
            raise _Problem(f"{value!r} is not a whole number from {least} to {most}")
        return number

    return parse_integer


def _price(value: str | None) -> Decimal | None:
    if not value:
        return None
    try:
        price = Decimal(value)
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price <= 0:
        raise _Problem(f"{value!r} is not a price per hour, for example 0.05")
    return price


def _json(value: str | None, kind: type, example: str) -> Any:
    try:
        decoded = json.loads(value) if value else kind()
    except json.JSONDecodeError:
        decoded = None
    if not isinstance(decoded, kind):
        raise _Problem(f"{value!r} is not {'a list' if kind is list else 'an object'}, for example {example}")
    return decoded


def _strings(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise _Problem(f"{what}: {value!r} is not a list of names")
    return tuple(value)


def _fields(entry: Any, required: tuple[str, ...], optional: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _Problem(f"{what}: {entry!r} is not an object")
    known = [*required, *optional]
    lines = [f"{what}: unknown field {key!r}, {_suggest(key, known)}" for key in entry if key not in known]
    lines += [f"{what}: {key} is missing" for key in required if key not in entry]
    if lines:
        raise _Problem("\n".join(lines))
    return entry


def _cidrs(value: str | None) -> tuple[str, ...]:
    problems, networks = [], []
    for each in _json(value, list, '["203.0.113.0/24"]'):
        try:
            networks.append(str(ipaddress.ip_network(each)))
        except ValueError as error:
            problems.append(f"{each!r} is no network: {error}")
    if problems:
        raise _Problem("\n".join(problems))
    return tuple(networks)


def _allowed(value: str | None) -> tuple[str, ...]:
    networks = _cidrs(value)
    if not networks:
        raise _Problem('the list is empty, so nobody could reach a builder; everybody is ["0.0.0.0/0", "::/0"]')
    return networks


def _builders(value: str | None) -> tuple[BuilderSetting, ...]:
    entries = _json(value, list, '[{"name": "arm64", "platform": "linux/arm64", …}]')
    if not entries:
        raise _Problem("the list is empty, name at least one builder")
    return _each(enumerate(entries, start=1), lambda item: _builder(*item))


def _builder(position: int, entry: Any) -> BuilderSetting:
    what = f"entry {position}"
    fields = _fields(entry, ("name", "platform", "types", "locations"), ("count",), what)
    name = _name(fields["name"])
    try:
        count = _integer(1, MAX_COUNT)(fields.get("count", 1))
    except _Problem as problem:
        raise _Problem(f"builder {name}: count {problem}") from None
    return BuilderSetting(
        name=name,
        platform=parse_platform(str(fields["platform"])),
        types=_strings(fields["types"], f"builder {name}: types"),
        locations=_strings(fields["locations"], f"builder {name}: locations"),
        count=count,
    )


def _buildkit(value: str | None) -> dict[str, Any]:
    fields = _fields(_json(value, dict, '{"version": "v0.32.2", …}'), ("version", "tarballs"), (), "buildkit")
    if not isinstance(fields["version"], str) or not _VERSION.fullmatch(fields["version"]):
        raise _Problem(f"version: {fields['version']!r} is no version, for example v0.32.2")
    if not isinstance(fields["tarballs"], dict):
        raise _Problem("tarballs: give {platform: {source, sha256}}")
    tarballs = dict(_each(fields["tarballs"].items(), lambda item: _tarball(*item)))
    return {"buildkit_version": fields["version"], "tarballs": tarballs}


def _tarball(name: str, entry: Any) -> tuple[Platform, Tarball]:
    what = f"tarballs: {name}"
    fields = _fields(entry, ("source",), ("sha256",), what)
    source, sha256 = _typed(fields, "source", str, what), _typed(fields, "sha256", str, what) or ""
    tarball = Tarball(source=source or "", sha256=sha256.removeprefix("sha256:"))
    if not source:
        raise _Problem(f"{what}: source is empty, give a URL or a file on this machine")
    if tarball.sha256 and not _SHA256.fullmatch(tarball.sha256):
        raise _Problem(f"{what}: sha256 is not 64 hexadecimal digits")
    if tarball.is_url and not tarball.sha256:
        raise _Problem(f"{what}: a URL needs its sha256, so that nothing else is installed")
    return parse_platform(name), tarball


def _registries(value: str | None) -> tuple[Registry, ...]:
    entries = enumerate(_json(value, list, '[{"host": "registry.example.com", "ca": "…"}]'), start=1)
    registries = _each(entries, lambda item: _registry(*item))
    hosts = [registry.host for registry in registries]
    if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
        raise _Problem(f"host {', '.join(twice)} is given twice, say all of a registry in one entry")
    return registries


def _registry(position: int, entry: Any) -> Registry:
    what = f"entry {position}"
    fields = _fields(entry, ("host",), ("ca", "mirrors", "http"), what)
    host, ca = _typed(fields, "host", str, what), _typed(fields, "ca", str, what)
    if not host or not _REGISTRY_HOST.fullmatch(host):
        raise _Problem(f"{what}: host {host!r} is not a host name with an optional port")
    if ca is not None and "-----BEGIN CERTIFICATE-----" not in ca:
        raise _Problem(f"{what}: ca of {host} is not a PEM certificate")
    mirrors = _strings(fields["mirrors"], f"{what}: mirrors") if fields.get("mirrors") else ()
    if odd := [mirror for mirror in mirrors if not _MIRROR.fullmatch(mirror)]:
        raise _Problem(f"{what}: mirror {odd[0]!r} is not a host name with an optional port and path")
    return Registry(host=host, ca=ca, mirrors=mirrors, http=bool(_typed(fields, "http", bool, what)))


def _typed(fields: dict[str, Any], key: str, kind: type, what: str) -> Any:
    """Return an optional field, None where it is absent; the text "false" is no false."""
    value = fields.get(key)
    if value is not None and not isinstance(value, kind):
        raise _Problem(f"{what}: {key} {value!r} is {'neither true nor false' if kind is bool else 'no text'}")
    return value


def _each(entries: Iterable[Any], parse_entry: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Parse every entry, and raise the problems of all of them at once."""
    parsed, problems = [], []
    for entry in entries:
        try:
            parsed.append(parse_entry(entry))
        except (_Problem, InvalidSetting) as problem:
            problems += str(problem).splitlines()
    if problems:
        raise _Problem("\n".join(problems))
    return tuple(parsed)
