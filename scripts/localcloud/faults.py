"""Faults to order: what the control port may ask the cloud to do wrong. Off by default, gone after a restart.

Each fault is a value with a pattern (shell wildcards) and a number of times; `Faults` counts them down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from scripts.localcloud.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

Times = Annotated[int, Meta(ge=1)] | None
"""How often a fault strikes; None means until it is cleared."""


class ErrorFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="error"):
    """Calls that match are answered with an error and do nothing."""

    method: str = "*"
    path: str = "*"
    code: str
    message: str = "ordered by the control port"
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    times: Times = 1


class DelayFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="delay"):
    """Calls that match are answered later."""

    method: str = "*"
    path: str = "*"
    seconds: Annotated[float, Meta(ge=0)]
    times: Times = None


class ActionFault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="action"
):
    """Actions that match end in error before they have done anything."""

    command: str = "*"
    code: str = "action_failed"
    message: str = "ordered by the control port"
    times: Times = 1


class MachineFault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="machine"
):
    """Servers that match never boot: `stuck` starting for ever, or `dead` (said to run, but there is no machine)."""

    name: str = "*"
    mode: Literal["stuck", "dead"] = "stuck"
    times: Times = None


Fault = ErrorFault | DelayFault | ActionFault | MachineFault
Order = Literal["ok", "resource_unavailable", "location_disabled", "unsupported_location", "placement_error"]


class Stock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in stock; the hint of `GET /server_types` and the answer to an order are set apart."""

    server_type: str = "*"
    location: str = "*"
    available: bool | None = None
    """What the hint says; None leaves it as it is."""
    order: Order | None = None
    """What an order gets; None leaves it as it is."""
    times: Times = None
    """How many orders; the hint stays."""


F = TypeVar("F", ErrorFault, DelayFault, ActionFault, MachineFault, Stock)

REFUSALS: dict[Order, tuple[str, str]] = {
    "resource_unavailable": ("resource_unavailable", "error during placement"),
    "location_disabled": ("resource_unavailable", "server location disabled"),
    "unsupported_location": ("invalid_input", "unsupported location for server type"),
    "placement_error": ("placement_error", "error during placement"),
}


@dataclass(slots=True)
class Entry:
    """A fault that was ordered, how often it may still strike and how often it has."""

    number: int
    fault: Fault | Stock
    left: int | None
    struck: int = 0


@dataclass(slots=True)
class Faults:
    """All faults that are set."""

    entries: list[Entry] = field(default_factory=list)
    count: int = 0

    def add(self, fault: Fault | Stock) -> Entry:
        """Order a fault; of several that match, the one ordered last strikes."""
        self.count += 1
        entry = Entry(number=self.count, fault=fault, left=fault.times)
        self.entries.append(entry)
        return entry

    def remove(self, number: int) -> bool:
        """Take one fault back; False when there is none with that number."""
        kept = [entry for entry in self.entries if entry.number != number]
        found = len(kept) < len(self.entries)
        self.entries = kept
        return found

    def error(self, method: str, path: str) -> ApiError | None:
        """Give the error that this call is to get."""
        fault = self._strike(ErrorFault, lambda fault: _matches(method, fault.method) and _matches(path, fault.path))
        return ApiError(fault.code, fault.message, status=fault.status) if fault else None

    def delay(self, method: str, path: str) -> float:
        """Give the seconds that this call has to wait."""
        fault = self._strike(DelayFault, lambda fault: _matches(method, fault.method) and _matches(path, fault.path))
        return fault.seconds if fault else 0

    def action(self, command: str) -> ActionFault | None:
        """Give the failure that this action is to end in."""
        return self._strike(ActionFault, lambda fault: _matches(command, fault.command))

    def machine(self, name: str) -> Literal["stuck", "dead"] | None:
        """Say how this server is not to boot."""
        fault = self._strike(MachineFault, lambda fault: _matches(name, fault.name))
        return fault.mode if fault else None

    def available(self, server_type: str, location: str) -> bool:
        """Say what the hint is for a type at a location that offers it."""
        hints = [
            stock.available
            for stock in (entry.fault for entry in self.entries)
            if isinstance(stock, Stock)
            and stock.available is not None
            and _matches(server_type, stock.server_type)
            and _matches(location, stock.location)
        ]
        return hints[-1] if hints else True

    def refusal(self, server_type: str, location: str) -> ApiError | None:
        """Give the error that an order of a type at a location is to get."""
        stock = self._strike(
            Stock,
            lambda stock: (
                stock.order is not None
                and _matches(server_type, stock.server_type)
                and _matches(location, stock.location)
            ),
        )
        if stock is None or stock.order is None or stock.order == "ok":
            return None
        code, message = REFUSALS[stock.order]
        return ApiError(code, message, details={} if code == "invalid_input" else None)

    def _strike(self, kind: type[F], matches: Callable[[F], bool]) -> F | None:
        for entry in reversed(self.entries):
            fault = entry.fault
            if isinstance(fault, kind) and entry.left != 0 and matches(fault):
                entry.struck += 1
                entry.left = None if entry.left is None else entry.left - 1
                return fault
        return None


def _matches(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern)
