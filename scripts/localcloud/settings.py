"""How a local cloud is set up."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read at run time by tools that show the settings
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003

DEFAULT_TOKEN = "localcloud" + "0" * 54
DEFAULT_LIMITS = {
    "servers": 100,
    "primary_ips": 200,
    "volumes": 100,
    "networks": 50,
    "firewalls": 50,
    "placement_groups": 50,
    "ssh_keys": 100,
    "snapshots": 100,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be chosen when the server starts; port 0 takes any free port, no state folder means memory only."""

    host: str = "127.0.0.1"
    port: int = 8765
    control_port: int = 8766
    state: Path | None = None
    tokens: tuple[str, ...] = (DEFAULT_TOKEN,)
    action_factor: float = 0.1
    """How long actions take, against the times in `api/`; 0 is as fast as the machines are."""
    ipv4_range: str = "198.51.100.0/24"
    reserved_ipv4: int = 10
    """The first addresses of the range are not given to servers."""
    ipv6_range: str = "2001:db8:51::/48"
    rate_limit: int = 3600
    rate_refill_per_s: float = 1.0
    watch_s: float = 2.0
    """How often machines are asked whether they still run."""
    limits: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_LIMITS))
