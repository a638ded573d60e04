"""/locations, /server_types, /pricing and what became of /datacenters: the catalog, read only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.localcloud import catalog
from scripts.localcloud.api.call import Call, Reply, Routes, ok, page_of
from scripts.localcloud.errors import gone, not_found

if TYPE_CHECKING:
    from scripts.localcloud.catalog import Location, ServerType
    from scripts.localcloud.cloud import Cloud

ANNOUNCEMENT = "https://docs.hetzner.cloud/changelog#2026-06-02-datacenters-deprecated"


def routes() -> Routes:
    """Give the calls of these resources."""
    return {
        "GET /locations": list_locations,
        "GET /locations/{id}": get_location,
        "GET /server_types": list_server_types,
        "GET /server_types/{id}": get_server_type,
        "GET /pricing": get_pricing,
        "GET /datacenters": datacenters,
        "GET /datacenters/{id}": datacenters,
    }


def list_locations(_: Cloud, call: Call) -> Reply:
    """List where servers can be rented."""
    wanted = [each for each in catalog.LOCATIONS if call.first("name") in (None, each.name)]
    return page_of(call, "locations", wanted, location_json, ("id", "name"))


def get_location(_: Cloud, call: Call) -> Reply:
    """Show one location."""
    found = next((each for each in catalog.LOCATIONS if each.id == call.id()), None)
    if found is None:
        raise not_found("location", call.id())
    return ok(location=location_json(found))


def list_server_types(cloud: Cloud, call: Call) -> Reply:
    """List sizes, where they are offered, whether they are thought to be in stock, and their prices."""
    wanted = [each for each in catalog.SERVER_TYPES if call.first("name") in (None, each.name)]
    return page_of(call, "server_types", wanted, lambda each: server_type_json(cloud, each), ("id", "name"))


def get_server_type(cloud: Cloud, call: Call) -> Reply:
    """Show one size."""
    found = next((each for each in catalog.SERVER_TYPES if each.id == call.id()), None)
    if found is None:
        raise not_found("server type", call.id())
    return ok(server_type=server_type_json(cloud, found))


def get_pricing(_: Cloud, __: Call) -> Reply:
    """Show the price list."""
    return ok(pricing=catalog.pricing())


def datacenters(_: Cloud, __: Call) -> Reply:
    """Say that they are gone since 2026-10-01."""
    raise gone("datacenters", ANNOUNCEMENT)


def location_json(location: Location) -> dict[str, Any]:
    """Write a location in wire form."""
    return {
        "id": location.id,
        "name": location.name,
        "description": location.description,
        "country": location.country,
        "city": location.city,
        "latitude": location.latitude,
        "longitude": location.longitude,
        "network_zone": location.network_zone,
    }


def server_type_json(cloud: Cloud, server_type: ServerType) -> dict[str, Any]:
    """Write a server type in wire form; `available` is a hint, and an order may be refused all the same."""
    return {
        "id": server_type.id,
        "name": server_type.name,
        "description": server_type.description,
        "category": server_type.category,
        "cores": server_type.cores,
        "memory": server_type.memory,
        "disk": server_type.disk,
        "cpu_type": server_type.cpu_type,
        "storage_type": "local",
        "architecture": server_type.architecture,
        "deprecated": False,
        "deprecation": None,
        "prices": catalog.server_type_prices(server_type),
        "locations": [
            {
                "id": location.id,
                "name": location.name,
                "deprecation": None,
                "available": (available := cloud.faults.available(server_type.name, location.name)),
                "recommended": available,
            }
            for location in map(catalog.location_named, server_type.locations)
        ],
    }
