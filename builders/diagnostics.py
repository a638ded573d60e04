"""What went wrong in a run of the engine (pure): its log of events reduced to clear lines."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MARKUP = re.compile(r"<\{%[^%]*%\}>")
# Words that the engine, the bridge and gRPC put around a message.
_WRAPPER = re.compile(
    r"(Exception calling application|error|sdk-v2/\S+|\S+\.go:\d+|sdk\.helper_schema|rpc error|code = \w+ desc =):? "
    r"|\d+ errors? occurred:?\s*|\* |(creating|updating|deleting|reading|refreshing) urn:\S+: "
)
# The engine's own words for "see the other lines".
_EMPTY = re.compile(
    r"(update|preview|refresh|destroy|running program) (failed|canceled|cancelled)"
    r"|an unhandled error occurred: program exited with non-zero exit code: \d+"
    r"|resource \S+ failed"
)
_CLOUD_URN = re.compile(r"[$:]hcloud:index/\w+:(\w+)::(.+)$")
_TRACEBACK = "Traceback (most recent call last)"


def errors(events: Iterable[str]) -> tuple[str, ...]:
    """Return each error of a run once, without markup, wrappers and tracebacks, in the order of appearance.

    What a resource of the provider failed with bears its name in front; ours name the node themselves.
    """
    found = (event.get("diagnosticEvent", {}) for event in map(_event, events))
    return tuple(
        dict.fromkeys(
            f"{_name(each.get('urn', ''))}{line}"
            for each in found
            if each.get("severity") == "error"
            for line in _reduce(each["message"])
        )
    )


def _name(urn: str) -> str:
    """Tell the kind and the name in a URN, as in `Server arm64-1: `; nothing for what is not the provider's."""
    found = _CLOUD_URN.search(urn)
    return f"{found[1]} {found[2]}: " if found else ""


def _event(line: str) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:  # the last line of an engine that was killed
        return {}
    return event


def _reduce(message: str) -> Iterator[str]:
    """Yield a message's lines; one that is indented goes on from the line before."""
    lines = [line for line in _MARKUP.sub("", message).splitlines() if line.strip()]
    if any(_TRACEBACK in line for line in lines):
        lines = lines[-1:]
    joined: list[str] = []
    for line in lines:
        shown = _unwrapped(line)
        if line[:1].isspace() and joined and joined[-1]:
            joined[-1] += f"; {shown}"
        else:
            joined.append(shown)
    return (line for line in joined if line and not _EMPTY.fullmatch(line))


def _unwrapped(line: str) -> str:
    shown = line.strip()
    while found := _WRAPPER.match(shown):
        shown = shown[found.end() :]
    return shown
