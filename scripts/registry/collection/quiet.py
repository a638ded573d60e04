"""Whether a registry is quiet: unfinished uploads that somebody still writes to, and the writes that it counts."""

from __future__ import annotations

import re

_REQUESTS = re.compile(
    r'^registry_http_requests_total\{[^}]*method="(?:put|post|patch|delete)"[^}]*\} (\S+)', re.MULTILINE
)

UPLOADS = """\
[ -d repositories ] || exit 0
date +%s
find repositories -type f -path '*/_uploads/*' -exec stat -c '%Y' {} + 2>/dev/null
true
"""
"""The time, then when each part of an unfinished upload was written."""


def writes(metrics: str) -> float:
    """Return how many writes a registry has counted since its start."""
    return sum(float(each) for each in _REQUESTS.findall(metrics))


def busy_uploads(printed: str, *, quiet_s: float) -> int:
    """Return how many files of uploads were written within the last `quiet_s` seconds, from what UPLOADS printed."""
    now, *written = [int(line) for line in printed.split()] or [0]
    return sum(1 for each in written if now - each < quiet_s)
