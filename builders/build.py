"""Build on the nodes that there are: one ordinary push where each platform has one, else by digest, merged into each tag.

No platform is ever emulated by accident, and none is taken off a tag: what has no node keeps the image that the tag has.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from builders import buildx, credentials, health, lagging
from builders.errors import BuildxFailed, InvalidSetting, NoBuilder
from scripts.registry import exchange, inspection, lag, maintenance, platforms, references
from scripts.registry.errors import ReadOnly, RegistryError
from scripts.registry.merge import Order, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from builders.arguments import Arguments
    from scripts.registry.merge import Merged
    from scripts.registry.platforms import Platform
    from scripts.registry.references import Reference

MISSING = 5
"""The exit code of a push that lacks a platform, since that had no builder."""

_HEALTH_TIMEOUT_S = 5.0


class Registry(Protocol):
    """The registry door: run the protocol that a function makes; unless `wait` is False, wait while the registry is read-only."""

    def __call__(self, protocol: Callable[[], Any], *, wait: bool = True) -> Any:
        """Return the protocol's result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The builder that is taken: the wanted platforms that it has a healthy node for, and why it has none for the others."""

    builder: str
    healthy: tuple[Platform, ...]
    missing: Mapping[Platform, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What became of it; `pushed` are the results by target, `exit_code` buildx's own where that failed."""

    exit_code: int
    choice: Choice
    pushed: Mapping[str, Reference] = field(default_factory=dict)
    merged: tuple[Merged, ...] = ()
    failed: tuple[RegistryError, ...] = ()
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    arguments: Arguments
    targets: tuple[Reference, ...]
    registry: Registry
    in_turn: Callable[[], AbstractContextManager[None]]
    report: Callable[[str], None]
    now: datetime


def build(
    arguments: Arguments,
    *,
    registry: Registry,
    in_turn: Callable[[], AbstractContextManager[None]],
    environment: Mapping[str, str],
    now: datetime,
    report: Callable[[str], None],
) -> Built:
    """Build and push as asked; raise NoBuilder where nothing can be built, or what is not pushed cannot be built in full.

    Tags are written while `in_turn` is entered.
    """
    job = _Job(
        arguments=arguments,
        targets=tuple(references.parse(each) for each in arguments.targets()),
        registry=registry,
        in_turn=in_turn if arguments.targets() else nullcontext,
        report=report,
        now=now,
    )
    names = _candidates(arguments.builder or environment.get("BUILDX_BUILDER", ""))
    wanted = _wanted(arguments, names, environment.get("DOCKER_DEFAULT_PLATFORM", ""))
    with ThreadPoolExecutor() as pool:
        chosen = pool.submit(_choose, names, wanted)
        present = pool.submit(_present, job)
        choice, kept = chosen.result(), present.result() - set(wanted)
    while True:
        if choice.missing and (not choice.healthy or not job.targets):
            raise _no_builder(choice)
        for platform, reason in choice.missing.items():
            report(f"no builder for {platform} ({reason}); the tag keeps what it has for it")
        built = None if choice.missing or kept else _at_once(job, choice)
        if built is None and not choice.missing:
            kept = kept or _present(job) - set(wanted)
            report(f"{', '.join(map(str, sorted(kept)))} of the tag stays as it is")
        built = built or _by_digest(job, choice)
        if not built.exit_code or arguments.reads_stdin:
            return built
        waited = _waited_for_maintenance(job)
        now_healthy = _choose([choice.builder], wanted)
        if not waited and now_healthy.healthy == choice.healthy:
            return built
        report("once more: what was built is in the builders' caches")
        choice = now_healthy


def _candidates(name: str) -> tuple[str, ...]:
    """Return the builders of ours to choose from: the one that was named, or all that this machine is connected to."""
    if name:
        if buildx.find(name) is None:
            raise InvalidSetting(
                f"builder {name}: it is none of slipway's on this machine",
                hint="slipway connect, or build with: docker buildx build",
            )
        return (name,)
    held = tuple(each for each in credentials.builders() if buildx.find(each))
    if not held:
        raise InvalidSetting("this machine is connected to no builder", hint="slipway connect")
    authorities = {found.authority for each in held if (found := credentials.read(each))}
    if len(authorities) > 1:
        raise InvalidSetting(
            f"this machine is connected to builders of several stacks: {', '.join(held)}", hint="say --builder NAME"
        )
    return held


def _wanted(arguments: Arguments, names: Iterable[str], default: str) -> tuple[Platform, ...]:
    asked = arguments.platforms or tuple(each for each in default.split(",") if each)
    registered = (str(node.platform) for name in names for node in buildx.find(name) or ())
    return tuple(dict.fromkeys(platforms.parse(each) for each in asked or registered))


def _choose(names: Sequence[str], wanted: Sequence[Platform]) -> Choice:
    """Ask all nodes at once; take the builder that can build most of what is wanted, the first of several."""
    nodes = [(name, node) for name in names for node in buildx.find(name) or ()]
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        reasons = list(pool.map(lambda each: _problem(*each), nodes))
    choices = []
    for name in names:
        state = {
            platforms.parse(str(node.platform)): reason and f"node {node.name}: {reason}"
            for (builder, node), reason in zip(nodes, reasons, strict=True)
            if builder == name
        }
        missing = {
            each: state.get(each) or f"builder {name} has no such node" for each in wanted if state.get(each, "-")
        }
        choices.append(
            Choice(builder=name, healthy=tuple(each for each in wanted if each not in missing), missing=missing)
        )
    return max(choices, key=lambda each: len(each.healthy))


def _problem(builder: str, node: buildx.Node) -> str | None:
    held = credentials.read(builder)
    if held is None:
        return "this machine's certificate is gone, connect again"
    return health.problem(node.endpoint, held, timeout_s=_HEALTH_TIMEOUT_S)


def _present(job: _Job) -> set[Platform]:
    """Return the platforms that the targets have now."""
    if not job.targets:
        return set()
    found: list[set[Platform]] = job.registry(
        lambda: exchange.together(*map(inspection.present, job.targets)), wait=False
    )
    return set().union(*found)


def _no_builder(choice: Choice) -> NoBuilder:
    lines = [f"no builder for {platform}: {reason}" for platform, reason in choice.missing.items()]
    healthy = ",".join(map(str, choice.healthy))
    hint = "slipway up brings it up" + (f"; or build what there is: --platform {healthy}" if healthy else "")
    return NoBuilder("\n".join(lines), hint=hint)


def _at_once(job: _Job, choice: Choice) -> Built | None:
    """Push as ever, in turn; None: the tag has a platform now that this would take off it."""
    words = partial(job.arguments.ordinary, builder=choice.builder, platforms=[str(each) for each in choice.healthy])
    with job.in_turn():  # while it compiles too: buildx writes the tag when it is done
        if _present(job) - set(choice.healthy):
            return None
        exit_code, digest = _run(job, words)
        built = Built(exit_code=exit_code, choice=choice)
        if exit_code or not digest:
            return built
        _forget(job, choice, job.targets)
    return replace(built, pushed={str(target): target.at(digest) for target in job.targets})


def _by_digest(job: _Job, choice: Choice) -> Built:
    """Push each platform by digest, note what will be behind, and merge into every tag."""
    revision = _revision(job.arguments.context)
    repositories = tuple(dict.fromkeys(target.name for target in job.targets))
    built = Built(exit_code=0, choice=choice, revision=revision)
    digests = []
    for platform in choice.healthy:
        words = partial(
            job.arguments.by_digest, builder=choice.builder, platforms=[str(platform)], repositories=repositories
        )
        exit_code, digest = _run(job, words)
        if exit_code:
            return replace(built, exit_code=exit_code)
        if not digest:
            raise BuildxFailed(f"buildx build: it did not say which digest it pushed for {platform}")
        digests.append(digest)
    merged: list[Merged] = []
    failed: list[RegistryError] = []
    with job.in_turn():
        for target in job.targets:
            try:
                merged.append(_merge(job, choice, target, digests, revision))
            except RegistryError as error:
                failed.append(error)
        _forget(job, choice, [each.target for each in merged])
    pushed = {str(each.target): each.reference for each in merged}
    return replace(built, pushed=pushed, merged=tuple(merged), failed=tuple(failed))


def _merge(job: _Job, choice: Choice, target: Reference, digests: Iterable[str], revision: str) -> Merged:
    if choice.missing:
        lagging.remember(target)
        job.registry(lambda: lag.note(target, choice.missing, revision=revision, now=job.now))
    sources = tuple(target.at(digest) for digest in digests)
    order = Order(target=target, sources=sources, now=job.now, token=secrets.token_hex(8), create=True)
    merged: Merged = job.registry(lambda: merge(order))
    return merged


def _forget(job: _Job, choice: Choice, targets: Sequence[Reference]) -> None:
    """Strike out of the notes what was built."""
    token = secrets.token_hex(8)
    rest = job.registry(
        lambda: exchange.together(*(lag.forget(target, choice.healthy, token=token) for target in targets))
    )
    for target, behind in zip(targets, rest, strict=True):
        if not behind:
            lagging.forget(target)


def _run(job: _Job, arguments: Callable[..., list[str]]) -> tuple[int, str]:
    """Run buildx; its exit code, and the digest of what it pushed."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        file = Path(folder) / "metadata.json"
        exit_code = buildx.build(arguments(metadata_file=str(file)))
        if exit_code or not file.exists():
            return exit_code, ""
        if job.arguments.metadata_file:
            shutil.copyfile(file, job.arguments.metadata_file)
        found: dict[str, Any] = json.loads(file.read_text())
        return 0, str(found.get("containerimage.digest", ""))


def _waited_for_maintenance(job: _Job) -> bool:
    """Tell whether a registry was read-only; it is writable again then. What else is wrong with it, buildx has told."""
    waited = False
    for target in job.targets:
        try:
            job.registry(partial(maintenance.check_writable, target), wait=False)
        except ReadOnly:
            job.registry(partial(maintenance.check_writable, target))
            waited = True
        except RegistryError:
            continue
    return waited


def _revision(context: str) -> str:
    """Return the commit that a folder is at, with `-dirty` where it was changed since; nothing where git does not know."""
    folder = context or "."
    if not Path(folder).is_dir() or not shutil.which("git"):
        return ""
    described = subprocess.run(
        ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return described.stdout.strip() if not described.returncode else ""
