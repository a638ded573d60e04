"""The `slipway` command: one function per verb, flags in, one call, its result rendered.

Exit codes: 0 done, 1 failed or in part, 2 wrong usage, 5 pushed without a platform that has no builder, 130 interrupted;
`merge` has two of its own (scripts/registry/cli.py). What a verb needs is imported inside it, so
that the command starts at once.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders import output
from builders.errors import BuilderError, InvalidSetting, StackFailed
from scripts.registry import cli as registry
from scripts.registry import connection
from scripts.registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builders.lifecycle import Lifecycle
    from builders.stack import Stack
    from builders.state import State

_LIFETIME = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.verb(options)
        if sys.stdout:  # it may have been closed from the beginning
            sys.stdout.flush()
    except KeyboardInterrupt:
        output.progress("interrupted; run the same command again to go on, or `slipway down`")
        return 130
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BuilderError as error:
        if options.debug:
            import traceback

            traceback.print_exc()
        output.error(str(error), error.hint)
        return 2 if isinstance(error, InvalidSetting) else 1
    except OSError as error:
        if options.debug:
            import traceback

            traceback.print_exc()
        output.error(f"{error.filename or 'system'}: {(error.strerror or str(error)).lower()}")
        return 1
    return code


def _up(options: argparse.Namespace) -> int:
    nodes = _lifecycle(options).up().nodes()
    if options.format == "json":
        output.result_json([node.to_output() for node in nodes])
    else:
        output.result(output.nodes(nodes))
    return 0


def _down(options: argparse.Namespace) -> int:
    idle_s = None if options.idle is None else _idle(options.idle)
    lifecycle = _lifecycle(options)
    plan = lifecycle.plan_down(look=not options.now)
    output.progress("down means:")
    sys.stderr.write(f"{output.down_plan(plan)}\n")
    busy = plan.busy(idle_s) if idle_s is not None else ()
    if idle_s is not None and (busy or not (plan.servers or plan.orphans)):
        reason = f"not known to be idle for {options.idle}: {', '.join(busy)}" if busy else "nothing is up"
        output.progress(f"nothing is removed: {reason}")
        if options.format == "json":
            registry = plan.registry and (plan.registry[0], True)
            output.result_json(output.down_json(replace(plan, going=(), orphans=(), registry=registry)))
        return int(any(plan.nodes[node] is None for node in busy))
    if not options.dry_run:
        if not options.yes and plan.takes_something and not _confirmed("remove these?"):
            output.progress("nothing was removed")
            return 1
        lifecycle.down(plan, drain=not options.now, idle_s=idle_s)
    if options.format == "json":
        output.result_json(output.down_json(plan))
    elif not options.dry_run:
        output.result(output.kept(plan))
    return 0


def _with(options: argparse.Namespace) -> int:
    import shutil

    from builders import signals

    command = options.arguments[options.arguments[:1] == ["--"] :]
    if not command or command[0].startswith("-"):
        raise InvalidSetting(
            f"with: {command[0]} is no command" if command else "with: no command",
            hint="as in: slipway -s prod with -- make release",
        )
    if not shutil.which(command[0]):
        raise InvalidSetting(f"with: {command[0]} is no command on PATH")

    def work(state: State) -> tuple[int, bool]:
        environment = dict(os.environ)
        if builders := state.builders().builders:
            environment["BUILDX_BUILDER"] = builders[0][0]  # buildx takes it where no other is named
        output.progress(f"the builders are up; running {command[0]}")
        return signals.run(command, environment)

    with signals.interrupting():
        try:
            return _lifecycle(options).use(work)
        except KeyboardInterrupt:
            output.progress("interrupted")
            return 130


@connection.guarded
def _status(options: argparse.Namespace) -> int:
    from builders import lagging, status

    now = datetime.now(UTC)
    lost = False
    try:
        found = status.of_stack(_stack(options).load(secrets=True), now=now)
        remark = "no builders are up; bring them up with: slipway up"
    except StackFailed as error:  # a colleague's machine
        if options.stack or options.cwd != Path():
            raise
        found = status.of_machine(now=now)
        if not (found.connected or options.repositories):
            raise
        output.progress(f"{error}; showing what this machine is connected to")
        lost = bool(found.connected) and not found.nodes
        remark = "this machine is connected to no builder"
        if lost:
            remark = f"buildx does not know {', '.join(found.connected)} any more; connect again"
    behind, unknown = lagging.find(options.repositories, partial(_registry, options))
    if options.format == "json":
        output.result_json(found.to_json() | output.lags_json(behind, unknown))
    elif found.nodes:
        output.result(output.status(found))
    if not found.nodes:
        output.progress(remark)
    if behind and options.format != "json":
        output.result(f"\n{output.lags(behind, now=now)}")
    for silent in unknown.values():
        output.error(f"{silent}; which tags lag behind there is not known", silent.hint)
    return 0 if all(node.reachable for node in found.nodes) and not unknown and not lost else 1


@connection.guarded
def _build(options: argparse.Namespace) -> int:
    from builders import arguments, build, buildx

    asked = arguments.parse(options.arguments)
    if asked.help:
        return buildx.build(["--help"])
    options.ca, options.wait = asked.own.get("ca", ""), asked.own.get("wait", "10m")
    options.lock, options.plain_http = asked.own.get("lock", ""), asked.own.get("plain-http") == "true"
    built = build.build(
        asked,
        registry=partial(_registry, options),
        in_turn=partial(connection.in_turn, options),
        environment=os.environ,
        now=datetime.now(UTC),
        report=output.progress,
    )
    if built.exit_code:
        return built.exit_code
    for target, reference in built.pushed.items():
        output.progress(f"{target} is pushed")
        output.result(str(reference))
    codes = [registry.warn_merged(merged) for merged in built.merged]
    for error in built.failed:
        output.error(str(error), error.hint)
    if built.failed or 1 in codes:
        return 1
    if built.choice.missing:
        missing = ",".join(map(str, built.choice.missing))
        output.progress(f"{missing} lags behind {built.revision or 'what was built now'}; when it has a builder again:")
        output.progress(f"  {asked.again(map(str, built.choice.missing))}")
        return build.MISSING
    return max(codes, default=0)


@connection.guarded
def _verify(options: argparse.Namespace) -> int:
    if options.node is None:
        return registry.verify(options)
    from builders import verification
    from scripts.registry import references

    hosts = {references.parse(each).host for each in options.references}
    if len(hosts) > 1:
        raise InvalidSetting("--from: the references are of several registries", hint="verify them one by one")
    words = [*options.references, "--format", options.format]
    words += [flag for flag, given in (("--deep", options.deep), ("--plain-http", options.plain_http)) if given]
    login = connection.login(options, hosts.pop())
    code, shown, said = verification.verify(
        _stack(options).load(secrets=True), options.node, words, login=login, ca=options.ca
    )
    sys.stderr.write(said)
    sys.stdout.write(shown)
    return code


@connection.guarded
def _gc(options: argparse.Namespace) -> int:
    elsewhere = (options.deployment, options.namespace, options.in_cluster, options.mode_file)
    if options.registry is not None or any(elsewhere):
        return registry.collect(options)
    from builders import collection

    parser = _VerbParser(prog="slipway gc")
    parser.take = _take_gc
    parser.set_defaults(debug=options.debug)
    with collection.told(_stack(options).load(secrets=True)) as told:
        wanted = parser.parse_args([*told.arguments, *(word for word in options.words if word != "--")])
        if not options.kubeconfig:
            wanted.kubeconfig_content = told.kubeconfig_content
        elif not options.context:
            wanted.context = ""
        if told.login and not wanted.dry_run and not _has_login(wanted):
            wanted.username, wanted.password, wanted.password_stdin = *told.login, True
        return registry.collect(wanted)


def _has_login(options: argparse.Namespace) -> bool:
    """Tell whether there is a login for a registry besides the stack's own."""
    from scripts.registry.errors import CredentialsUnreadable

    try:
        return connection.login(options, options.registry) is not None
    except CredentialsUnreadable:
        return False


