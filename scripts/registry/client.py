"""The HTTP door: run a protocol's batches against registries, each batch side by side on connections that are kept alive.

It owns TLS, logins, redirects and repetition; what requests mean is the protocols' affair. What is repeated, with a
pause that doubles and has jitter:
- GET and HEAD: after a broken connection, 429, 500, 502, 503 and 504;
- every method: after 429, which says that nothing was done.
A PUT, POST or DELETE whose connection broke is never sent again: it may have been done, and done twice it would undo what
others wrote in between. Its response has the status NO_ANSWER, and so has a read whose body ends too early each time.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

from scripts.registry import login, references
from scripts.registry.errors import AccessDenied, RegistryError, RegistryFailed, RegistryUnreachable
from scripts.registry.exchange import NO_ANSWER, Pause, Request, Response, refusal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from scripts.registry.credentials import Credentials
    from scripts.registry.exchange import Protocol

Result = TypeVar("Result")

PARALLEL = 8
ATTEMPTS = 6
_ATTEMPTS_WHOLE = 3
MAX_ANSWER_BYTES = 64 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_PASSING = {429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
_SAFE = {"GET", "HEAD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How registries are reached. `ca` alone is trusted, or the files that `authorities` has for a host beside the system's.

    Plain HTTP is for loopback, unless `plain_http`; never where one of them is there.
    """

    ca: str = ""
    authorities: Callable[[str], Sequence[str]] = lambda _host: ()
    plain_http: bool = False
    timeout_s: float = 30.0
    credentials: Callable[[str], Credentials | None] = lambda _host: None
    debug: Callable[[str], None] = lambda _line: None


@dataclass(slots=True)
class _Site:
    """What is known of one registry: how to speak to it, and what it has let us in with."""

    secure: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    idle: list[http.client.HTTPConnection] = field(default_factory=list)
    credentials: Credentials | None = None
    asked: bool = False
    header: str = ""
    scopes: set[str] = field(default_factory=set)
    generation: int = 0


