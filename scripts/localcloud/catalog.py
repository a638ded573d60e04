"""What can be rented and for how much: locations, server types, images, prices. Pure; figures as of mid-2026.

Prices of cx, cax, volumes and primary IPs follow the vendor's list of June 2026; those of cpx and ccx, of traffic and of
snapshots are only plausible (README, limitations). A program reads prices at run time, so any figures will do that add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from scripts.localcloud.records import Image

VAT_RATE = Decimal(19)
CAPPED_HOURS = 624
"""From this many hours in a month on, the monthly price is all that is paid."""
PRIMARY_IPV4_MONTHLY = Decimal("0.50")
VOLUME_GB_MONTHLY = Decimal("0.0572")
IMAGE_GB_MONTHLY = Decimal("0.0110")
TRAFFIC_TB = Decimal("1.00")
BACKUP_PERCENTAGE = Decimal(20)
TB = 1_099_511_627_776


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place to rent in."""

    id: int
    name: str
    description: str
    country: str
    city: str
    latitude: float
    longitude: float
    network_zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerType:
    """A size of server."""

    id: int
    name: str
    category: str
    architecture: Literal["x86", "arm"]
    cpu_type: Literal["shared", "dedicated"]
    cores: int
    memory: float
    disk: int
    monthly: Decimal
    locations: tuple[str, ...]

    @property
    def description(self) -> str:
        """Name the type as the vendor's pages do."""
        return self.name.upper()


_PLACES = (
    (1, "fsn1", "Falkenstein", "DE", "eu-central", 50.47612, 12.370071, "Falkenstein DC Park 1"),
    (2, "nbg1", "Nuremberg", "DE", "eu-central", 49.452102, 11.076665, "Nuremberg DC Park 1"),
    (3, "hel1", "Helsinki", "FI", "eu-central", 60.169855, 24.938379, "Helsinki DC Park 1"),
    (4, "ash", "Ashburn, VA", "US", "us-east", 39.045821, -77.487073, "Ashburn, VA"),
    (5, "hil", "Hillsboro, OR", "US", "us-west", 45.54222, -122.951924, "Hillsboro, OR"),
    (6, "sin", "Singapore", "SG", "ap-southeast", 1.283333, 103.833333, "Singapore"),
)
LOCATIONS = tuple(
    Location(
        id=number,
        name=name,
        description=description,
        country=country,
        city=city,
        latitude=latitude,
        longitude=longitude,
        network_zone=zone,
    )
    for number, name, city, country, zone, latitude, longitude, description in _PLACES
)
EU = ("fsn1", "nbg1", "hel1")
EVERYWHERE = tuple(location.name for location in LOCATIONS)
NETWORK_ZONES = tuple(dict.fromkeys(location.network_zone for location in LOCATIONS))

ARM, X86, DEDICATED = ("arm", "shared"), ("x86", "shared"), ("x86", "dedicated")
_SIZES: tuple[tuple[int, str, tuple[str, str], int, int, int, str, tuple[str, ...]], ...] = (
    (45, "cax11", ARM, 2, 4, 40, "5.99", EU),
    (93, "cax21", ARM, 4, 8, 80, "10.49", EU),
    (94, "cax31", ARM, 8, 16, 160, "20.99", EU),
    (95, "cax41", ARM, 16, 32, 320, "40.99", EU),
    (114, "cx23", X86, 2, 4, 40, "5.49", EU),
    (115, "cx33", X86, 4, 8, 80, "8.49", EU),
    (116, "cx43", X86, 8, 16, 160, "15.99", EU),
    (117, "cx53", X86, 16, 32, 320, "29.49", EU),
    (108, "cpx12", X86, 1, 2, 40, "6.99", EVERYWHERE),
    (109, "cpx22", X86, 2, 4, 80, "10.99", EVERYWHERE),
    (110, "cpx32", X86, 4, 8, 160, "18.99", EVERYWHERE),
    (111, "cpx42", X86, 8, 16, 320, "34.99", EVERYWHERE),
    (112, "cpx52", X86, 12, 24, 480, "49.99", EVERYWHERE),
    (113, "cpx62", X86, 16, 32, 640, "69.99", EVERYWHERE),
    (96, "ccx13", DEDICATED, 2, 8, 80, "19.99", EVERYWHERE),
    (97, "ccx23", DEDICATED, 4, 16, 160, "39.99", EVERYWHERE),
    (98, "ccx33", DEDICATED, 8, 32, 240, "79.99", EVERYWHERE),
)
_CATEGORY = {"cax": "cost_optimized", "cx": "cost_optimized", "cpx": "regular_purpose", "ccx": "general_purpose"}


