"""The setting slipway:registry as a typed value (pure): the registry that runs on a Kubernetes cluster."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from infra import parsing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REGISTRY_IMAGE = "docker.io/library/registry:2@sha256:a3d8aaa63ed8681a604f1dea0aa03f100d5895b6a58ace528858a7b332415373"
PYTHON_IMAGE = (
    "docker.io/library/python:3.13-alpine@sha256:399babc8b49529dabfd9c922f2b5eea81d611e4512e3ed250d75bd2e7683f4b0"
)
"""Both for every platform that their makers build for, ARM64 among them."""

COLLECTOR = "slipway-gc"
"""The user that the collection logs in as, where there are users."""

_HOST = re.compile(r"(?P<name>[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:(?P<port>\d{1,5}))?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_QUANTITY = re.compile(r"[1-9]\d*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]*@sha256:[0-9a-f]{64}")
_TIME_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_DURATION = re.compile(r"[1-9]\d*[smhd]")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CRON_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
_CRON_WORDS = {
    "month": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "weekday": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_CRON_NAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressSetting:
    """An Ingress in front of the registry, which then ends TLS."""

    class_name: str | None
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Where the certificate comes from: the stack's authority, a Secret that is there, or whoever obeys annotations."""

    kind: Literal["authority", "secret", "annotations"]
    secret: str = ""
    ca: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """When garbage is collected, and what is kept; durations as `slipway gc` takes them."""

    schedule: str
    time_zone: str
    grace: str
    keep_last: int | None
    keep_matching: str | None
    keep_within: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySetting:
    """All of slipway:registry. `host` is what clients type, with its port; `kubeconfig` is a path or its content."""

    host: str
    kubeconfig: str | None
    context: str | None
    namespace: str
    storage_class: str | None
    storage_size: str
    node_port: int | None
    ingress: IngressSetting | None
    tls: Tls
    users: tuple[str, ...]
    collection: Collection
    registry_image: str
    python_image: str

    @property
    def has_kubeconfig_content(self) -> bool:
        """Tell whether the kubeconfig is given itself, and not its path."""
        return self.kubeconfig is not None and _is_content(self.kubeconfig)

    @property
    def host_name(self) -> str:
        """The host without its port and without the brackets of an IPv6 address."""
        match = _HOST.fullmatch(self.host)
        return match["name"].strip("[]") if match else self.host

    @property
    def pod_ends_tls(self) -> bool:
        """Tell whether the registry itself speaks TLS; behind an Ingress it does not."""
        return self.ingress is None

    @property
    def names_an_address(self) -> bool:
        """Tell whether clients type an IP address."""
        return is_address(self.host_name)


def is_address(text: str) -> bool:
    """Tell an IP address from a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse(value: str | None) -> RegistrySetting | None:
    """Read the setting's JSON text; None where there is none. Raise InvalidSetting with every problem, a line each."""
    entry = parsing.decoded(value, dict, '{"host": "registry.example.com", "service": {"nodePort": 30500}}')
    if not entry:
        return None
    reader = parsing.Reader(entry)
    node_port, ingress = reader.read("service", _service, (None, None))
    setting = RegistrySetting(
        host=reader.read("host", _host, ""),
        kubeconfig=reader.read("kubeconfig", _optional(_kubeconfig)),
        context=reader.read("context", _optional(parsing.text)),
        namespace=reader.read("namespace", _default("slipway-registry", _matching(_LABEL, "a namespace"))),
        **reader.read("storage", _storage, {"storage_class": None, "storage_size": ""}),
        node_port=node_port,
        ingress=ingress,
        tls=reader.read("tls", _tls, Tls(kind="authority")),
        users=reader.read("users", _users, ()),
        collection=reader.read("collection", _collection),
        **reader.read("images", _images, {"registry_image": "", "python_image": ""}),
    )
    reader.read("tls", lambda _: _check_tls(setting))
    reader.read("context", lambda _: _check_cluster(setting))
    reader.finish()
    return setting


