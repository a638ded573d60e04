"""The bill: what the meters cost until now. Pure; Decimal throughout.

A resource is billed per started hour from its own creation, in each calendar month at most the monthly price. Powered-off
servers and unassigned addresses are billed like the others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from scripts.localcloud.records import Meter

HOUR = timedelta(hours=1)
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one meter costs."""

    meter: Meter
    hours: int
    amount: Decimal
    """Net, not rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """All lines and their sum."""

    now: datetime
    lines: tuple[Line, ...]

    @property
    def total(self) -> Decimal:
        """The net sum, rounded once to the cent."""
        return sum((line.amount for line in self.lines), Decimal(0)).quantize(CENT, ROUND_HALF_UP)


def started_hours(started: datetime, ended: datetime) -> int:
    """Count the hours begun between two moments; at least one."""
    return max(1, -((started - ended) // HOUR))


def cost(meter: Meter, now: datetime) -> Line:
    """Price one meter; an hour belongs to the month in which it begins."""
    hours = started_hours(meter.started, meter.ended or now)
    moments = (meter.started + HOUR * hour for hour in range(hours))
    months = Counter((moment.year, moment.month) for moment in moments)
    amounts = (min(count * meter.hourly, meter.monthly) for count in months.values())
    return Line(meter=meter, hours=hours, amount=sum(amounts, Decimal(0)))


def make_bill(meters: Iterable[Meter], now: datetime) -> Bill:
    """Price all meters in order of their beginning."""
    ordered = sorted(meters, key=lambda meter: (meter.started, meter.id))
    return Bill(now=now, lines=tuple(cost(meter, now) for meter in ordered))


def to_json(bill: Bill) -> dict[str, Any]:
    """Give the bill as JSON; amounts are decimal strings, the lines' not rounded."""
    return {
        "currency": "EUR",
        "until": bill.now.isoformat(),
        "lines": [
            {
                "kind": line.meter.kind,
                "resource": line.meter.resource,
                "name": line.meter.name,
                "description": line.meter.description,
                "started": line.meter.started.isoformat(),
                "ended": line.meter.ended.isoformat() if line.meter.ended else None,
                "hours": line.hours,
                "price_hourly": str(line.meter.hourly),
                "price_monthly": str(line.meter.monthly),
                "amount": f"{line.amount:f}",
            }
            for line in bill.lines
        ],
        "total": str(bill.total),
    }


def to_text(bill: Bill) -> str:
    """Give the bill as a table."""
    rows = [("resource", "name", "what", "hours", "EUR net")]
    rows += [
        (
            f"{line.meter.kind} {line.meter.resource}",
            line.meter.name,
            line.meter.description,
            f"{line.hours}{'' if line.meter.ended else '+'}",
            f"{line.amount:.4f}",
        )
        for line in bill.lines
    ]
    rows.append(("total", "", "", "", str(bill.total)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "".join(
        "  ".join(
            cell.rjust(width) if column > 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        + "\n"
        for row in rows
    )