def _registry(options: argparse.Namespace, protocol: Callable[[], Any], *, wait: bool = True) -> Any:
    """Run a protocol against the registries that its requests name."""
    return connection.run_now(options, "", protocol, wait=wait)


def _connect(options: argparse.Namespace) -> int:
    from builders import access

    now = datetime.now(UTC)
    if options.bundle is None:
        state = _stack(options).load(secrets=True)
        access.connect_operator(state, now=now)
        connected = state.builders()
    else:
        from builders.inventory import Bundle

        text = sys.stdin.buffer.read() if options.bundle == "-" else Path(options.bundle).read_bytes()
        bundle = Bundle.from_text(text.decode(errors="replace"))
        access.connect_bundle(bundle, now=now)
        connected = bundle.builders
    for builder, nodes in connected.builders:
        output.progress(f"builder {builder} is registered; try:")
        output.result(
            f"docker buildx build --builder {builder} --platform {','.join(sorted(node.platform for node in nodes))} ."
        )
    return 0


def _invite(options: argparse.Namespace) -> int:
    from builders import access

    now = datetime.now(UTC)
    lifetime = _lifetime(options.lifetime)
    bundle = access.invite(_stack(options).load(secrets=True), options.name, lifetime=lifetime, now=now)
    target = options.output or ("-" if not sys.stdout.isatty() else f"{options.name}.slipway")
    if target == "-":
        sys.stdout.write(bundle.to_text())
    else:
        _write_private(Path(target), bundle.to_text())
        output.result(target)
    output.progress(f"{options.name} may build until {now + lifetime:%Y-%m-%d %H:%M} UTC; hand it over in private,")
    output.progress("it holds a private key; they run: slipway connect FILE")
    return 0


