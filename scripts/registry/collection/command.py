"""The verb `gc`: flags in, one collection, its report rendered. Exit codes: 0 done, 1 failed or refused, 2 wrong usage."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from scripts.registry.connection import add_connection, duration, guarded, run_now
from scripts.registry.errors import InvalidReference, RegistryError, StoreDamaged

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from scripts.registry.collection.keepers import Keeper


def take(gc: argparse.ArgumentParser) -> None:
    """Lay out what the verb takes."""
    gc.add_argument("registry", metavar="REGISTRY", nargs="?", help="its host, as in registry.example.com:5000")
    gc.add_argument("--dry-run", action="store_true", help="show what would go and what stays, change nothing")
    gc.add_argument("--now", action="store_true", help="do not wait until nobody pushes")
    gc.add_argument(
        "--grace", default="24h", metavar="TIME", help="what was pushed or lost its tag within it stays (24h)"
    )
    gc.add_argument("--keep-list", default="", metavar="FILE", help="digests that stay whatever their tags, one a line")
    kept = gc.add_argument_group(
        "tags", "all stay, unless one of these is given; then those stay that one of them keeps"
    )
    kept.add_argument("--keep-last", type=int, default=0, metavar="N", help="the N newest of each repository")
    kept.add_argument(
        "--keep-matching", action="append", default=[], metavar="REGEX", help="tags that match; again for more"
    )
    kept.add_argument("--keep-within", default="", metavar="TIME", help="tags that were written within it")
    limits = gc.add_argument_group("limits")
    limits.add_argument("--quiet", default="60s", metavar="TIME", help="how long nobody must have pushed (60s)")
    limits.add_argument("--quiet-deadline", default="30m", metavar="TIME", help="how long to wait for that (30m)")
    limits.add_argument(
        "--stop-limit", default="1h", metavar="TIME", help="how long writes may be stopped at most (1h)"
    )
    limits.add_argument(
        "--max-share", type=float, default=50, metavar="PERCENT", help="how much of all blobs may go (50)"
    )
    backups = gc.add_argument_group("backups", "each tag that changed is backed up first, as `slipway backup` does")
    backups.add_argument("--no-backup", action="store_true", help="take none")
    backups.add_argument("--backups", type=int, default=10, metavar="N", help="backups of a tag that stay (10)")
    backups.add_argument(
        "--backups-within", default="90d", metavar="TIME", help="older ones go, but for the newest (90d)"
    )
    place = gc.add_argument_group("where the registry runs")
    place.add_argument("--deployment", default="", metavar="NAME", help="its Deployment")
    place.add_argument("--namespace", default="", metavar="NAME", help="the Deployment's namespace")
    place.add_argument("--in-cluster", action="store_true", help="this is a pod of the same cluster")
    place.add_argument(
        "--kubeconfig", default="", metavar="FILE", help="as kubectl's; else $KUBECONFIG, else ~/.kube/config"
    )
    place.add_argument("--context", default="", metavar="NAME", help="of the kubeconfig; else its current one")
    gc.set_defaults(kubeconfig_content="")
    place.add_argument("--mode-file", default="", metavar="FILE", help="without Kubernetes: docs/gc.md")
    add_connection(gc, listing=True)


@guarded
def collect(options: argparse.Namespace) -> int:
    """Collect, and report it."""
    from scripts.registry import output, references
    from scripts.registry.collection import report
    from scripts.registry.collection.collect import Collection

    if not references.is_host(options.registry or ""):
        said = "say which registry" if options.registry is None else f"{options.registry!r} is no host"
        raise InvalidReference(f"{said}, as in registry.example.com:5000")
    _restore_when_told_to_stop()
    order = _order(options)
    keeper = _keeper(options)

    def ask(protocol: Callable[[], Any]) -> Any:
        return run_now(options, options.registry, protocol, wait=False)

    try:
        found = Collection(keeper, order, ask=ask, say=output.progress).run()
    except RegistryError as error:
        if not order.dry_run:
            _tell(keeper, "CollectionFailed", str(error), warning=True)
        if isinstance(error, StoreDamaged):
            _show_damages(options, error)
        raise
    except KeyboardInterrupt:
        _tell(keeper, "CollectionInterrupted", "it was told to stop; the registry takes writes", warning=True)
        raise
    for note in found.notes:
        output.warning(note)
    if options.format == "json":
        output.result_json(report.to_json(found))
    else:
        output.result(report.text(found))
    if not order.dry_run:
        _tell(keeper, "Collected", found.line)
    return 0


def _order(options: argparse.Namespace) -> Any:
    from datetime import timedelta

    from scripts.registry.backup import Policy
    from scripts.registry.collection.collect import Order
    from scripts.registry.collection.plan import Rules
    from scripts.registry.collection.retention import Retention

    if not 0 < options.max_share <= 100:
        raise InvalidReference(f"--max-share {options.max_share:g}: say a share of all blobs from 1 to 100")
    if options.keep_last < 0:
        raise InvalidReference(f"--keep-last {options.keep_last}: say how many tags stay, 1 or more")
    if options.backups < 1:
        raise InvalidReference(
            f"--backups {options.backups}: the newest always stays; say 1 or more", hint="--no-backup takes none"
        )
    stop_limit_s = int(duration(options.stop_limit))
    if stop_limit_s < 10:
        raise InvalidReference(f"--stop-limit {options.stop_limit}: a roll alone takes longer; say 1m or more")
    backups_within_s = duration(options.backups_within)
    retention = Retention(
        keep_last=options.keep_last,
        keep_matching=tuple(options.keep_matching),
        keep_within_s=duration(options.keep_within) if options.keep_within else 0,
        backups_within_s=backups_within_s,
    )
    policy = Policy(keep=options.backups, within=timedelta(seconds=backups_within_s))
    return Order(
        host=options.registry,
        rules=Rules(grace_s=int(duration(options.grace)), keep=_listed(options.keep_list), retention=retention),
        policy=None if options.no_backup else policy,
        quiet_s=0 if options.now else duration(options.quiet),
        quiet_deadline_s=duration(options.quiet_deadline),
        stop_limit_s=stop_limit_s,
        largest_share=options.max_share / 100,
        dry_run=options.dry_run,
        token=os.urandom(8).hex(),
    )


def _listed(path: str) -> frozenset[str]:
    """Return the digests that a file lists, each perhaps as the end of a reference; `#` begins a comment."""
    from scripts.registry.references import DIGEST

    if not path:
        return frozenset()
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a name as the user typed it, for the error
        lines = [line.partition("#")[0].strip() for line in file]
    found = [line.rpartition("@")[2] for line in lines if line]
    for each in found:
        if not DIGEST.fullmatch(each):
            raise InvalidReference(f"--keep-list {path}: {each!r} is no digest, as in sha256: and 64 hex digits")
    return frozenset(found)


def _keeper(options: argparse.Namespace) -> Keeper:
    from pathlib import Path

    if bool(options.mode_file) == bool(options.deployment):
        raise InvalidReference(
            "say where the registry runs: --deployment NAME --namespace NAME",
            hint="or, without Kubernetes, --mode-file",
        )
    if options.mode_file:
        from scripts.registry.collection.keepers import ModeFile

        return ModeFile(Path(options.mode_file))
    from scripts.registry import output
    from scripts.registry.collection import cluster, deployment

    access = (
        cluster.in_cluster()
        if options.in_cluster
        else cluster.from_kubeconfig(options.kubeconfig, options.context, content=options.kubeconfig_content)
    )
    api = cluster.Api(access)
    return deployment.DeploymentKeeper(
        api, namespace=options.namespace or access.namespace, name=options.deployment, say=output.progress
    )


def _tell(keeper: Keeper, reason: str, message: str, *, warning: bool = False) -> None:
    """Tell it where the registry runs too; that this fails is no failure of the collection."""
    from scripts.registry import output

    try:
        keeper.tell(reason, message, warning=warning)
    except RegistryError as error:
        output.warning(f"no event was written: {error}", error.hint)


def _show_damages(options: argparse.Namespace, error: StoreDamaged) -> None:
    from scripts.registry import output

    if options.format == "json":
        names = ("where", "what", "effect", "command", "advice")
        damages = [{name: getattr(each, name) for name in names} for each in error.damages]
        output.result_json({"damages": damages})
        return
    for each in error.damages:
        output.error(str(each), getattr(each, "repair", None))


def _restore_when_told_to_stop() -> None:
    """Let the registry be restored before this ends: where Kubernetes ends a job, where a terminal was closed."""
    signal.signal(signal.SIGTERM, _interrupted)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _interrupted)


def _interrupted(_number: int, _frame: object) -> None:
    for each in (signal.SIGTERM, signal.SIGHUP):  # once is enough: the restoring must end
        signal.signal(each, signal.SIG_IGN)
    sys.stderr.flush()
    raise KeyboardInterrupt