def _check_tls(setting: RegistrySetting) -> None:
    if setting.tls.kind == "annotations" and setting.ingress is None:
        raise parsing.Problem("annotations are read from an Ingress: give service: {ingress: {}}, or a secret")
    if setting.tls.kind == "secret" and setting.pod_ends_tls and setting.host and setting.names_an_address:
        raise parsing.Problem(
            "with a secret of yours, host has to be a name: the collection checks the certificate by it"
        )


def _check_cluster(setting: RegistrySetting) -> None:
    if not setting.context and not setting.kubeconfig:
        raise parsing.Problem(
            "missing, and no kubeconfig either: give what `kubectl config current-context` says, or whoever has another "
            "context selected makes another registry there"
        )


def _host(value: Any) -> str:
    given = _matching(_HOST, "a host name with an optional port")(value)
    match = _HOST.fullmatch(given)
    name, port = (match["name"], match["port"]) if match else ("", None)
    if ".." in name or (port is not None and not 1 <= int(port) <= 65535):
        raise parsing.Problem(f"{parsing.shown(value)} is not a host name with an optional port")
    if port is None and "." not in name and not name.startswith("["):
        raise parsing.Problem(
            f"{parsing.shown(value)} has no dot and no port: clients take it for a folder at docker.io"
        )
    return given


def _kubeconfig(value: Any) -> str:
    given = parsing.text(value)
    if not _is_content(given) and not given.startswith(("/", "~/")):
        raise parsing.Problem(
            f"{parsing.shown(given)} is relative, and it is read from several folders: begin it with / or ~/"
        )
    return given


def _is_content(kubeconfig: str) -> bool:
    return "\n" in kubeconfig or kubeconfig.lstrip().startswith("{")


def _service(value: Any) -> tuple[int | None, IngressSetting | None]:
    given = _object(value, '{"nodePort": 30500} or {"ingress": {"class": "nginx"}}')
    if len(given.keys() & {"nodePort", "ingress"}) != 1:
        raise parsing.Problem("give either nodePort, 30000 to 32767, or ingress")
    reader = parsing.Reader(given)
    if "nodePort" in given:
        node_port = reader.read("nodePort", parsing.integer(30000, 32767))
        reader.finish()
        return node_port, None
    ingress = reader.read("ingress", _ingress)
    reader.finish()
    return None, ingress


def _ingress(value: Any) -> IngressSetting:
    reader = parsing.Reader(_object(value, '{"class": "nginx"}'))
    ingress = IngressSetting(
        class_name=reader.read("class", _optional(_matching(_OBJECT_NAME, "an ingress class"))),
        annotations=reader.read("annotations", _texts, {}),
    )
    reader.finish()
    return ingress


def _storage(value: Any) -> dict[str, Any]:
    reader = parsing.Reader(_object(value, '{"size": "50Gi", "class": "hcloud-volumes"}'))
    storage = {
        "storage_class": reader.read("class", _optional(_matching(_OBJECT_NAME, "a storage class"))),
        "storage_size": reader.read("size", _matching(_QUANTITY, "a size, for example 50Gi")),
    }
    reader.finish()
    return storage


def _tls(value: Any) -> Tls:
    if value is None or value == "authority":
        return Tls(kind="authority")
    given = _object(value, '"authority", {"secret": "registry-certificate"} or {"annotations": {…}}')
    if len(given.keys() & {"secret", "annotations"}) != 1:
        raise parsing.Problem('give "authority", {secret: NAME}, or {annotations: {…}} for an Ingress')
    reader = parsing.Reader(given)
    if "secret" in given:
        tls = Tls(
            kind="secret",
            secret=reader.read("secret", _matching(_OBJECT_NAME, "a secret's name"), ""),
            ca=reader.read("ca", _optional(_certificate)),
        )
    else:
        tls = Tls(kind="annotations", annotations=reader.read("annotations", _texts, {}))
    reader.finish()
    return tls


