"""Which public address a server gets next. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The addresses of a range, counted from `first` up to but not including `end`."""

    first: int
    end: int
    address: Callable[[int], str]

    def pick(self, taken: Container[str], last: int) -> tuple[int, str] | None:
        """Give the next free one after `last`, so that a freed one is taken again as late as possible."""
        last = max(last, self.first - 1)
        order = chain(range(last + 1, self.end), range(self.first, last + 1))
        return next(((index, text) for index in order if (text := self.address(index)) not in taken), None)


def ipv4_pool(cidr: str, reserved: int) -> Pool:
    """Give the single addresses of a range, without the first `reserved` and the broadcast address."""
    network = ipaddress.IPv4Network(cidr)
    return Pool(first=reserved, end=network.num_addresses - 1, address=lambda index: str(network[index]))


def ipv6_pool(cidr: str) -> Pool:
    """Give the /64 networks of a range, without the first."""
    network = ipaddress.IPv6Network(cidr)
    end = 2 ** (64 - network.prefixlen)
    return Pool(first=1, end=end, address=lambda index: f"{network.network_address + (index << 64)}/64")
