"""What a merge promises, and whether a run of the benchmark has seen it hold (pure)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

DEEPEST = 9
LONGEST_START_S = 0.15
_EXTRA = {"from a digest": {"2.8": 9, "3.1": 9}, "from a staging tag": {"2.8": 13, "3.1": 11}}
"""The requests of a merge beside two for each platform of its result, by what it is from and the registry's version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A promise, whether it was held, and the numbers that tell."""

    what: str
    held: bool
    seen: str


def judge(measured: Mapping[str, Any], *, ours: str, near: Sequence[str], far: Sequence[str]) -> list[dict[str, Any]]:
    """Return each promise as JSON has it; `ours` is the name of our own tool in the cases.

    `near` and `far`: the tools that it is compared with next to the registry and at a distance, besides those that do the whole
    job.
    """
    found = [
        *_requests(measured["budgets"]),
        _depth(measured["budgets"]),
        *_times(measured["cases"], ours, near, far),
        _start_up(measured["start-up"]),
        *_writers(measured["writers"]),
        _tags(measured["tags"]),
    ]
    return [asdict(each) for each in found]


def render(promises: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each."""
    return [f"{'held' if each['held'] else 'NOT HELD':<10}{each['what']}: {each['seen']}" for each in promises]


def _requests(budgets: Sequence[Mapping[str, Any]]) -> Iterator[Promise]:
    for source, extra in _EXTRA.items():
        for version, more in extra.items():
            most: dict[int, int] = {}
            for each in budgets:
                if (each["from"], each["registry"]) == (source, version):
                    most[each["platforms"]] = max(most.get(each["platforms"], 0), each["requests"])
            yield Promise(
                what=f"{source}, registry {version}: at most {more} + 2P requests for P platforms",
                held=bool(most) and all(0 < count <= more + 2 * platforms for platforms, count in most.items()),
                seen=", ".join(f"{count} of {more + 2 * platforms}" for platforms, count in sorted(most.items())),
            )


def _depth(budgets: Sequence[Mapping[str, Any]]) -> Promise:
    deepest = max((each["round trips"] for each in budgets), default=0)
    return Promise(what=f"at most {DEEPEST} round trips deep", held=0 < deepest <= DEEPEST, seen=f"{deepest}")


def _times(cases: Sequence[Mapping[str, Any]], ours: str, near: Sequence[str], far: Sequence[str]) -> Iterator[Promise]:
    distant = [each for each in cases if each["round trip ms"]]
    for peer in near:
        yield _faster(
            [each for each in cases if not each["round trip ms"]], ours, f"at 0 ms faster than {peer}", (peer,)
        )
    for peer in far:
        yield _faster(distant, ours, f"at 20 ms faster than {peer}", (peer,))
    whole = sorted({name for each in distant for name, tool in each["tools"].items() if tool["whole"]} - {ours})
    yield _faster(distant, ours, f"at 20 ms faster than each that does the whole job ({', '.join(whole)})", whole)


def _faster(cases: Sequence[Mapping[str, Any]], ours: str, what: str, peers: Sequence[str]) -> Promise:
    shares = [
        each["tools"][ours]["seconds"] / each["tools"][peer]["seconds"] for each in cases for peer in peers
    ]  # fmt: skip
    seen = f"{min(shares):.2f} to {max(shares):.2f} of its time" if shares else "not measured"
    return Promise(what=what, held=bool(shares) and max(shares) < 1, seen=seen)


def _start_up(seconds: float) -> Promise:
    return Promise(
        what=f"slipway merge --help in less than {LONGEST_START_S * 1000:.0f} ms",
        held=seconds < LONGEST_START_S,
        seen=f"{seconds * 1000:.0f} ms",
    )


def _writers(races: Sequence[Mapping[str, Any]]) -> Iterator[Promise]:
    for race in races:
        fates = ("acknowledged", "in the tag", "reported superseded", "lost")
        yield Promise(
            what=f"{race['writers']} writers of 2 architectures, registry {race['registry']}: what was acknowledged is "
            "there or reported superseded",
            held=2 * race["acknowledged"] > race["writers"]
            and not race["lost"]
            and not race["unreadable"]
            and race["platforms"] == 2,
            seen=f"{', '.join(f'{race[fate]} {fate}' for fate in fates)}; {race['seconds']:.0f} s",
        )


def _tags(counts: Mapping[str, int]) -> Promise:
    few, many = min(counts, key=int), max(counts, key=int)
    return Promise(
        what=f"a repository of {many} tags costs no more requests than one of {few}",
        held=few != many and 0 < counts[many] <= counts[few],
        seen=f"{counts[many]} and {counts[few]}",
    )
