"""How the registry's verbs reach a registry: their common flags, logins, the lock, and the wait while it is read-only."""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from scripts.registry.errors import InvalidReference, ReadOnly, RegistryError, RegistryUnreachable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from scripts.registry.client import Client
    from scripts.registry.credentials import Credentials
    from scripts.registry.exchange import Protocol

_READ_ONLY_PAUSE_S = 5.0
_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def guarded(verb: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Say in one line what went wrong."""

    def guarded(options: argparse.Namespace) -> int:
        from scripts.registry import output

        gc.disable()  # a command that lives a tenth of a second has nothing to collect
        try:
            return verb(options)
        except KeyboardInterrupt:
            output.progress("interrupted; run the same command again")
            return 130
        except RegistryError as error:
            if options.debug:
                import traceback

                traceback.print_exc()
            output.error(str(error), error.hint)
            return 2 if isinstance(error, InvalidReference) else 1
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            output.error(f"{error.filename or 'system'}: {(error.strerror or str(error)).lower()}")
            return 1
        except UnicodeError:  # an argument or a password; what it was is not shown
            output.error("what was typed is not UTF-8")
            return 2

    return guarded


def run(options: argparse.Namespace, host: str, protocol: Callable[[], Protocol[Any]]) -> Any:
    """Run a protocol in its turn, if there is a lock; a typed login is for `host`."""
    with in_turn(options):
        return run_now(options, host, protocol)


def in_turn(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Hold the lock that a writing verb was told of, if any, after a wait for it up to the limit."""
    from scripts.registry import lock

    path = getattr(options, "lock", "")
    return lock.held(path, wait_s=duration(options.wait) if path else 0, waiting=partial(_waiting, options))


def run_now(
    options: argparse.Namespace,
    host: str,
    protocol: Callable[[], Protocol[Any]],
    *,
    client: Client | None = None,
    wait: bool = True,
) -> Any:
    """Run a protocol; while the registry is read-only, `wait` and begin again, up to the limit."""
    from scripts.registry import output

    client = client or new_client(options, host)
    wait_s = duration(getattr(options, "wait", "0s")) if wait else 0
    try:
        return _while_writable(client, protocol, wait_s=wait_s, waiting=partial(_waiting, options))
    finally:
        if options.debug:
            output.progress(f"{client.requests} requests, {client.rounds} round trips deep")
        client.close()


def _waiting(options: argparse.Namespace, why: object) -> None:
    from scripts.registry import output

    output.progress(f"{why}; waiting for it, {options.wait} at most")


def _while_writable(
    client: Client, protocol: Callable[[], Protocol[Any]], *, wait_s: float, waiting: Callable[[object], None]
) -> Any:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            return client.run(protocol())
        except (ReadOnly, RegistryUnreachable) as error:
            restarts = told and isinstance(error, RegistryUnreachable)  # as it does when its maintenance ends
            if not (restarts or isinstance(error, ReadOnly)) or time.monotonic() + _READ_ONLY_PAUSE_S > deadline:
                raise
            if not told:
                waiting(error)
                told = True
            time.sleep(_READ_ONLY_PAUSE_S)


def new_client(options: argparse.Namespace, host: str) -> Client:
    """Return the door, opened with the flags' answers."""
    from scripts.registry.client import Client, Settings

    typed = _typed(options)

    def known(of: str) -> Credentials | None:
        return typed if typed and of == host else _stored(of)

    def debug(line: str) -> None:
        from scripts.registry import output

        if options.debug:
            output.progress(line)

    return Client(
        Settings(
            ca=options.ca,
            authorities=_authorities,
            plain_http=options.plain_http,
            credentials=known,
            debug=debug,
        )
    )


def require_one_host(options: argparse.Namespace, hosts: Iterable[str]) -> None:
    """Refuse a typed login where several registries are named: each would be told the password of one."""
    if (options.username or options.password_stdin) and len(set(hosts)) > 1:
        raise InvalidReference(
            "--username: the references are of several registries", hint="name those of one at a time"
        )


def login(options: argparse.Namespace, host: str) -> Credentials | None:
    """Return what a registry is to be told: what was typed, or what Docker has for it."""
    return _typed(options) or _stored(host)


def _typed(options: argparse.Namespace) -> Credentials | None:
    if options.password_stdin:
        if not options.username:
            raise InvalidReference("--password-stdin: say whose, with --username")
        if not hasattr(options, "password"):
            options.password = sys.stdin.readline().rstrip("\r\n")
        if not options.password:
            raise InvalidReference("--password-stdin: stdin holds no password")
        from scripts.registry.credentials import TOKEN, Credentials

        return Credentials(
            username=options.username, secret=options.password, is_identity_token=options.username == TOKEN
        )
    if options.username:
        raise InvalidReference("--username: its password comes from stdin", hint="--password-stdin")
    return None


def _stored(host: str) -> Credentials | None:
    from scripts.registry import credentials

    return credentials.load(host, os.environ)


def _authorities(host: str) -> list[str]:
    from scripts.registry import credentials

    return credentials.authorities(host, os.environ)


def add_connection(
    parser: argparse.ArgumentParser, *, writes: bool = False, listing: bool = False, login: bool = True
) -> None:
    """Add the flags that say how a registry is reached."""
    if listing:
        add_format(parser)
    if writes:
        parser.add_argument("--wait", default="10m", metavar="TIME", help="for a read-only registry or the lock (10m)")
        parser.add_argument(
            "--lock", default="", metavar="PATH", help="a file that all writers of the tag lock in turn"
        )
    group = parser.add_argument_group("registry", "logins come from Docker's config.json and its credential helpers")
    if login:
        group.add_argument(
            "--username", default="", metavar="NAME", help="log in as somebody else; needs --password-stdin"
        )
        group.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    else:
        parser.set_defaults(username="", password_stdin=False)
    group.add_argument("--ca", default="", metavar="FILE", help="the certificate of the registry's authority")
    group.add_argument("--plain-http", action="store_true", help="speak HTTP without TLS, as is done on loopback")


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says how a result is shown."""
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the result (table)")


def duration(text: str) -> float:
    """Return a time in seconds, as users write it."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise InvalidReference(f"{text!r} is no time: say a number and its unit, as in 30s, 10m, 12h, 90d")
    return float(found[1]) * _SECONDS[found[2]]
