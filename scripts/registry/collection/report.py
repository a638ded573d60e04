"""What a collection came to, as a value; and as text, JSON and one line for an event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts.registry import output
from scripts.registry.collection.plan import TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.registry.collection.plan import Plan


@dataclass(slots=True, kw_only=True)
class Report:
    """What a collection came to. Times are in seconds, sizes in bytes; `stopped` are the parts of the time without writes."""

    dry_run: bool
    plan: Plan | None = None
    blobs_before: int = 0
    bytes_before: int = 0
    blobs_freed: int = 0
    bytes_freed: int = 0
    backups: list[str] = field(default_factory=list)
    tags_verified: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def stopped_s(self) -> float:
        """Return for how long no writes were taken."""
        return sum(self.stopped.values())

    @property
    def line(self) -> str:
        """Return the whole in one line."""
        plan = self.plan
        if plan is None or not (plan.unlink or plan.untag or plan.frees):
            return "nothing to collect; writes were not stopped"
        if self.dry_run:
            return f"would free {output.size(plan.bytes)}: {len(plan.frees)} blobs, {len(plan.unlink)} manifests"
        return (
            f"freed {output.size(self.bytes_freed)}: {self.blobs_freed} blobs, {len(plan.unlink)} manifests, "
            f"{len(plan.untag)} tags; no writes for {self.stopped_s:.1f} s; {self.tags_verified} tags verified"
        )


def text(report: Report) -> str:
    """Return what a person reads: what goes, what stays and why, and how long it took."""
    plan, lines = report.plan, []
    if plan is None:
        return report.line
    kept = _kept_tags(plan)
    lines += [f"{name}:{tag} goes: {reason}" for (name, tag), reason in sorted(plan.untag.items())]
    rows = [
        (
            "freed" if not report.dry_run else "to free",
            str(len(plan.frees)),
            output.size(plan.bytes),
            "nothing needs them",
        )
    ]
    rows += [("kept", str(count), "", f"manifests: {reason}") for reason, count in plan.reasons().items()]
    rows += [("kept", str(count), "", f"tags: {reason}") for reason, count in kept.items() if reason != "tag"]
    if plan.held:
        rows.append(
            ("kept", str(len(plan.held)), "", "blobs without a manifest, of pushes that go on or were given up")
        )
    lines.append(output.table(("WHAT", "COUNT", "SIZE", "WHY"), rows))
    if report.stopped:
        parts = ", ".join(f"{name} {took:.1f}" for name, took in report.stopped.items())
        lines.append(f"no writes for {report.stopped_s:.1f} s ({parts})")
    return "\n".join([*lines, report.line])


def to_json(report: Report) -> dict[str, Any]:
    """Return the whole; what stays because of a tag is counted, all else is listed."""
    plan = report.plan
    found: dict[str, Any] = {
        "dryRun": report.dry_run,
        "before": {"blobs": report.blobs_before, "bytes": report.bytes_before},
        "freed": {"blobs": report.blobs_freed, "bytes": report.bytes_freed},
        "backups": report.backups,
        "tagsVerified": report.tags_verified,
        "seconds": {name: round(took, 3) for name, took in report.parts.items()},
        "stopped": {"seconds": round(report.stopped_s, 3), "parts": _rounded(report.stopped)},
        "notes": report.notes,
    }
    if plan:
        found["planned"] = {
            "blobs": len(plan.frees),
            "bytes": plan.bytes,
            "manifests": [f"{name}@{digest}" for name, digest in plan.unlink],
            "tags": {f"{name}:{tag}": reason for (name, tag), reason in plan.untag.items()},
        }
        found["kept"] = {
            "reasons": plan.reasons(),
            "tags": _kept_tags(plan),
            "manifests": {f"{name}@{digest}": why for (name, digest), why in plan.kept.items() if why != TAG},
            "heldBlobs": sorted(plan.held),
        }
    return found


def _kept_tags(plan: Plan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in plan.kept_tags.values():
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _rounded(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(took, 3) for name, took in parts.items()}
