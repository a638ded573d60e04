"""The registry's process as a value: what it was started with, and what of its configuration matters to a collection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from scripts.registry import mode
from scripts.registry.errors import CollectionStopped, StoreUnreadable

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A registry's process; `now` is the time where it runs, in seconds since the epoch."""

    pid: str
    now: int
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    configuration: Mapping[str, Any] = field(repr=False)

    @property
    def until(self) -> int:
        """Return when its read-only mode ends; 0 where it was not started in ours."""
        return int(self.environment.get(mode.UNTIL, "0")) if mode.READ_ONLY in self.environment else 0

    @property
    def config_file(self) -> str:
        """Return the file of its configuration."""
        return self.arguments[2]

    @property
    def folder(self) -> str:
        """Return the folder of its storage."""
        root = self.setting("storage", "filesystem", "rootdirectory") or "/var/lib/registry"
        return f"{str(root).rstrip('/')}/docker/registry/v2"

    @property
    def deletes(self) -> bool:
        """Tell whether its API deletes anything."""
        return self.setting("storage", "delete", "enabled") is True

    @property
    def metrics(self) -> str:
        """Return the address at which it counts requests, if it does."""
        address = str(self.setting("http", "debug", "addr") or "")
        counts = self.setting("http", "debug", "prometheus", "enabled") is True
        host, _, port = address.rpartition(":")
        return f"{host if host not in {'', '0.0.0.0'} else '127.0.0.1'}:{port}" if counts and port else ""  # noqa: S104

    def setting(self, *path: str) -> Any:
        """Return a setting, from the environment or the file, as the registry does (configuration/parser.go)."""
        for length in range(len(path), 0, -1):
            text = self.environment.get("_".join(("REGISTRY", *path[:length])).upper())
            if text is not None:
                return _within(_yaml(text), path[length:])
        return _within(self.configuration, path)

    def check(self) -> None:
        """Raise CollectionStopped where a collection would not be safe, whatever the files say."""
        drivers = self.configuration.get("storage") or {}
        others = set(drivers if isinstance(drivers, dict) else ()) - {
            "cache", "delete", "filesystem", "maintenance", "redirect", "tag",
        }  # fmt: skip
        named = self.environment.get("REGISTRY_STORAGE", "")
        if others or (named and "filesystem" not in named):
            raise CollectionStopped(
                f"the registry stores in {', '.join(sorted(others)) or named}, not in files",
                hint="slipway gc collects storage of the filesystem driver alone",
            )
        if "redis" in {str(self.setting("storage", "cache", name)) for name in ("blobdescriptor", "layerinfo")}:
            raise CollectionStopped(
                "the registry remembers blobs in Redis, which would go on to tell of what is gone",
                hint="set storage.cache.blobdescriptor to inmemory: a restart clears that, and each collection restarts",
            )


def parse(text: str) -> Server:
    """Read what commands.SERVER printed."""
    sections: dict[str, list[str]] = {}
    section: list[str] = []
    for line in text.splitlines():
        if line in {"=pid", "=now", "=arguments", "=environment", "=configuration", "=end"}:
            section = sections.setdefault(line[1:], [])
        else:
            section.append(line)
    if "end" not in sections:
        raise StoreUnreadable("the registry's process: what was told of it broke off", hint="run it again")
    configuration = _yaml("\n".join(sections["configuration"]))
    return Server(
        pid=sections["pid"][0],
        now=int(sections["now"][0]),
        arguments=tuple(sections["arguments"]),
        environment=dict(each.split("=", 1) for each in sections["environment"] if "=" in each),
        configuration=configuration if isinstance(configuration, dict) else {},
    )


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _within(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
