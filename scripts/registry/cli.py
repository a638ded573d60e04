"""The registry's verbs, of `slipway` and of the one-file program: flags in, one protocol, its result rendered.

Exit codes: 0 done, 1 failed or something is broken, 2 wrong usage, 3 done but a staging tag is still there, 4 done but a later
writer has given a platform another image, 130 interrupted. What a verb needs is imported inside it: the command starts at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from scripts.registry.connection import (
    add_connection,
    duration,
    guarded,
    in_turn,
    new_client,
    require_one_host,
    run,
    run_now,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts.registry.references import Reference
    from scripts.registry.untag import Removal

    Run = Callable[[argparse.Namespace], int]
    Take = Callable[[argparse.ArgumentParser], None]
    Verb = Callable[[str, Run, str, str, Take], None]

STAGING_KEPT, SUPERSEDED = 3, 4
_CONNECTIONS = 5


class VerbParser(argparse.ArgumentParser):
    """A verb's parser, which learns what the verb takes once it is the one that is used: there are many, and a run has one."""

    take: Take
    laid_out = False

    def lay_out(self) -> None:
        """Learn what the verb takes."""
        self.take(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as ever, but end here where something is not known, with this verb's usage."""
        if not self.laid_out:
            self.laid_out = True
            self.lay_out()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def add_verb(verbs: Any, name: str, run: Run, purpose: str, example: str, take: Take) -> Any:
    """Add a verb to a command's verbs; its parser."""
    added = verbs.add_parser(
        name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example: {example}",
    )
    added.set_defaults(verb=run)
    added.take = take
    return added


def add_verbs(verb: Verb, *, verify: tuple[Run, Take], gc: tuple[Run, Take]) -> None:
    """Add the registry's verbs to a command, by its own way to add one, with `verify` and `gc` as that command has them."""
    verb(
        "merge", _merge, "put the platforms of images into a tag and keep all others",
        "slipway merge registry.example.com/app:1.2 --from registry.example.com/app:1.2-arm64", _take_merge,
    )  # fmt: skip
    verb(
        "inspect", _inspect, "show what a tag has for each platform, and what is wrong with it",
        "slipway inspect registry.example.com/app:1.2", _take_inspect,
    )  # fmt: skip
    verb(
        "verify", verify[0], "read every part of tags, and fail where one cannot be read",
        "slipway verify --deep registry.example.com/app:1.2", verify[1],
    )  # fmt: skip
    verb(
        "backup", _backup, "keep what tags name, and every image of it, under backup tags",
        "slipway backup registry.example.com/app --keep 10", _take_backup,
    )  # fmt: skip
    verb(
        "backups", _backups, "list the backups of a tag", "slipway backups registry.example.com/app:1.2",
        _take_backups,
    )  # fmt: skip
    verb(
        "restore", _restore, "bring back the platforms that a tag has lost, or a whole backup",
        "slipway restore registry.example.com/app:1.2", _take_restore,
    )  # fmt: skip
    verb(
        "untag", _untag, "take a tag away and nothing else", "slipway untag registry.example.com/app:1.2-arm64",
        _take_untag,
    )  # fmt: skip
    verb(
        "gc", gc[0], "free what no tag of a registry needs, and never what one does",
        "slipway gc registry.example.com --namespace slipway-registry --deployment registry --dry-run", gc[1],
    )  # fmt: skip


def _take_merge(merge: argparse.ArgumentParser) -> None:
    merge.add_argument("target", metavar="TARGET", help="the tag, as in registry.example.com/app:1.2")
    merge.add_argument(
        "--from",
        dest="sources",
        metavar="SOURCE",
        nargs="+",
        action="extend",
        required=True,
        help="tags or digests",
    )
    merge.add_argument(
        "--platform", action="append", default=[], metavar="PLATFORM", help="only this one; again for more"
    )
    merge.add_argument("--create", action="store_true", help="make the tag, if there is none")
    merge.add_argument("--keep-staging", action="store_true", help="leave the sources' tags, which go otherwise")
    merge.add_argument("--dry-run", action="store_true", help="show before and after, print the bytes, write nothing")
    add_connection(merge, writes=True, listing=True)


def _take_inspect(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument("reference", metavar="REF", help="a tag or digest")
    add_connection(inspect, listing=True)


def take_verify(verify: argparse.ArgumentParser) -> None:
    """Lay out what `verify` takes."""
    verify.add_argument("references", metavar="REF", nargs="+", help="tags or digests")
    verify.add_argument("--deep", action="store_true", help="every layer too, by its first byte")
    add_connection(verify, listing=True)


def _take_backup(backup: argparse.ArgumentParser) -> None:
    backup.add_argument(
        "repositories", metavar="REPO", nargs="+", help="repositories, all tags of each, or single tags"
    )
    backup.add_argument("--keep", type=int, default=10, metavar="N", help="backups of a tag that stay (10)")
    backup.add_argument("--within", default="90d", metavar="TIME", help="older ones go, but for the newest (90d)")
    add_connection(backup, writes=True, listing=True)


def _take_backups(backups: argparse.ArgumentParser) -> None:
    backups.add_argument("reference", metavar="REF", help="the tag")
    add_connection(backups, listing=True)


def _take_restore(restore: argparse.ArgumentParser) -> None:
    restore.add_argument("reference", metavar="REF", help="the tag")
    restore.add_argument("backup", metavar="BACKUP", nargs="?", default="", help="a tag or digest of `slipway backups`")
    add_connection(restore, writes=True, listing=True)


def _take_untag(untag: argparse.ArgumentParser) -> None:
    untag.add_argument("reference", metavar="REF", help="the tag; with --all-with-prefix, the repository")
    untag.add_argument(
        "--all-with-prefix", metavar="PREFIX", dest="prefix", help="all tags that begin so: forgotten staging tags"
    )
    add_connection(untag, writes=True, listing=True)


def take_gc(gc: argparse.ArgumentParser) -> None:
    """Lay out what `gc` takes."""
    from scripts.registry.collection import command

    command.take(gc)


def collect(options: argparse.Namespace) -> int:
    """Collect a registry's garbage."""
    from scripts.registry.collection import command

    return command.collect(options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the one-file program."""
    parser = argparse.ArgumentParser(
        prog="slipway-registry",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Merge, verify, back up, restore and collect multi-platform tags of a registry.",
        epilog="example: slipway-registry inspect registry.example.com/app:1.2",
    )
    parser.set_defaults(debug=False)
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=VerbParser)

    def verb(name: str, run: Run, purpose: str, example: str, take: Take) -> None:
        added = add_verb(verbs, name, run, purpose, example.replace("slipway ", "slipway-registry ", 1), take)
        added.add_argument(
            "--debug", action="store_true", help="show requests that were repeated, and where an error came from"
        )

    add_verbs(verb, verify=(verify, take_verify), gc=(collect, take_gc))
    options = parser.parse_args(argv)
    try:
        code: int = options.verb(options)
        if sys.stdout:  # it may have been closed from the beginning
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def run_and_exit() -> None:
    """Run the one-file program and end the process with its exit code."""
    sys.exit(main())


@guarded
def _merge(options: argparse.Namespace) -> int:
    from scripts.registry import references

    target = references.parse(options.target)
    with in_turn(options), closing(new_client(options, target.host)) as client:
        client.warm(target.host, _CONNECTIONS)  # while the rest is imported
        from scripts.registry import output, platforms
        from scripts.registry.merge import Order, merge

        now, token = _run_identity()
        order = Order(
            target=target,
            sources=tuple(dict.fromkeys(references.parse(each) for each in options.sources)),
            platforms=tuple(platforms.parse(each) for each in options.platform),
            now=now,
            token=token,
            create=options.create,
            keep_staging=options.keep_staging,
            dry_run=options.dry_run,
        )
        merged = run_now(options, target.host, lambda: merge(order), client=client)
    if options.dry_run:
        output.before_and_after(merged)
        if options.format == "json":
            output.result_json(output.merged_json(merged) | {"index": merged.after.body.decode()})
        else:
            output.result_bytes(merged.after.body)
        return 0
    return report_merged(options, merged)


def report_merged(options: argparse.Namespace, merged: Any) -> int:
    """Render a merge, and tell the exit code that it stands for."""
    from scripts.registry import output

    if options.format == "json":
        output.result_json(output.merged_json(merged))
    else:
        output.before_and_after(merged)
        if merged.backup:
            output.progress(f"to undo: slipway restore {merged.target} {merged.backup.tag}")
        output.result(str(merged.reference))
    return warn_merged(merged)


def warn_merged(merged: Any) -> int:
    """Tell what is remarkable of a merge, and the exit code that it stands for."""
    from scripts.registry import output

    if merged.included:
        output.progress(f"brought back what another writer merged meanwhile: {', '.join(map(str, merged.included))}")
    for digest in merged.broken:
        output.error(
            f"{merged.target}: {digest} was in the tag before and cannot be read", f"slipway restore {merged.target}"
        )
    if merged.broken:
        return 1
    if merged.superseded:
        named = ", ".join(map(str, merged.superseded))
        output.warning(f"{merged.target}: a later merge has given {named} another image")
        return SUPERSEDED
    return STAGING_KEPT if _warn_kept(merged.staging) else 0


@guarded
def _inspect(options: argparse.Namespace) -> int:
    from scripts.registry import inspection, output, references

    reference = references.parse(options.reference)
    found = run(options, reference.host, lambda: inspection.inspect(reference))
    if options.format == "json":
        output.result_json(output.inspection_json(found))
    else:
        output.result(f"{reference.at(found.digest)}\n{found.media_type}\n")
        output.result(output.inspection(found))
    _warn_findings(found)
    return 1 if found.broken else 0


@guarded
def verify(options: argparse.Namespace) -> int:
    """Read every part of tags; exit code 1 where one is missing."""
    from scripts.registry import inspection, output, references
    from scripts.registry.errors import RegistryError

    wanted = [references.parse(text) for text in options.references]
    require_one_host(options, (each.host for each in wanted))
    reports, failed = [], False
    for reference in wanted:
        try:
            found = run(options, reference.host, partial(inspection.inspect, reference, deep=options.deep))
        except RegistryError as error:
            if len(wanted) == 1:
                raise
            output.error(str(error), error.hint)
            failed = True
            continue
        failed = failed or bool(found.findings)
        reports.append(output.inspection_json(found))
        _warn_findings(found)
        if options.format != "json" and not found.findings:
            read = f"{found.manifests_read} manifests, {found.blobs_read} blobs read"
            output.result(f"{reference.at(found.digest)} whole ({read})")
    if options.format == "json":
        output.result_json(reports)
    return 1 if failed else 0


@guarded
def _backup(options: argparse.Namespace) -> int:
    from datetime import timedelta

    from scripts.registry import backup, output
    from scripts.registry.errors import InvalidReference

    if options.keep < 1:
        raise InvalidReference(f"--keep {options.keep}: the newest always stays; say 1 or more")
    policy = backup.Policy(keep=options.keep, within=timedelta(seconds=duration(options.within)))
    wanted = [_without_digest(text, default_tag="") for text in options.repositories]
    require_one_host(options, (each.host for each in wanted))
    reports, failed = {}, False
    for repository in wanted:
        now, token = _run_identity()
        backed = run(
            options,
            repository.host,
            partial(backup.backup, repository, policy=policy, now=now, token=token),
        )
        reports[str(repository)] = output.backed_json(backed)
        for tag, error in backed.failed.items():
            output.error(f"{tag}: {error}", error.hint)
        failed = failed or bool(backed.failed)
        if options.format != "json":
            for each in backed.taken:
                output.result(str(each.reference))
            output.progress(
                f"{repository}: {len(backed.taken)} taken, {backed.unchanged} unchanged, {len(backed.removed)} old ones gone"
            )
    if options.format == "json":
        output.result_json(reports)
    return 1 if failed else 0


@guarded
def _backups(options: argparse.Namespace) -> int:
    from scripts.registry import backup, output

    reference = _without_digest(options.reference)
    found = run(options, reference.host, lambda: backup.backups(reference))
    if options.format == "json":
        output.result_json([output.backup_json(each) for each in found])
    elif found:
        output.result(output.backups(found))
    else:
        output.progress(f"{reference}: there is no backup of it")
    return 0


@guarded
def _restore(options: argparse.Namespace) -> int:
    from scripts.registry import backup

    reference = _without_digest(options.reference)
    now, token = _run_identity()
    merged = run(options, reference.host, lambda: backup.restore(reference, options.backup, now=now, token=token))
    return report_merged(options, merged)


@guarded
def _untag(options: argparse.Namespace) -> int:
    from scripts.registry import output, references, untag
    from scripts.registry.errors import InvalidReference

    reference = references.parse(options.reference, default_tag="")
    _, token = _run_identity()
    if options.prefix is not None:
        if reference.tag or reference.digest:
            raise InvalidReference(f"{reference}: with --all-with-prefix, name the repository alone")
        if not options.prefix:
            raise InvalidReference("--all-with-prefix '': every tag begins so; say what yours begin with")
        removals = run(options, reference.host, lambda: untag.untag_all(reference, options.prefix, token=token))
    elif not reference.tag or reference.digest:
        raise InvalidReference(f"{reference}: name the tag to take away", hint=f"slipway untag {reference.name}:TAG")
    else:
        removals = [run(options, reference.host, lambda: untag.untag(reference, token=token))]
    if options.format == "json":
        output.result_json([output.removal_json(each) for each in removals])
    else:
        for each in removals:
            if each.kept is None:
                output.result(str(each.reference))
    return 1 if _warn_kept(removals) else 0


def _without_digest(text: str, *, default_tag: str = "latest") -> Reference:
    """Read what has backups: a tag, or a repository."""
    from scripts.registry import references
    from scripts.registry.errors import InvalidReference

    reference = references.parse(text, default_tag=default_tag)
    if reference.digest:
        raise InvalidReference(f"{reference}: a digest never changes and has no backups", hint="name the tag")
    return reference


def _warn_findings(found: Any) -> None:
    from scripts.registry import output

    for each in found.findings:
        say = output.error if each.breaks else output.warning
        say(f"{found.reference}: {each.what}", each.cure or None)


def _warn_kept(removals: Sequence[Removal]) -> bool:
    from scripts.registry import output

    kept = [each for each in removals if each.kept]
    for each in kept:
        output.warning(f"{each.reference} is still there: {each.kept}", each.kept.hint if each.kept else None)
    return bool(kept)


def _run_identity() -> tuple[Any, str]:
    """Return the time, and what tells this run from all others."""
    from datetime import UTC, datetime

    return datetime.now(UTC), os.urandom(8).hex()