def _users(value: Any) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    users = tuple(_matching(_USER, "a user's name")(each) for each in parsing.strings(value, "users"))
    if twice := sorted({each for each in users if users.count(each) > 1}):
        raise parsing.Problem(f"{', '.join(twice)} is given twice")
    if COLLECTOR in users:
        raise parsing.Problem(f"{COLLECTOR} is the collection's own user")
    if "http" in users:  # it is part of a resource's name
        raise parsing.Problem("http is the name of the registry's own secret, choose another")
    return users


def _collection(value: Any) -> Collection:
    reader = parsing.Reader(_object(value, '{"schedule": "30 3 * * *", "timeZone": "Europe/Berlin"}'))
    duration = _matching(_DURATION, "a duration, for example 24h or 90d")
    collection = Collection(
        schedule=reader.read("schedule", _default("30 3 * * *", _schedule), ""),
        time_zone=reader.read("timeZone", _default("Etc/UTC", _matching(_TIME_ZONE, "a time zone")), ""),
        grace=reader.read("grace", _default("24h", duration), ""),
        keep_last=reader.read("keepLast", _optional(parsing.integer(1, 100_000))),
        keep_matching=reader.read("keepMatching", _optional(_expression)),
        keep_within=reader.read("keepWithin", _optional(duration)),
    )
    reader.finish()
    return collection


def _images(value: Any) -> dict[str, str]:
    reader = parsing.Reader(_object(value, '{"registry": "registry:3@sha256:…"}'))
    image = _matching(_IMAGE, "an image by its digest, for example registry:2@sha256:…")
    images = {
        "registry_image": reader.read("registry", _default(REGISTRY_IMAGE, image), ""),
        "python_image": reader.read("python", _default(PYTHON_IMAGE, image), ""),
    }
    reader.finish()
    return images


def _schedule(value: Any) -> str:
    """Want a schedule that a CronJob takes: five fields, or one of cron's names."""
    words = value.split() if isinstance(value, str) else []
    if words and (value in _CRON_NAMES or (len(words) == 5 and all(map(_is_cron_field, words, _CRON_FIELDS)))):
        return str(value)
    raise parsing.Problem(
        f"{parsing.shown(value)} is not a schedule: minute, hour, day, month and weekday, for example 30 3 * * *"
    )


def _is_cron_field(text: str, limits: tuple[str, int, int]) -> bool:
    what, least, most = limits
    words = _CRON_WORDS.get(what, [])

    def number(word: str) -> int:
        if word.lower() in words:
            return words.index(word.lower()) + least
        return int(word) if word.isdecimal() else -1

    for part in text.split(","):
        span, _, step = part.partition("/")
        if "/" in part and not (step.isdecimal() and int(step) > 0):
            return False
        ends = [number(each) for each in span.split("-")] if span not in {"*", "?"} else [least]
        if len(ends) > 2 or ends != sorted(ends) or not all(least <= each <= most for each in ends):
            return False
    return True


def _expression(value: Any) -> str:
    try:
        re.compile(parsing.text(value))
    except (re.error, TypeError) as error:
        raise parsing.Problem(f"{parsing.shown(value)} is not a regular expression: {error}") from None
    return str(value)


def _certificate(value: Any) -> str:
    if not isinstance(value, str) or "-----BEGIN CERTIFICATE-----" not in value:
        raise parsing.Problem("not a PEM certificate")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[Any], str]:
    def parse_text(value: Any) -> str:
        if value is None:
            raise parsing.Problem(f"missing, give {what}")
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise parsing.Problem(f"{parsing.shown(value)} is not {what}")
        return value

    return parse_text


def _optional(parse_value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return _default(None, parse_value)


def _default(default: Any, parse_value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: default if value is None else parse_value(value)


def _object(value: Any, example: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise parsing.Problem(f"{parsing.shown(value)} is not an object, for example {example}")
    return value


def _texts(value: Any) -> dict[str, str]:
    given = _object(value, '{"cert-manager.io/cluster-issuer": "letsencrypt"}')
    if odd := [key for key, each in given.items() if not isinstance(each, str)]:
        raise parsing.Problem(f"{odd[0]}: {parsing.shown(given[odd[0]])} is no text")
    return given