def _disconnect(options: argparse.Namespace) -> int:
    from builders import access

    removed = access.disconnect(options.builder, everything=options.all)
    for builder in removed:
        output.result(builder)
    if not removed:
        output.progress("this machine is connected to no builder")
    return 0


def _stack(options: argparse.Namespace) -> Stack:
    from builders.stack import open_stack

    return open_stack(options.cwd, options.stack, options.config_file)


def _lifecycle(options: argparse.Namespace) -> Lifecycle:
    from builders.lifecycle import Lifecycle

    return Lifecycle(stack=_stack(options), environment=os.environ, report=output.progress)


def _confirmed(question: str) -> bool:
    """Ask; where nobody can answer, say how to go on without asking."""
    if not sys.stdin.isatty():
        raise InvalidSetting("nobody is at the terminal to confirm this", hint="add --yes")
    return output.confirm(question)


def _lifetime(text: str) -> timedelta:
    found = _LIFETIME.fullmatch(text)
    if not found:
        raise InvalidSetting(f"--for {text!r}: say a number of hours, days or weeks, as in 12h, 30d, 8w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _idle(text: str) -> float:
    try:
        if seconds := connection.duration(text):
            return seconds
    except RegistryError as error:
        raise InvalidSetting(f"--idle: {error}") from None
    raise InvalidSetting(f"--idle: {text!r} is no time", hint="say one above 0, or leave --idle out")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all; a pipe or device is written to as it is."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_text(text)
        return
    from builders import files

    files.replace(path, text)


class _Version(argparse.Action):
    """Look the version up when it is asked for: that takes longer than all other arguments."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        output.result(f"slipway {version('slipway')}")
        parser.exit()


class _VerbParser(registry.VerbParser):
    """A verb's parser that can leave all that follows to somebody else, in `arguments`, in order; `words` is what was typed."""

    passes = False

    def lay_out(self) -> None:
        """Learn what the verb takes, and what every verb does."""
        if not self.passes:
            _take_common(self)
        super().lay_out()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as ever, unless this verb's arguments are another command's."""
        if not self.passes or list(args)[:1] in (["-h"], ["--help"]):
            found, rest = super().parse_known_args(args, namespace)
            found.words = list(args)
            return found, rest
        found, _ = super().parse_known_args([], namespace)
        found.arguments = list(args)
        return found, []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slipway",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Native multi-architecture image builders on Hetzner that exist only while they are needed.",
        epilog="example: slipway up && docker buildx build --builder slipway-dev --platform linux/amd64,linux/arm64 .",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show slipway's version")
    _take_common(parser)
    parser.set_defaults(cwd=Path(), stack=None, config_file=None, debug=False)
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_VerbParser)

    def verb(
        name: str,
        run: registry.Run,
        purpose: str,
        example: str,
        take: registry.Take,
        *,
        passes: bool = False,
    ) -> None:
        registry.add_verb(verbs, name, run, purpose, example, take).passes = passes

    verb(
        "up",
        _up,
        "bring the builders up, or what a killed run left of them in order",
        "slipway up -s dev",
        connection.add_format,
    )
    verb("down", _down, "remove all that costs money but what is kept", "slipway down --yes", _take_down)
    verb(
        "with", _with, "bring the builders up, run a command, and take them down again",
        "slipway with -- make release", _take_with, passes=True,
    )  # fmt: skip
    verb(
        "status", _status, "show the nodes, and the tags that lag behind", "slipway status --format json", _take_status
    )
    verb(
        "build", _build, "build and push with the arguments of `docker buildx build`, and merge where a builder is down",
        "slipway build --platform linux/amd64,linux/arm64 --push -t registry.example.com/app:1.2 .", _take_build,
        passes=True,
    )  # fmt: skip
    verb(
        "connect", _connect, "register the builders on this machine, from the stack or an invitation",
        "slipway connect alice.slipway", _take_connect,
    )  # fmt: skip
    verb(
        "invite", _invite, "let a colleague or a CI job build, for a time",
        "slipway invite alice --for 30d --output alice.slipway", _take_invite,
    )  # fmt: skip
    verb(
        "disconnect", _disconnect, "remove builders and their credentials from this machine",
        "slipway disconnect slipway-dev", _take_disconnect,
    )  # fmt: skip
    registry.add_verbs(verb, verify=(_verify, _take_verify), gc=(_gc, _take_gc))
    return parser


def _take_down(down: argparse.ArgumentParser) -> None:
    connection.add_format(down)
    down.add_argument("--dry-run", action="store_true", help="show what would go and what would stay")
    down.add_argument("--yes", action="store_true", help="do not ask")
    patience = down.add_mutually_exclusive_group()
    patience.add_argument("--now", action="store_true", help="do not ask for builds under way, nor wait for them")
    patience.add_argument(
        "--idle", metavar="TIME", help="only where nothing was built for so long, as in 30m, 2h; for a timer"
    )


def _take_with(with_: argparse.ArgumentParser) -> None:
    with_.usage = "%(prog)s -- COMMAND [ARGUMENT...]"
    with_.add_argument(
        "arguments", metavar="COMMAND", nargs="*", help="with BUILDX_BUILDER set; its exit code is this one's"
    )


def _take_status(status: argparse.ArgumentParser) -> None:
    connection.add_format(status)
    status.add_argument(
        "repositories",
        metavar="REPO",
        nargs="*",
        help="look for lagging tags here, besides those that were built from here",
    )
    connection.add_connection(status, login=False)


def _take_build(build: argparse.ArgumentParser) -> None:
    build.usage = "%(prog)s [--wait TIME] [--lock PATH] [--ca FILE] [--plain-http] ARGUMENT..."
    build.add_argument("arguments", metavar="ARGUMENT", nargs="*", help="as of docker buildx build")
    connection.add_connection(build, writes=True, login=False)


def _take_connect(connect: argparse.ArgumentParser) -> None:
    connect.add_argument("bundle", nargs="?", metavar="BUNDLE", help="what `slipway invite` wrote; - reads stdin")


def _take_invite(invite: argparse.ArgumentParser) -> None:
    invite.add_argument("name", metavar="NAME", help="who it is for, as their certificate will say")
    invite.add_argument("--for", dest="lifetime", metavar="TIME", default="30d", help="12h, 30d, 8w (30d)")
    invite.add_argument("--output", metavar="FILE", help="where to write it; - is stdout, as is the default in a pipe")


def _take_disconnect(disconnect: argparse.ArgumentParser) -> None:
    disconnect.add_argument("builder", nargs="*", metavar="BUILDER", help="which, where there are several")
    disconnect.add_argument("--all", action="store_true", help="all that slipway registered here")


def _take_verify(verify: argparse.ArgumentParser) -> None:
    registry.take_verify(verify)
    verify.add_argument("--from", dest="node", metavar="NODE", help="read from a node of the stack, over SSH")


def _take_gc(gc: argparse.ArgumentParser) -> None:
    gc.epilog = (
        "Without REGISTRY: the stack's own, by the settings of the last `slipway up`; what is typed wins over them, but\n"
        "for --keep-matching, which adds to them.\n\nexample: slipway gc --dry-run"
    )
    registry.take_gc(gc)


def _take_common(parser: argparse.ArgumentParser) -> None:
    """Lay out what stands before a verb or after it; absent flags leave no trace, so that one place cannot undo the other."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("-C", "--cwd", metavar="DIR", type=Path, help="the project's folder (this one)")
    add("-s", "--stack", metavar="NAME", help="the stack (the one that pulumi has selected)")
    add("--config-file", metavar="FILE", type=Path, help="the stack's settings (Pulumi.NAME.yaml)")
    add("--debug", action="store_true", help="show where an error came from")


if __name__ == "__main__":
    raise SystemExit(main())
