"""What the verbs print: results on stdout, progress and errors on stderr (the only module here that prints)."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from scripts.registry.manifests import Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scripts.registry.backup import Backed, Backup
    from scripts.registry.inspection import Inspection
    from scripts.registry.manifests import Image
    from scripts.registry.merge import Merged
    from scripts.registry.untag import Removal

_RED, _YELLOW, _RESET = "\033[31m", "\033[33m", "\033[0m"


def result(text: str) -> None:
    """Print what was asked for."""
    print(_printable(text))


def result_json(value: Any) -> None:
    """Print what was asked for, as JSON."""
    print(json.dumps(value, indent=2))


def result_bytes(content: bytes) -> None:
    """Print content as it is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def progress(line: str) -> None:
    """Say what is being done."""
    print(f"slipway: {_printable(line)}", file=sys.stderr, flush=True)


def warning(message: str, hint: str | None = None) -> None:
    """Say what is not as it should be, though the command did its work."""
    _say("warning:", _YELLOW, message, hint)


def error(message: str, hint: str | None = None) -> None:
    """Say what went wrong, and the next thing to do."""
    _say("error:", _RED, message, hint)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay rows out in columns."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(padded)


def before_and_after(merged: Merged) -> None:
    """Show every platform of the target before and after, beside the result."""
    before, after = _platforms(merged.before), merged.after.images()
    changed = {change.platform: change for change in merged.changes}
    rows = []
    for platform in sorted(after | before):
        old = changed[platform].before if platform in changed else (before.get(platform, ""),)
        new = after[platform].digest if platform in after else ""
        rows.append((str(platform), ", ".join(map(short, old)) or "-", short(new) if new not in old else "same"))
    print(_printable(table(("PLATFORM", "BEFORE", "AFTER"), rows)), file=sys.stderr)


def merged_json(merged: Merged) -> dict[str, Any]:
    """Return what a merge came to."""
    before = _platforms(merged.before)
    return {
        "reference": str(merged.reference),
        "target": str(merged.target),
        "digest": merged.after.digest,
        "before": merged.before.digest if merged.before else None,
        "platforms": [
            {"platform": str(platform), "before": before.get(platform), "after": each.digest}
            for platform, each in sorted(merged.after.images().items())
        ],
        "backup": str(merged.backup) if merged.backup else None,
        "replaced": {str(platform): list(digests) for platform, digests in merged.replaced.items()},
        "superseded": [str(each) for each in merged.superseded],
        "included": [str(each) for each in merged.included],
        "broken": list(merged.broken),
        "staging": [removal_json(each) for each in merged.staging],
        "attempts": merged.attempts,
    }


def removal_json(removal: Removal) -> dict[str, Any]:
    """Return what became of a tag."""
    return {"reference": str(removal.reference), "kept": str(removal.kept) if removal.kept else None}


def inspection(found: Inspection) -> str:
    """Show a tag's platforms."""
    rows = [
        (
            row.platform,
            short(row.digest),
            size(row.size),
            row.created[:19].replace("T", " ") or "-",
            str(row.attestations),
        )
        for row in found.rows
    ]
    return table(("PLATFORM", "DIGEST", "SIZE", "CREATED", "ATTESTATIONS"), rows)


def inspection_json(found: Inspection) -> dict[str, Any]:
    """Return what was found of a reference."""
    return {
        "reference": str(found.reference),
        "digest": found.digest,
        "mediaType": found.media_type,
        "platforms": [
            {"platform": row.platform, "digest": row.digest, "size": row.size, "created": row.created or None,
             "attestations": row.attestations}
            for row in found.rows
        ],
        "findings": [{"what": each.what, "breaks": each.breaks, "cure": each.cure or None} for each in found.findings],
        "read": {"manifests": found.manifests_read, "blobs": found.blobs_read},
    }  # fmt: skip


def backups(found: Sequence[Backup]) -> str:
    """Show a tag's backups, the newest first."""
    rows = [(each.taken.strftime("%Y-%m-%d %H:%M:%S"), each.digest, each.reference.tag) for each in found]
    return table(("TAKEN (UTC)", "DIGEST", "BACKUP"), rows)


def backup_json(each: Backup) -> dict[str, Any]:
    """Return a backup."""
    return {"backup": str(each.reference), "taken": each.taken.isoformat(), "digest": each.digest}


def backed_json(backed: Backed) -> dict[str, Any]:
    """Return what a backup of a repository came to."""
    return {
        "taken": [backup_json(each) for each in backed.taken],
        "unchanged": backed.unchanged,
        "removed": [str(each) for each in backed.removed],
        "failed": {tag: str(each) for tag, each in backed.failed.items()},
    }


def short(digest: str) -> str:
    """Return the beginning of a digest, as docker shows it."""
    return digest.removeprefix("sha256:")[:12]


def size(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def _platforms(before: Index | Image | None) -> dict[Any, str]:
    return {platform: each.digest for platform, each in before.images().items()} if isinstance(before, Index) else {}


def _say(word: str, colour: str, message: str, hint: str | None) -> None:
    for line in message.splitlines():
        print(f"{_coloured(word, colour)} {_printable(line)}", file=sys.stderr)
    if hint:
        print(f"{_coloured('hint:', _YELLOW)} {_printable(hint)}", file=sys.stderr)


def _printable(text: str) -> str:
    """Return what is safe to show: a registry's words may hold what a terminal obeys."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)


def _coloured(word: str, colour: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
    return word if plain else f"{colour}{word}{_RESET}"