def _server_type(size: tuple[int, str, tuple[str, str], int, int, int, str, tuple[str, ...]]) -> ServerType:
    number, name, (architecture, cpu_type), cores, memory, disk, monthly, locations = size
    return ServerType(
        id=number,
        name=name,
        category=_CATEGORY[name.rstrip("0123456789")],
        architecture="arm" if architecture == "arm" else "x86",
        cpu_type="dedicated" if cpu_type == "dedicated" else "shared",
        cores=cores,
        memory=float(memory),
        disk=disk,
        monthly=Decimal(monthly),
        locations=locations,
    )


SERVER_TYPES = tuple(sorted(map(_server_type, _SIZES), key=lambda server_type: server_type.id))

_RELEASES: tuple[tuple[int, int, str, str, str, bool], ...] = (
    (114690387, 114690389, "debian", "12", "Debian 12", False),
    (310557660, 310557661, "debian", "13", "Debian 13", False),
    (45557056, 103907373, "debian", "11", "Debian 11", True),
    (161547269, 161547270, "ubuntu", "24.04", "Ubuntu 24.04", False),
    (67794396, 103908130, "ubuntu", "22.04", "Ubuntu 22.04", False),
    (310557662, 310557663, "rocky", "9", "Rocky Linux 9", False),
)
_DEPRECATED = datetime(2026, 8, 1, tzinfo=UTC)


def _both(x86: int, arm: int) -> tuple[tuple[int, Literal["x86", "arm"]], ...]:
    return (x86, "x86"), (arm, "arm")


def _images() -> tuple[Image, ...]:
    return tuple(
        Image(
            id=number,
            type="system",
            name=f"{flavor}-{version}",
            description=description,
            architecture=architecture,
            os_flavor=flavor,
            os_version=version,
            disk_size=5,
            image_size=None,
            status="available",
            created=datetime(2025, 8, 1, tzinfo=UTC),
            deprecated=_DEPRECATED if deprecated else None,
            labels={},
        )
        for x86, arm, flavor, version, description, deprecated in _RELEASES
        for number, architecture in _both(x86, arm)
    )


IMAGES = _images()


def hourly(monthly: Decimal) -> Decimal:
    """Give the hourly price of a monthly one: 624 hours reach the cap."""
    return (monthly / CAPPED_HOURS).quantize(Decimal("1e-10"))


def price(net: Decimal) -> dict[str, str]:
    """Write a price as the API does: decimal strings, net and with VAT."""
    gross = net * (100 + VAT_RATE) / 100
    return {"net": f"{net:.10f}", "gross": f"{gross:.16f}"}


def server_type_prices(server_type: ServerType) -> list[dict[str, Any]]:
    """Price a server type at each of its locations."""
    return [
        {
            "location": location,
            "price_hourly": price(hourly(server_type.monthly)),
            "price_monthly": price(server_type.monthly),
            "included_traffic": (20 if location in EU else 1) * TB,
            "price_per_tb_traffic": price(TRAFFIC_TB),
        }
        for location in server_type.locations
    ]


def pricing() -> dict[str, Any]:
    """Give the whole price list as `GET /pricing` answers it."""
    monthly = {"ipv4": PRIMARY_IPV4_MONTHLY, "ipv6": Decimal(0)}
    return {
        "currency": "EUR",
        "vat_rate": f"{VAT_RATE:.6f}",
        "image": {"price_per_gb_month": price(IMAGE_GB_MONTHLY)},
        "primary_ips": [
            {
                "type": kind,
                "prices": [
                    {
                        "location": location.name,
                        "price_hourly": price(hourly(monthly[kind])),
                        "price_monthly": price(monthly[kind]),
                    }
                    for location in LOCATIONS
                ],
            }
            for kind in monthly
        ],
        "floating_ips": [],
        "load_balancer_types": [],
        "server_backup": {"percentage": f"{BACKUP_PERCENTAGE:.10f}"},
        "server_types": [
            {"id": server_type.id, "name": server_type.name, "prices": server_type_prices(server_type)}
            for server_type in SERVER_TYPES
        ],
        "volume": {"price_per_gb_month": price(VOLUME_GB_MONTHLY)},
    }


def find_location(name_or_id: str | int) -> Location | None:
    """Find a location by its name or number."""
    return next((each for each in LOCATIONS if str(name_or_id) in (each.name, str(each.id))), None)


def find_server_type(name_or_id: str | int) -> ServerType | None:
    """Find a server type by its name or number."""
    return next((each for each in SERVER_TYPES if str(name_or_id) in (each.name, str(each.id))), None)


def location_named(name: str) -> Location:
    """Give the location that a record names."""
    return next(each for each in LOCATIONS if each.name == name)


def server_type_named(name: str) -> ServerType:
    """Give the server type that a record names."""
    return next(each for each in SERVER_TYPES if each.name == name)
