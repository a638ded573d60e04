"""The record of refused orders: a file in the user's cache folder, whose entries live for minutes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from builders import files, turns
from builders.placement import Refusal

if TYPE_CHECKING:
    from pathlib import Path

LIFETIME = timedelta(minutes=15)


def _path() -> Path:
    return user_cache_path("slipway") / "refusals.json"


def load(now: datetime) -> tuple[Refusal, ...]:
    """Return the refusals still in force; an absent or damaged record is an empty one."""
    try:
        entries = json.loads(_path().read_text())
        refusals = [
            Refusal(
                server_type=entry["server_type"],
                location=entry["location"],
                code=entry["code"],
                until=datetime.fromisoformat(entry["until"]),
            )
            for entry in entries
        ]
        return tuple(refusal for refusal in refusals if refusal.until > now)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def record(server_type: str, location: str, code: str, *, now: datetime) -> Refusal:
    """Add a refusal, dropping those that have lapsed."""
    refusal = Refusal(server_type=server_type, location=location, code=code, until=now + LIFETIME)
    with turns.taken("refusals"):  # the builders of a fleet are refused side by side
        kept = [each for each in load(now) if (each.server_type, each.location) != (server_type, location)]
        entries = [
            {
                "server_type": each.server_type,
                "location": each.location,
                "code": each.code,
                "until": each.until.isoformat(),
            }
            for each in (*kept, refusal)
        ]
        files.replace(_path(), json.dumps(entries))
    return refusal
