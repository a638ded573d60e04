"""What the cloud keeps on record: one frozen value per resource, as the store holds it (wire forms are in api/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003
from decimal import Decimal  # noqa: TC003
from typing import Any, Literal

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SshKey:
    """A public key that new servers let in."""

    id: int
    name: str
    public_key: str
    fingerprint: str
    labels: Labels
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One firewall rule, in the API's own words."""

    direction: Literal["in", "out"]
    protocol: Literal["tcp", "udp", "icmp", "esp", "gre"]
    port: str | None = None
    source_ips: tuple[str, ...] = ()
    destination_ips: tuple[str, ...] = ()
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a firewall is applied to: one server or all that a label selector finds."""

    server: int | None = None
    selector: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """Rules and what they are applied to."""

    id: int
    name: str
    rules: tuple[Rule, ...]
    applied_to: tuple[Target, ...]
    labels: Labels
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A part of a network that servers can join."""

    type: str
    ip_range: str
    network_zone: str
    vswitch_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route inside a network."""

    destination: str
    gateway: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A private network."""

    id: int
    name: str
    ip_range: str
    subnets: tuple[Subnet, ...]
    routes: tuple[Route, ...]
    expose_routes_to_vswitch: bool
    protected: bool
    labels: Labels
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementGroup:
    """Servers that are kept on different hosts."""

    id: int
    name: str
    type: str
    labels: Labels
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryIp:
    """A public address; it may outlive the server that it is assigned to."""

    id: int
    name: str
    type: Literal["ipv4", "ipv6"]
    ip: str
    """An IPv4 address or an IPv6 /64 in CIDR notation."""
    location: str
    server: int | None
    auto_delete: bool
    protected: bool
    dns_ptr: Mapping[str, str]
    labels: Labels
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Block storage; on record and on the bill, but no machine sees it."""

    id: int
    name: str
    size: int
    location: str
    server: int | None
    format: str | None
    status: Literal["creating", "available"]
    protected: bool
    labels: Labels
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a server's disk is made from: a system image of the catalog or a snapshot."""

    id: int
    type: Literal["system", "snapshot", "backup"]
    name: str | None
    description: str
    architecture: Literal["x86", "arm"]
    os_flavor: str
    os_version: str | None
    disk_size: int
    image_size: float | None
    status: Literal["available", "creating"]
    created: datetime
    created_from: int | None = None
    created_from_name: str | None = None
    deprecated: datetime | None = None
    protected: bool = False
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A server's place in a private network."""

    network: int
    ip: str
    alias_ips: tuple[str, ...]
    mac_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A rented machine; its addresses, volumes and firewalls are found from their side."""

    id: int
    name: str
    status: Literal["initializing", "starting", "running", "stopping", "off", "deleting", "rebuilding", "migrating"]
    server_type: str
    location: str
    image: Image
    """As it was when the disk was made; a snapshot may be deleted since."""
    user_data: str
    ssh_keys: tuple[str, ...]
    """Public key lines at creation; later changes of the keys do not reach the machine."""
    disk_size: int
    private_net: tuple[Attachment, ...]
    placement_group: int | None
    backups: bool
    protect_delete: bool
    protect_rebuild: bool
    labels: Labels
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What an action is about."""

    type: str
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an action failed."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something that takes time; `arguments` is all that is needed to carry it on after a restart."""

    id: int
    command: str
    status: Literal["running", "success", "error"]
    started: datetime
    finished: datetime | None = None
    resources: tuple[Resource, ...]
    error: Failure | None = None
    arguments: Mapping[str, Any]
    after: int | None = None
    """The action that must have succeeded before this one begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One price that runs from `started` to `ended`: a line of the bill. Never deleted."""

    id: int
    kind: str
    resource: int
    name: str
    description: str
    hourly: Decimal
    monthly: Decimal
    started: datetime
    ended: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One of the cloud's own numbers: the clock's offset, the next id, …"""

    id: int
    value: float
