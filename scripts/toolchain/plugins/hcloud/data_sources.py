"""The data sources: one function each, from arguments to what the API tells."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud.resources.primary_ip import primary_ip_outputs
from scripts.toolchain.plugins.hcloud.resources.server import server_outputs
from scripts.toolchain.plugins.hcloud.resources.server_network import attachment_outputs
from scripts.toolchain.plugins.hcloud.resources.ssh_key import ssh_key_outputs
from scripts.toolchain.plugins.hcloud.resources.volume import volume_outputs

if TYPE_CHECKING:
    from scripts.toolchain.plugins.hcloud.api import Api

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A function of the provider."""

    arguments: tuple[str, ...]
    read: Callable[[Api, Arguments], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Where objects of one kind are, and how they are translated."""

    path: str
    singular: str
    plural: str
    translate: Callable[[Mapping[str, Any]], dict[str, Any]]

    async def one(self, api: Api, arguments: Arguments, **filters: Any) -> dict[str, Any]:
        """Return the only object that fits; none, and more than one, are errors."""
        found = await self._candidates(api, arguments, **filters)
        wanted = ", ".join(f"{name} {value!r}" for name, value in arguments.items()) or "no argument"
        if not found:
            raise ProviderError(f"no {self.singular} found for {wanted}")
        if len(found) > 1:
            raise ProviderError(f"more than one {self.singular} found for {wanted}")
        return {**arguments, **self.translate(found[0]), "id": found[0]["id"]}

    async def all(self, api: Api, arguments: Arguments) -> list[dict[str, Any]]:
        """Return every object that fits a selector and statuses."""
        selector, statuses = arguments.get("withSelector"), arguments.get("withStatuses")
        found = await api.get_all(self.path, self.plural, label_selector=selector, status=statuses)
        return [{**self.translate(item), "id": item["id"]} for item in found]

    async def _candidates(self, api: Api, arguments: Arguments, **filters: Any) -> list[dict[str, Any]]:
        if arguments.get("id") is not None:
            found = await api.find(f"{self.path}/{arguments['id']}", self.singular)
            return [found] if found else []
        name, selector = arguments.get("name"), arguments.get("withSelector") or arguments.get("selector")
        status = arguments.get("withStatuses")
        if not (name or selector or filters):
            raise ProviderError(f"{self.singular}: give an id, a name or a selector")
        return await api.get_all(self.path, self.plural, name=name, label_selector=selector, status=status, **filters)


def _server(server: Mapping[str, Any]) -> dict[str, Any]:
    networks = [attachment_outputs(item) for item in server.get("private_net") or ()]
    iso = server.get("iso") or {}
    rescue = "linux64" if server.get("rescue_enabled") else ""
    return {**server_outputs(server), "networks": networks, "iso": iso.get("name") or "", "rescue": rescue}


def _location(location: Mapping[str, Any]) -> dict[str, Any]:
    names = ("city", "country", "description", "latitude", "longitude", "name")
    return {**{name: location[name] for name in names}, "networkZone": location["network_zone"]}


def _deprecation(item: Mapping[str, Any]) -> dict[str, Any]:
    deprecation = item.get("deprecation") or {}
    return {
        "isDeprecated": bool(deprecation),
        "deprecationAnnounced": deprecation.get("announced"),
        "unavailableAfter": deprecation.get("unavailable_after"),
    }


def _server_type(item: Mapping[str, Any]) -> dict[str, Any]:
    names = ("architecture", "cores", "description", "disk", "memory", "name")
    locations = [
        {
            "id": location["id"],
            "name": location["name"],
            "available": location.get("available"),
            "recommended": location.get("recommended"),
            **_deprecation(location),
        }
        for location in item.get("locations") or ()
    ]
    return {
        **{name: item[name] for name in names},
        **_deprecation(item),
        "category": item.get("category"),
        "cpuType": item["cpu_type"],
        # Told per location with the prices nowadays.
        "includedTraffic": item.get("included_traffic") or 0,
        "locations": locations,
        "storageType": item["storage_type"],
    }


def _image(image: Mapping[str, Any]) -> dict[str, Any]:
    deprecation = _deprecation(image)
    return {
        **deprecation,
        "architecture": image["architecture"],
        "created": image["created"],
        "deprecated": deprecation["deprecationAnnounced"],
        "description": image["description"],
        "labels": image["labels"],
        "name": image["name"],
        "osFlavor": image["os_flavor"],
        "osVersion": image.get("os_version"),
        "rapidDeploy": image.get("rapid_deploy"),
        "type": image["type"],
    }


IMAGES = Collection(path="/images", singular="image", plural="images", translate=_image)
LOCATIONS = Collection(path="/locations", singular="location", plural="locations", translate=_location)
SERVERS = Collection(path="/servers", singular="server", plural="servers", translate=_server)
SERVER_TYPES = Collection(path="/server_types", singular="server_type", plural="server_types", translate=_server_type)
SSH_KEYS = Collection(path="/ssh_keys", singular="ssh_key", plural="ssh_keys", translate=ssh_key_outputs)
PRIMARY_IPS = Collection(path="/primary_ips", singular="primary_ip", plural="primary_ips", translate=primary_ip_outputs)
VOLUMES = Collection(path="/volumes", singular="volume", plural="volumes", translate=volume_outputs)


async def _get_image(api: Api, arguments: Arguments) -> dict[str, Any]:
    if arguments.get("id") is not None:
        return await IMAGES.one(api, arguments)
    selector = arguments.get("withSelector") or arguments.get("selector")
    found = await api.get_all(
        "/images",
        "images",
        name=arguments.get("name"),
        label_selector=selector,
        status=arguments.get("withStatuses"),
        architecture=arguments.get("withArchitecture", "x86"),
        include_deprecated="true" if arguments.get("includeDeprecated") else None,
        sort="created:desc" if arguments.get("mostRecent") else None,
    )
    if not found:
        raise ProviderError(f"no image found for {dict(arguments)}")
    if len(found) > 1 and not arguments.get("mostRecent"):
        raise ProviderError(f"more than one image found for {dict(arguments)}; set mostRecent or say more")
    return {**arguments, **_image(found[0]), "id": found[0]["id"]}


async def _get_server_types(api: Api, _: Arguments) -> dict[str, Any]:
    found = await SERVER_TYPES.all(api, {})
    return {
        "id": _digest(found),
        "descriptions": [item["description"] for item in found],
        "names": [item["name"] for item in found],
        "serverTypeIds": [str(item["id"]) for item in found],
        "serverTypes": found,
    }


async def _get_locations(api: Api, _: Arguments) -> dict[str, Any]:
    found = await LOCATIONS.all(api, {})
    return {
        "id": _digest(found),
        "descriptions": [item["description"] for item in found],
        "names": [item["name"] for item in found],
        "locationIds": [str(item["id"]) for item in found],
        "locations": found,
    }


async def _get_servers(api: Api, arguments: Arguments) -> dict[str, Any]:
    found = await SERVERS.all(api, arguments)
    return {**arguments, "id": _digest(found), "servers": found}


async def _get_ssh_keys(api: Api, arguments: Arguments) -> dict[str, Any]:
    found = await SSH_KEYS.all(api, arguments)
    return {**arguments, "id": _digest(found), "sshKeys": [{**item, "id": item["id"]} for item in found]}


async def _get_ssh_key(api: Api, arguments: Arguments) -> dict[str, Any]:
    filters = {"fingerprint": arguments["fingerprint"]} if arguments.get("fingerprint") else {}
    return await SSH_KEYS.one(api, arguments, **filters)


async def _get_primary_ip(api: Api, arguments: Arguments) -> dict[str, Any]:
    filters = {"ip": arguments["ipAddress"]} if arguments.get("ipAddress") else {}
    return await PRIMARY_IPS.one(api, arguments, **filters)


def _digest(items: list[dict[str, Any]]) -> str:
    """Make the id of a list, which has none of its own, from the ids in it."""
    return hashlib.sha1("-".join(str(item["id"]) for item in items).encode(), usedforsecurity=False).hexdigest()


_SELECTORS = ("id", "name", "selector", "withSelector")
_SOURCES = {
    "getImage": DataSource(
        arguments=(*_SELECTORS, "includeDeprecated", "mostRecent", "withArchitecture", "withStatuses"), read=_get_image
    ),
    "getLocation": DataSource(arguments=("id", "name"), read=LOCATIONS.one),
    "getLocations": DataSource(arguments=("id",), read=_get_locations),
    "getPrimaryIp": DataSource(arguments=("id", "ipAddress", "name", "withSelector"), read=_get_primary_ip),
    "getServer": DataSource(arguments=(*_SELECTORS, "networks", "placementGroupId", "withStatuses"), read=SERVERS.one),
    "getServerType": DataSource(arguments=("id", "name"), read=SERVER_TYPES.one),
    "getServerTypes": DataSource(arguments=("id", "serverTypeIds"), read=_get_server_types),
    "getServers": DataSource(arguments=("withSelector", "withStatuses"), read=_get_servers),
    "getSshKey": DataSource(arguments=(*_SELECTORS, "fingerprint"), read=_get_ssh_key),
    "getSshKeys": DataSource(arguments=("id", "withSelector"), read=_get_ssh_keys),
    "getVolume": DataSource(arguments=(*_SELECTORS, "location", "serverId", "withStatuses"), read=VOLUMES.one),
}
DATA_SOURCES = {f"hcloud:index/{name}:{name}": source for name, source in _SOURCES.items()}
