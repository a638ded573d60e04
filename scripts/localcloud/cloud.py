"""One local cloud: its records, clock, faults, actions and machines, and the questions that several resources ask of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from scripts.localcloud import catalog, metadata, records
from scripts.localcloud.actions import ActionFailed, Actions
from scripts.localcloud.addresses import ipv4_pool, ipv6_pool
from scripts.localcloud.clock import Clock
from scripts.localcloud.errors import ApiError, limit_exceeded, not_found
from scripts.localcloud.faults import Faults
from scripts.localcloud.history import History
from scripts.localcloud.hypervisor import FirewallRule, MachineFailed, MachineSpec, PrivateAddress
from scripts.localcloud.labels import selects
from scripts.localcloud.ratelimit import RateLimit
from scripts.localcloud.store import CLOCK, Record, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime
    from decimal import Decimal

    from scripts.localcloud.actions import Work
    from scripts.localcloud.hypervisor import Hypervisor
    from scripts.localcloud.settings import Settings

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
LAST_IPV4, LAST_IPV6 = 3, 4
"""Marks: the address given last, counted in its range; a freed one is taken again as late as possible."""
Rules = tuple[FirewallRule, ...] | None


class Cloud:
    """The cloud behind the API and the control port."""

    def __init__(self, settings: Settings, hypervisor: Hypervisor, work: Mapping[str, Work]) -> None:
        """Open the state; nothing runs yet."""
        self.settings = settings
        self.hypervisor = hypervisor
        if settings.state:
            settings.state.mkdir(parents=True, exist_ok=True)
        self.store = Store(settings.state / "cloud.sqlite" if settings.state else None)
        self.clock = Clock(timedelta(seconds=self.store.mark(CLOCK) or 0))
        self.faults = Faults()
        self.history = History()
        self.limits = dict(settings.limits)
        self.rate_limit = self.full_rate_limit()
        self.actions = Actions(self, work, settings.action_factor)
        self.dead: set[int] = set()
        """Servers that a fault says to be running without a machine."""
        self._ipv4 = ipv4_pool(settings.ipv4_range, settings.reserved_ipv4)
        self._ipv6 = ipv6_pool(settings.ipv6_range)
        self._pushed: dict[int, Rules] = {}
        self._pushing = asyncio.Lock()
        self._beside: set[asyncio.Task[None]] = set()

    def full_rate_limit(self) -> RateLimit:
        """Give a full bucket as the settings size it."""
        limit, refill = self.settings.rate_limit, self.settings.rate_refill_per_s
        return RateLimit(limit, refill, float(limit), self.clock.now().timestamp())

    def find(self, kind: type[R], noun: str, number: int) -> R:
        """Find a record or answer 404."""
        found = self.store.get(kind, number)
        if found is None:
            raise not_found(noun, number)
        return found

    def check_limit(self, noun: str, kind: type[Record]) -> None:
        """Refuse one more of a kind than the project may have."""
        if len(self.store.all(kind)) >= self.limits[noun]:
            raise limit_exceeded(noun, self.limits[noun])

    def addresses(self, server: int) -> dict[str, records.PrimaryIp]:
        """Give the addresses assigned to a server by type."""
        return {ip.type: ip for ip in self.store.all(records.PrimaryIp) if ip.server == server}

    def members(self, network: int) -> tuple[records.Server, ...]:
        """Give the servers in a network."""
        return tuple(
            server
            for server in self.store.all(records.Server)
            if any(place.network == network for place in server.private_net)
        )

    # Addresses and meters: both change records and so belong into a call's or an action's transaction.

    def new_address(self, kind: Literal["ipv4", "ipv6"]) -> str:
        """Take an address that nobody has."""
        mark, pool = (LAST_IPV4, self._ipv4) if kind == "ipv4" else (LAST_IPV6, self._ipv6)
        picked = pool.pick({ip.ip for ip in self.store.all(records.PrimaryIp)}, int(self.store.mark(mark) or 0))
        if picked is None:
            raise ApiError("resource_unavailable", f"no {kind} address is left")
        self.store.put(records.Mark(id=mark, value=picked[0]))
        return picked[1]

    def open_meter(self, kind: str, resource: int, name: str, description: str, monthly: Decimal) -> None:
        """Let a price run from now on; what is free gets no line on the bill."""
        if not monthly:
            return
        meter = records.Meter(
            id=self.store.next_id(),
            kind=kind,
            resource=resource,
            name=name,
            description=description,
            hourly=catalog.hourly(monthly),
            monthly=monthly,
            started=self.clock.now(),
        )
        self.store.put(meter)

    def close_meters(self, resource: int, *, kind: str | None = None, at: datetime | None = None) -> None:
        """Stop the prices of a resource: all, or those of one kind."""
        for meter in self.store.all(records.Meter):
            if meter.resource == resource and meter.ended is None and kind in (None, meter.kind):
                self.store.put(replace(meter, ended=at or self.clock.now()))

    # Machines.

    def spec(self, server: records.Server) -> MachineSpec:
        """Describe a server to the hypervisor."""
        if server.image.type != "system":
            raise ActionFailed("action_failed", f"image {server.image.id}: the local cloud keeps no disk of a snapshot")
        server_type = catalog.server_type_named(server.server_type)
        addresses = self.addresses(server.id)
        return MachineSpec(
            id=server.id,
            name=server.name,
            architecture=server_type.architecture,
            cores=server_type.cores,
            memory_gb=server_type.memory,
            disk_gb=server.disk_size,
            image=server.image.name or "",
            user_data=server.user_data,
            ssh_keys=server.ssh_keys,
            ipv4=addresses["ipv4"].ip if "ipv4" in addresses else None,
            ipv6_network=addresses["ipv6"].ip if "ipv6" in addresses else None,
            private_addresses=tuple(
                PrivateAddress(ip=place.ip, network=network.ip_range, network_id=network.id, alias_ips=place.alias_ips)
                for place in server.private_net
                if (network := self.store.get(records.Network, place.network))
            ),
            metadata=metadata.tree(self, server),
        )

    def targets(self, firewall: records.Firewall) -> set[int]:
        """Give the servers that a firewall is applied to, directly or by label."""
        return {
            server.id
            for server in self.store.all(records.Server)
            for target in firewall.applied_to
            if target.server == server.id or (target.selector and selects(target.selector, server.labels))
        }

    def firewalls(self, server: int) -> tuple[records.Firewall, ...]:
        """Give the firewalls that apply to a server."""
        return tuple(each for each in self.store.all(records.Firewall) if server in self.targets(each))

    def rules(self, server: int) -> Rules:
        """Resolve what applies to a server; None when no firewall does."""
        firewalls = self.firewalls(server)
        if not firewalls:
            return None
        return tuple(dict.fromkeys(_flow(rule) for firewall in firewalls for rule in firewall.rules))

    def firewall_status(self, server: int) -> str:
        """Tell whether the rules of a server are in force."""
        in_force = server in self._pushed and self._pushed[server] == self.rules(server)
        return "applied" if in_force else "pending"

    async def push_firewalls(self) -> None:
        """Bring the rules of every server into force where they have changed."""
        for server in self.store.all(records.Server):
            await self.push_firewall(server.id)

    async def push_firewall(self, number: int) -> None:
        """Bring the rules of one server into force; one that is being deleted has none any more."""
        async with self._pushing:
            server = self.store.get(records.Server, number)
            if server is None or server.status == "deleting":
                return
            rules = self.rules(number)
            if number not in self._pushed or self._pushed[number] != rules:
                await self.hypervisor.set_firewall(number, rules)
                self._pushed[number] = rules

    def soon(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something beside the call; a failure is only logged."""
        task = asyncio.get_running_loop().create_task(work())
        self._beside.add(task)
        task.add_done_callback(self._done_beside)

    def _done_beside(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("beside the call: %s", error)

    # Life of the process.

    async def open(self) -> None:
        """Carry on where an earlier process stopped: its actions, and the servers that should run but do not.

        A real cloud boots them again after a failure of their host.
        """
        under_way = {
            resource
            for action in self.store.all(records.Action)
            if action.status == "running"
            for resource in action.resources
        }
        for server in self.store.all(records.Server):
            resource = records.Resource(type="server", id=server.id)
            if (
                server.status == "running"
                and resource not in under_way
                and not await self.hypervisor.running(server.id)
            ):
                with self.store.transaction():
                    self.actions.begin("start_server", resource)
        self.actions.resume()
        self.soon(self.push_firewalls)
        self.soon(self._watch)

    async def close(self) -> None:
        """Let go of everything; what is under way is carried on by the next process."""
        for task in tuple(self._beside):
            task.cancel()
        await self.actions.close()
        await self.hypervisor.close()
        self.store.close()

    async def reset(self) -> None:
        """Be as new: no machine, no record, no fault."""
        await self.actions.close()
        servers = self.store.all(records.Server)
        with self.store.transaction():
            self.store.clear()
            self.store.put(records.Mark(id=CLOCK, value=0))
        self.clock.offset = timedelta()
        self.faults.entries.clear()
        self.history.entries.clear()
        self.limits = dict(self.settings.limits)
        self.rate_limit = self.full_rate_limit()
        self.actions.factor = self.settings.action_factor
        self.dead.clear()
        self._pushed.clear()
        for server in servers:  # last: an order that comes meanwhile is one of the new cloud
            await self.hypervisor.delete(server.id)

    async def _watch(self) -> None:
        """Notice machines that were switched on or off from inside."""
        while True:
            await asyncio.sleep(self.settings.watch_s)
            for server in self.store.all(records.Server):
                try:
                    await self._compare(server)
                except MachineFailed as exc:
                    log.warning("server %s: %s", server.id, exc)

    async def _compare(self, server: records.Server) -> None:
        resource = records.Resource(type="server", id=server.id)
        if server.status not in ("running", "off") or server.id in self.dead or self.actions.locks(resource):
            return
        status: Literal["running", "off"] = "running" if await self.hypervisor.running(server.id) else "off"
        # Asked anew: a call may have come while the machine was asked.
        server = self.store.get(records.Server, server.id) or server
        if server.status in ("running", "off") and server.status != status and not self.actions.locks(resource):
            with self.store.transaction():
                self.store.put(replace(server, status=status))

    def forget_firewall(self, server: int) -> None:
        """Note that a machine is gone, and its rules with it."""
        self._pushed.pop(server, None)


def _flow(rule: records.Rule) -> FirewallRule:
    first, _, last = (rule.port or "").partition("-")
    ports = (1, 65535) if first == "any" else (int(first), int(last or first)) if first else (None, None)
    return FirewallRule(
        direction=rule.direction,
        protocol=rule.protocol,
        networks=rule.source_ips if rule.direction == "in" else rule.destination_ips,
        port_from=ports[0],
        port_to=ports[1],
    )