class Client:
    """Runs protocols. One is for one command: it is not to be shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sites: dict[str, _Site] = {}
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self._closed = False
        self.requests = 0
        self.rounds = 0

    def run(self, protocol: Protocol[Result]) -> Result:
        """Run a protocol to its end."""
        try:
            step = next(protocol)
            while True:
                if isinstance(step, Pause):
                    time.sleep(_pause_s(step.attempt))
                    step = protocol.send(())
                    continue
                try:
                    responses = self._batch(step)
                except RegistryError as error:
                    step = protocol.throw(error)
                    continue
                step = protocol.send(responses)
        except StopIteration as end:
            result: Result = end.value
            return result

    def warm(self, host: str, connections: int) -> None:
        """Begin to connect, while this thread has other things to do."""
        site = self._site(host)

        def connect() -> None:
            try:
                connection = self._connect(site, host)
                connection.connect()
            except (OSError, RegistryError):  # whoever needs it will try again, and tell
                return
            site.idle.append(connection)
            if self._closed:
                self.close()

        for _ in range(connections):
            threading.Thread(target=connect, daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        for site in self._sites.values():
            while site.idle:
                site.idle.pop().close()

    def _batch(self, requests: Sequence[Request]) -> list[Response]:
        """Send independent requests; this thread works too, so that a batch of one starts no other."""
        for host in {request.host for request in requests}:
            self._site(host)
        self.requests += len(requests)
        self.rounds += -(-len(requests) // PARALLEL)
        answers: dict[int, Response | Exception] = {}
        numbers = count()  # drawn atomically

        def work() -> None:
            while (number := next(numbers)) < len(requests):
                try:
                    answers[number] = self._send(requests[number])
                except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
                    answers[number] = error

        helpers = [threading.Thread(target=work, daemon=True) for _ in range(min(PARALLEL, len(requests)) - 1)]
        for helper in helpers:
            helper.start()
        work()
        for helper in helpers:
            helper.join()
        responses = []
        for _, answer in sorted(answers.items()):
            if isinstance(answer, Exception):
                raise answer
            responses.append(answer)
        return responses

    def _send(self, request: Request) -> Response:
        """Send one request until it has an answer that stands."""
        site = self._sites[request.host]
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._authorized(site, request)
            except RegistryError:  # some are of the system's kinds too
                raise
            except (OSError, http.client.HTTPException) as error:
                if _is_permanent(error):
                    raise self._unreachable(request.host, error) from error
                if request.method not in _SAFE and not isinstance(error, _NotSentError):
                    self._settings.debug(f"{request.method} {request.path}: no answer ({error!r})")
                    return Response(status=NO_ANSWER)
                if isinstance(error, http.client.IncompleteRead) and attempt >= _ATTEMPTS_WHOLE:
                    return Response(status=NO_ANSWER)
                if attempt >= ATTEMPTS:
                    raise self._unreachable(request.host, error) from error
                self._settings.debug(f"{request.method} {request.path}: {error!r}, again")
            else:
                passing = response.status == 429 or (response.status in _PASSING and request.method in _SAFE)
                if not passing or attempt >= ATTEMPTS:
                    return response
                self._settings.debug(f"{request.method} {request.path}: {response.status}, again")
            time.sleep(_pause_s(attempt))

    def _authorized(self, site: _Site, request: Request) -> Response:
        """Send with what we were let in with; where that is not enough, log in once and send again."""
        logged_in = False
        while True:
            generation = site.generation
            response = self._follow(site, request, site.header)
            if response.status != 401 or logged_in:
                return response
            with site.lock:
                # What another request has logged in for meanwhile may be enough, or be for another repository.
                if site.generation == generation:
                    if not self._log_in(site, request, response):
                        return response
                    site.generation += 1
                    logged_in = True

    def _follow(self, site: _Site, request: Request, header: str) -> Response:
        """Send, and follow redirects of reads; a login goes to no other host."""
        headers = {**request.headers, **({"Authorization": header} if header else {})}
        response = self._exchange(site, request.host, request.method, request.path, headers, request.body)
        url = f"{'https' if site.secure else 'http'}://{request.host}{request.path}"
        for _ in range(5):
            if response.status not in _REDIRECTS or request.method not in _SAFE or "location" not in response.headers:
                return response
            url, parts = _target_of(request.host, url, response.headers["location"])
            if parts.scheme != "https" and (parts.scheme != "http" or site.secure or self._secure(parts.netloc)):
                raise RegistryFailed(
                    f"{request.host}: it redirects to {parts.scheme}://{parts.netloc}, which is not encrypted"
                )
            if parts.netloc != request.host:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            other = self._sites.setdefault(f"{parts.scheme}://{parts.netloc}", _Site(secure=parts.scheme == "https"))
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            response = self._exchange(other, parts.netloc, request.method, path, headers, b"")
        raise RegistryFailed(f"{request.host}: it redirects again and again")

    def _exchange(
        self, site: _Site, host: str, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Response:
        """Send once. A kept connection that the server has closed meanwhile, before it took the request, is replaced."""
        kept = self._kept(site)
        try:
            return self._say(site, kept or self._connect(site, host), method, path, headers, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not kept or method not in _SAFE:
                raise
        return self._say(site, self._connect(site, host), method, path, headers, body)

    @staticmethod
    def _kept(site: _Site) -> http.client.HTTPConnection | None:
        """Return a connection that was kept; one that has something to say before it was asked was closed by the server."""
        while True:
            try:
                connection = site.idle.pop()
            except IndexError:
                return None
            if connection.sock and not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()

    @staticmethod
    def _say(
        site: _Site,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
    ) -> Response:
        try:
            if connection.sock is None:
                try:
                    connection.connect()
                except OSError as error:
                    raise _NotSentError(error) from error
            try:
                connection.request(method, path, body or None, {"User-Agent": "slipway", **headers})
            except (ValueError, http.client.InvalidURL):  # without the cause, which may quote a token
                told = f"{connection.host}:{connection.port}: it told an address that cannot be asked for"
                raise RegistryFailed(told) from None
            answer = connection.getresponse()
            first_byte = "Range" in headers and answer.status == 200  # it sends all of it
            content = _read_first_byte(answer) if first_byte else _read_whole(connection.host, answer)
        except BaseException:
            connection.close()
            raise
        if answer.will_close or first_byte:
            connection.close()
        else:
            site.idle.append(connection)
        received = {name.lower(): value for name, value in answer.getheaders()}
        for name in {"www-authenticate", "link"} & received.keys():  # each way in, or link, may have a line of its own
            received[name] = ", ".join(answer.headers.get_all(name, ()))
        return Response(status=answer.status, headers=received, body=content)

    def _connect(self, site: _Site, host: str) -> http.client.HTTPConnection:
        if not site.secure:
            return http.client.HTTPConnection(host, timeout=self._settings.timeout_s)
        own = self._authorities(host)
        with site.lock if not site.lock.locked() else _Nothing():
            if own not in self._contexts:
                self._contexts[own] = _tls(self._settings.ca, own)
        return http.client.HTTPSConnection(host, timeout=self._settings.timeout_s, context=self._contexts[own])

    def _authorities(self, host: str) -> tuple[str, ...]:
        return () if self._settings.ca else tuple(self._settings.authorities(host))

    def _site(self, host: str) -> _Site:
        if host not in self._sites:
            self._sites[host] = _Site(secure=self._secure(host))
        return self._sites[host]

    def _secure(self, host: str) -> bool:
        if self._settings.plain_http:
            return False
        return bool(self._settings.ca) or not _is_loopback(host) or bool(self._authorities(host))

    def _log_in(self, site: _Site, request: Request, refused: Response) -> bool:
        """Do as a 401 asks; False: there is nothing that we could do."""
        challenge = login.parse(refused.headers.get("www-authenticate", ""))
        if not site.asked:
            site.credentials, site.asked = self._settings.credentials(request.host), True
        if challenge.bearer:
            if site.header and challenge.scopes <= site.scopes and challenge.insufficient:
                return False
            site.scopes |= challenge.scopes
            site.header = f"Bearer {self._token(site, request.host, challenge)}"
            return True
        if not challenge.basic or site.credentials is None or site.header:
            return False
        site.header = site.credentials.basic()
        return True

    def _token(self, site: _Site, host: str, challenge: login.Challenge) -> str:
        realm = login.realm_of(challenge)
        if realm.scheme != "https" and (realm.scheme != "http" or site.secure or not _is_loopback(realm.netloc)):
            raise AccessDenied(
                f"{host}: it sends logins to {realm.scheme or 'no'}://{realm.netloc}, which is not encrypted"
            )
        server = self._sites.setdefault(f"{realm.scheme}://{realm.netloc}", _Site(secure=realm.scheme == "https"))
        asked = login.token_request(realm, challenge.service, site.scopes, site.credentials)
        answer = self._exchange(server, asked.host, asked.method, asked.path, dict(asked.headers), asked.body)
        if answer.status != 200:
            raise refusal(f"{host}: its token server {realm.netloc}", answer)
        return login.read_token(host, answer)

    def _unreachable(self, host: str, error: Exception) -> RegistryUnreachable:
        reason = error.args[0] if isinstance(error, _NotSentError) else error
        said = getattr(reason, "verify_message", "") or getattr(reason, "strerror", "") or str(reason) or repr(reason)
        hint = "see that its name and port are right and that it runs"
        if "certificate" in str(reason).lower():
            hint = (
                f"name its authority's certificate: --ca FILE, or give it to Docker: /etc/docker/certs.d/{host}/ca.crt"
            )
        elif "WRONG_VERSION_NUMBER" in str(reason):
            said, hint = "it does not speak TLS", "--plain-http, if that is meant to be"
        return RegistryUnreachable(f"{host}: no answer ({' '.join(said.split())})", hint=hint)


def _read_first_byte(answer: http.client.HTTPResponse) -> bytes:
    content = answer.read(1)
    if not content and answer.length:
        raise http.client.IncompleteRead(content, answer.length)
    return content


def _read_whole(host: str, answer: http.client.HTTPResponse) -> bytes:
    content = answer.read(MAX_ANSWER_BYTES)
    if answer.length and len(content) < MAX_ANSWER_BYTES:
        raise http.client.IncompleteRead(content, answer.length)
    if answer.read(1):
        raise RegistryFailed(f"{host}: an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
    return content


def _target_of(host: str, url: str, location: str) -> tuple[str, SplitResult]:
    """Return where a redirect leads."""
    try:
        url = urljoin(url, location)
        parts = urlsplit(url)
        usable = references.is_host(parts.netloc)
    except ValueError:
        usable = False
    if not usable:
        raise RegistryFailed(f"{host}: it redirects to what is no address")
    return url, parts


class _NotSentError(OSError):
    """The connection was never made, so nothing was done."""


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _tls(ca: str, authorities: Sequence[str]) -> ssl.SSLContext:
    import ssl

    named = f"--ca {ca}"
    try:
        context = ssl.create_default_context(cafile=ca or None)
        for named in authorities:
            context.load_verify_locations(cafile=named)
    except (OSError, ssl.SSLError) as error:
        said = error.strerror if not isinstance(error, ssl.SSLError) else "it holds no certificate"
        raise RegistryUnreachable(f"{named}: it cannot be read ({said})") from error
    return context


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    return name in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", name) is not None


def _is_permanent(error: Exception) -> bool:
    """Tell whether another attempt can only end the same way: a name that nobody knows, a certificate that nobody trusts."""
    import socket

    reason = error.args[0] if isinstance(error, _NotSentError) and error.args else error
    return isinstance(reason, socket.gaierror) or type(reason).__name__ in {"SSLCertVerificationError", "SSLError"}


def _pause_s(attempt: int) -> float:
    longest: float = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S)
    return longest * (0.5 + os.urandom(1)[0] / 512)
