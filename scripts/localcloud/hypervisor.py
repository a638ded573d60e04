"""The seam between the API and the machines: what a hypervisor is told, and what it must do.

The API owns every decision (names, addresses, which rules apply); a hypervisor only carries them out. `NoMachines` is the
hypervisor of tests and of `up --api-only`: it remembers what is on and starts no process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class MachineFailed(Exception):
    """A machine could not do what was asked; `str(exc)` is the reason that the failed action shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateAddress:
    """One attachment to a private network."""

    ip: str
    network: str
    """The network's whole range in CIDR notation; another network may have the same."""
    network_id: int
    alias_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallRule:
    """One allowed flow; `networks` are the sources of an inbound rule and the destinations of an outbound one."""

    direction: Literal["in", "out"]
    protocol: Literal["tcp", "udp", "icmp", "esp", "gre"]
    networks: tuple[str, ...]
    port_from: int | None = None
    port_to: int | None = None
    """Both are None when the protocol has no ports; equal for a single port; 1 and 65535 for "any"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """All that a hypervisor needs to know about one machine."""

    id: int
    name: str
    architecture: Literal["x86", "arm"]
    cores: int
    memory_gb: float
    disk_gb: int
    image: str
    user_data: str
    ssh_keys: tuple[str, ...]
    """Public key lines in OpenSSH format, for root's authorized_keys."""
    ipv4: str | None
    """An address, "198.51.100.17"."""
    ipv6_network: str | None
    """A /64, "2001:db8:51:7::/64"; the machine is its ::1."""
    private_addresses: tuple[PrivateAddress, ...] = ()
    metadata: Mapping[str, str]
    """What /hetzner/v1/metadata says: path below it → text ("" is the whole document)."""


class Hypervisor(Protocol):
    """Runs machines; every method is idempotent and raises `MachineFailed` with a reason fit for the user."""

    async def start(self, spec: MachineSpec) -> None:
        """Make the disk if there is none and boot; done when PID 1 runs.

        A machine that runs already takes over the private addresses of `spec` and is otherwise left alone.
        """

    async def stop(self, machine_id: int, *, graceful: bool) -> None:
        """Switch off, keeping the disk: graceful asks the machine and waits, otherwise the power is cut."""

    async def reset(self, machine_id: int) -> None:
        """Cut the power and boot again, keeping the disk."""

    async def rebuild(self, spec: MachineSpec) -> None:
        """Wipe the disk and boot from the image of `spec`."""

    async def delete(self, machine_id: int) -> None:
        """Remove the machine, its disk and its interfaces; nothing happens when there is none."""

    async def set_firewall(self, machine_id: int, rules: tuple[FirewallRule, ...] | None) -> None:
        """Replace the rules enforced outside the machine; None means that no firewall applies (all is let through).

        Inbound lets nothing through but what a rule allows; outbound is open until the first outbound rule. May come
        before the machine's first start; must hold from the first packet on.
        """

    async def running(self, machine_id: int) -> bool:
        """Tell whether the machine runs now."""

    async def close(self) -> None:
        """Let go: the API server ends; the machines may run on."""


@dataclass(slots=True)
class NoMachines:
    """A hypervisor without machines: it remembers what is on and which rules were set."""

    on: dict[int, MachineSpec] = field(default_factory=dict)
    disks: dict[int, MachineSpec] = field(default_factory=dict)
    firewalls: dict[int, tuple[FirewallRule, ...] | None] = field(default_factory=dict)

    async def start(self, spec: MachineSpec) -> None:
        """Note that the machine is on."""
        self.disks[spec.id] = self.on[spec.id] = spec

    async def stop(self, machine_id: int, *, graceful: bool) -> None:  # noqa: ARG002 - off is off
        """Note that the machine is off."""
        self.on.pop(machine_id, None)

    async def reset(self, machine_id: int) -> None:
        """Note that the machine is on, as it was specified last."""
        if machine_id not in self.disks:
            raise MachineFailed(f"machine {machine_id}: no such machine")
        self.on[machine_id] = self.disks[machine_id]

    async def rebuild(self, spec: MachineSpec) -> None:
        """Note that the machine is on with its new specification."""
        await self.start(spec)

    async def delete(self, machine_id: int) -> None:
        """Forget the machine."""
        for book in (self.on, self.disks, self.firewalls):
            book.pop(machine_id, None)

    async def set_firewall(self, machine_id: int, rules: tuple[FirewallRule, ...] | None) -> None:
        """Note the rules."""
        self.firewalls[machine_id] = rules

    async def running(self, machine_id: int) -> bool:
        """Tell whether the machine was left on."""
        return machine_id in self.on

    async def close(self) -> None:
        """Nothing to close."""
