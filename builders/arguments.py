"""The arguments of `docker buildx build`: which of them say what is built and where it goes, and the same with other answers (pure).

Read as buildx itself reads them (spf13/pflag): long flags in full, short ones in groups, a value joined or as the next word.
"""

from __future__ import annotations

import csv
import io
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builders.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# buildx v0.38, commands/build.go and root.go: every other flag takes a value.
_SWITCHES = {
    "check", "compress", "debug", "force-rm", "help", "load", "no-cache", "pull", "push", "quiet", "rm", "squash",
}  # fmt: skip
_SHORT = {
    "D": "debug", "c": "cpu-shares", "f": "file", "h": "help", "m": "memory", "o": "output", "q": "quiet", "t": "tag",
}  # fmt: skip
_OWN = {"wait", "lock", "ca", "plain-http"}
_OWN_SWITCHES = {"plain-http"}
_DECIDED = {"builder", "platform", "tag", "output", "push", "metadata-file"} | _OWN
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What a user asks of a build; `others` are the words that are handed on as they are, the context among them."""

    others: tuple[str, ...]
    context: str = ""
    builder: str = ""
    platforms: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    push: bool = False
    metadata_file: str = ""
    help: bool = False
    reads_stdin: bool = False
    own: Mapping[str, str] = field(default_factory=dict)

    def targets(self) -> tuple[str, ...]:
        """Return the names that are pushed; none where nothing is, or where the push is by digest already."""
        names: list[str] = []
        for each in self._exports():
            if _pushes(each) and not _true(each.get("push-by-digest", "")):
                names += self.tags or [name for name in each.get("name", "").split(",") if name]
        return tuple(dict.fromkeys(names))

    def ordinary(self, *, builder: str, platforms: Iterable[str], metadata_file: str) -> list[str]:
        """Return the arguments for all of it at once, on one builder."""
        tags = (word for tag in self.tags for word in ("--tag", tag))
        outputs = (word for output in self.outputs for word in ("--output", output))
        push = ["--push"] if self.push else []
        return [*self._decided(builder, platforms, metadata_file), *tags, *outputs, *push, *self.others]

    def by_digest(
        self, *, builder: str, platforms: Iterable[str], repositories: Iterable[str], metadata_file: str
    ) -> list[str]:
        """Return the arguments for a push to repositories that moves no tag."""
        pushed = {"name": ",".join(repositories), "push": "true", "push-by-digest": "true", "name-canonical": "true"}
        outputs = [each | pushed | {"type": "image"} if _pushes(each) else each for each in self._exports()]
        words = (word for output in outputs for word in ("--output", _csv(output)))
        return [*self._decided(builder, platforms, metadata_file), *words, *self.others]

    def again(self, platforms: Iterable[str]) -> str:
        """Return the command that builds these platforms; values that may hold a secret are left out."""
        words = [*(word for tag in self.tags for word in ("-t", tag)), *(["--push"] if self.push else [])]
        words += [word for output in self.outputs for word in ("-o", output)]
        return shlex.join(["slipway", "build", "--platform", ",".join(platforms), *words, self.context or "."])

    def _decided(self, builder: str, platforms: Iterable[str], metadata_file: str) -> list[str]:
        return ["--builder", builder, "--platform", ",".join(platforms), "--metadata-file", metadata_file]

    def _exports(self) -> list[dict[str, str]]:
        """Return the outputs; --push adds to the image among them, or is one of its own (buildx, build/opt.go)."""
        found = [_export(text) for text in self.outputs]
        images = [each for each in found if each["type"] in {"image", "registry"}]
        if self.push and not images:
            images = [{"type": "image"}]
            found += images
        for each in images:
            if self.push:
                each["push"] = "true"
        return found


def parse(words: Sequence[str]) -> Arguments:
    """Read what follows `slipway build`; raise InvalidSetting where a value is missing."""
    flags: dict[str, list[str]] = {}
    others: list[str] = []
    contexts: list[str] = []
    for name, value, spelled in _read(words):
        if name in _DECIDED:
            flags.setdefault(name, []).append(value)
        else:
            others += spelled
            flags.setdefault(name, []).append(value)
            if not name:
                contexts.append(value)
    last = {name: values[-1] for name, values in flags.items()}
    context = contexts[0] if contexts else ""
    return Arguments(
        others=tuple(others),
        context=context,
        builder=last.get("builder", ""),
        platforms=tuple(each for text in flags.get("platform", ()) for each in text.split(",") if each),
        tags=tuple(each for each in flags.get("tag", ())),
        outputs=tuple(flags.get("output", ())),
        push=_true(last.get("push", "")),
        metadata_file=last.get("metadata-file", ""),
        help=_true(last.get("help", "")),
        reads_stdin=context == "-" or last.get("file") == "-",
        own={name: last[name] for name in _OWN if name in last},
    )


def _read(words: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield flag, value and the words that said so; the flag of a positional is empty."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            yield "--", "", [word]
            yield from (("", each, [each]) for each in rest)
            return
        if word.startswith("--"):
            name, joined, value = word[2:].partition("=")
            yield _flag(name, value if joined else None, f"--{name}", word, rest)
        elif word.startswith("-") and len(word) > 1:
            yield from _group(word, rest)
        else:
            yield "", word, [word]


def _group(word: str, rest: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        name = _SHORT.get(letter, f"-{letter}")
        if name in _SWITCHES and not letters.startswith("="):
            yield name, "true", [f"-{letter}"]
            continue
        value = letters.removeprefix("=") if letters else None
        yield _flag(name, value, f"-{letter}", f"-{letter}{letters}", rest)
        return


def _flag(name: str, value: str | None, shown: str, word: str, rest: list[str]) -> tuple[str, str, list[str]]:
    if value is not None:
        return name, value, [word]
    if name in _SWITCHES | _OWN_SWITCHES:
        return name, "true", [word]
    if not rest:
        raise InvalidSetting(f"{shown}: its value is missing", hint="see: docker buildx build --help")
    value = rest.pop(0)
    return name, value, [word, value]


def _export(text: str) -> dict[str, str]:
    """Read an --output; without a type it is a folder, or `-`, a tar on stdout (buildx, util/buildflags/export.go)."""
    try:
        (fields,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise InvalidSetting(f"--output {text!r}: this is no list of name=value", hint="as in type=registry") from error
    if len(fields) == 1 and "=" not in fields[0]:
        return {"type": "tar" if text == "-" else "local", "dest": text}
    found = {name.strip().lower(): value for name, _, value in (each.partition("=") for each in fields)}
    if "type" not in found:
        raise InvalidSetting(f"--output {text!r}: its type is missing", hint="as in type=registry")
    return found


def _csv(output: Mapping[str, str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([f"{name}={value}" for name, value in output.items()])
    return line.getvalue()


def _pushes(output: Mapping[str, str]) -> bool:
    return output["type"] == "registry" or (output["type"] == "image" and _true(output.get("push", "")))


def _true(text: str) -> bool:
    return bool(text) and text not in _FALSE
