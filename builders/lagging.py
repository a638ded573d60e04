"""The tags that lag behind on a platform: the registry has the truth, this machine remembers where to look."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from platformdirs import user_state_path

from builders import files, turns
from scripts.registry import lag, references
from scripts.registry.errors import InvalidReference, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from scripts.registry.lag import Lag
    from scripts.registry.references import Reference


def find(
    repositories: Iterable[str], registry: Callable[[Callable[[], Any]], Any]
) -> tuple[list[Lag], dict[Reference, RegistryError]]:
    """Ask for the tags that were built in part from here, and for all of `repositories`; what lags, and of what it is not known."""
    places = [references.parse(each, default_tag="") for each in repositories]
    asked = [*(each for each in remembered() if each.tagged("") not in places), *places]

    def ask(place: Reference) -> list[Lag] | RegistryError:
        try:
            found: list[Lag] = registry(lambda: (lag.lagging if place.tag else lag.lagging_in)(place))
        except RegistryError as error:
            return error
        if place.tag and not found:
            forget(place)
        return found

    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
        answers = list(pool.map(ask, asked))
    lags = [each for answer in answers if isinstance(answer, list) for each in answer]
    return lags, {place: each for place, each in zip(asked, answers, strict=True) if isinstance(each, RegistryError)}


def remembered() -> tuple[Reference, ...]:
    """Return the tags, the oldest first; a line that is none is passed over."""
    found = []
    try:
        lines = _file().read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    for line in lines:
        try:
            found.append(references.parse(line))
        except InvalidReference:
            continue
    return tuple(dict.fromkeys(found))


def remember(target: Reference) -> None:
    """Add a tag."""
    if target not in remembered():
        with turns.taken("lagging"):
            _write((*remembered(), target))


def forget(target: Reference) -> None:
    """Take a tag out; one that is not there is no error, and nothing to write."""
    if target in remembered():
        with turns.taken("lagging"):
            _write(each for each in remembered() if each != target)


def _file() -> Path:
    return user_state_path("slipway") / "lagging"


def _write(targets: Iterable[Reference]) -> None:
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    files.replace(file, "".join(f"{target}\n" for target in targets))
