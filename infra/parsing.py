"""Values of settings from text and JSON, and what is wrong with them (pure)."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any

from builders.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
_SHOWN = 48
"""Letters of a value that an error repeats; names and networks are shorter, keys and tokens longer."""


class Problem(Exception):
    """What is wrong with one value."""


class Reader:
    """Reads key by key and collects every problem: of a stack's settings, or of the fields of one object among them."""

    def __init__(self, values: Mapping[str, Any], *, prefix: str = "", unknown: str = "unknown field") -> None:
        self._values = values
        self._prefix = prefix
        self._unknown = unknown
        self._known: list[str] = []
        self._problems: list[str] = []

    def read(self, key: str, parse_value: Callable[[Any], Any], fallback: Any = None) -> Any:
        """Return the parsed value, which is None for the parser where it is absent; `fallback` when it cannot be parsed."""
        self._known.append(key)
        try:
            return parse_value(self._values.get(key))
        except (Problem, InvalidSetting) as problem:
            self._problems += [f"{self._prefix}{key}: {line}" for line in str(problem).splitlines()]
            return fallback

    def finish(self) -> None:
        """Raise InvalidSetting with every problem, a line each."""
        self._problems += [
            f"{self._prefix}{key}: {self._unknown}, {suggest(key, self._known)}"
            for key in sorted(self._values.keys() - set(self._known))
        ]
        if self._problems:
            raise InvalidSetting("\n".join(self._problems))


def suggest(word: str, known: list[str]) -> str:
    """Name the nearest known word, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def shown(value: Any) -> str:
    """Show a value as it was given; of what is long or has lines, as a key in the wrong field, tell only how much."""
    given = repr(value)
    if isinstance(value, str):
        if "\n" in value.strip():
            return f"a text of {len(value.splitlines())} lines"
        return given if len(given) <= _SHOWN else f"a text of {len(value)} letters"
    if "\\n" not in given and len(given) <= _SHOWN:
        return given
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"


def text(value: Any) -> str:
    """Want a text that is not empty."""
    if value is None or value == "":
        raise Problem("not set")
    if not isinstance(value, str):
        raise Problem(f"{shown(value)} is no text")
    return value


def name(value: Any) -> str:
    """Want a name that can stand in host names."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Problem(f"{shown(value)} is no name: small letters, digits and dashes, at most 32, a letter first")
    return value


def boolean(value: str | None) -> bool:
    """Want true or false, as a stack's configuration writes them."""
    if value not in {"true", "false"}:
        raise Problem(f"{shown(value)} is neither true nor false")
    return value == "true"


def one_of(*choices: str) -> Callable[[str | None], str]:
    """Make a parser that wants one of the choices."""

    def parse_choice(value: str | None) -> str:
        if value not in choices:
            raise Problem(f"{shown(value)} is not one of {', '.join(choices)}")
        return value

    return parse_choice


def integer(least: int, most: int) -> Callable[[Any], int]:
    """Make a parser that wants a whole number within the limits."""

    def parse_integer(value: Any) -> int:
        try:
            number = int(value) if not isinstance(value, bool | float) else None
        except (TypeError, ValueError):
            number = None
        if number is None or not least <= number <= most:
            raise Problem(f"{shown(value)} is not a whole number from {least} to {most}")
        return number

    return parse_integer


def decoded(value: str | None, kind: type, example: str) -> Any:
    """Decode a list or an object; an empty one where nothing is given."""
    decoded, mistake = kind(), ""
    if value:
        try:
            decoded = json.loads(value)
        except json.JSONDecodeError as error:
            decoded = None
            if value.lstrip().startswith(("[", "{")):
                mistake = f" ({error.msg} at line {error.lineno}, letter {error.colno})"
    if not isinstance(decoded, kind):
        wanted = "a list" if kind is list else "an object"
        raise Problem(f"{shown(value)} is not {wanted}{mistake}, for example {example}")
    return decoded


def strings(value: Any, what: str) -> tuple[str, ...]:
    """Want a list of texts, at least one."""
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise Problem(f"{what}: {shown(value)} is not a list of names")
    return tuple(value)


def fields(entry: Any, required: tuple[str, ...], optional: tuple[str, ...], what: str) -> dict[str, Any]:
    """Want an object with these fields and no others."""
    if not isinstance(entry, dict):
        raise Problem(f"{what}: {shown(entry)} is not an object")
    known = [*required, *optional]
    lines = [f"{what}: unknown field {key!r}, {suggest(key, known)}" for key in entry if key not in known]
    lines += [f"{what}: {key} is missing" for key in required if key not in entry]
    if lines:
        raise Problem("\n".join(lines))
    return entry


def cidrs(value: str | None) -> tuple[str, ...]:
    """Want a list of networks."""
    problems, networks = [], []
    for each in decoded(value, list, '["203.0.113.0/24"]'):
        try:
            networks.append(_network(each))
        except ValueError as error:
            problems.append(f"{shown(each)} is no network: {error}")
    if problems:
        raise Problem("\n".join(problems))
    return tuple(networks)


def typed(fields: dict[str, Any], key: str, kind: type, what: str) -> Any:
    """Return an optional field, None where it is absent; the text "false" is no false."""
    value = fields.get(key)
    if value is not None and not isinstance(value, kind):
        raise Problem(f"{what}: {key} {shown(value)} is {'neither true nor false' if kind is bool else 'no text'}")
    return value


def each(entries: Iterable[Any], parse_entry: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Parse every entry, and raise the problems of all of them at once."""
    parsed, problems = [], []
    for entry in entries:
        try:
            parsed.append(parse_entry(entry))
        except (Problem, InvalidSetting) as problem:
            problems += str(problem).splitlines()
    if problems:
        raise Problem("\n".join(problems))
    return tuple(parsed)


def _network(entry: Any) -> str:
    # Python takes numbers too, and an interface behind an address, and repeats whatever it does not know.
    if not isinstance(entry, str) or "%" in entry or len(entry) > _SHOWN:
        raise ValueError("write it as in 203.0.113.0/24")
    return str(ipaddress.ip_network(entry))
