"""The SSH door: connect to a node whose host keys are on record, run commands there, put files there.

It owns the host key check, the retries while a machine boots, and the translation of every paramiko failure. What the
commands mean is its callers' affair. A host key that is not on record ends the contact at once; nothing here can accept it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import select
import shlex
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko
from paramiko.ssh_exception import PartialAuthentication

from builders.errors import (
    BuilderError,
    HostKeyMismatch,
    InvalidSetting,
    LoginRefused,
    NodeNotReady,
    NodeUnreachable,
    RemoteCommandFailed,
    TransferRefused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

# AES-GCM encrypts and authenticates in one call into C, which releases the interpreter's lock; the others follow as paramiko has them.
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_DIAL_TIMEOUT_S = 5.0
_HANDSHAKE_TIMEOUT_S = 20.0
_ANSWER_S = 5.0  # before we give a command up the node tells that it waits for another one
_LOGIN_GRACE_S = 30.0  # cloud-init may write authorized_keys after sshd has started
_LONGEST_PAUSE_S = 2.0
_CHUNK_BYTES = 1 << 20
_WRONG_DIGEST = 66
_BUSY = 75
_DISK_FULL = "No space left on device"
_KEY_CLASSES: tuple[type[paramiko.PKey], ...] = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)

# paramiko's worker threads log what they also raise; without a handler Python would print it on stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Connection:
    """An authenticated connection to one node; usable from several threads at once."""

    def __init__(self, node: str, transport: paramiko.Transport) -> None:
        self.node = node
        self._transport = transport

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; a second time does nothing."""
        self._transport.close()

    def run(self, command: str, *, stdin: bytes | None = None, timeout_s: float = 60, alone: bool = False) -> str:
        """Run one shell command and return its stdout; a bad end is RemoteCommandFailed, the deadline NodeNotReady.

        A command outlives a connection that breaks. Those that run `alone` take turns on the node, whoever sent them.
        """
        return self._run(command, (stdin,) if stdin else (), timeout_s, alone=alone)

    def put(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a small file, its folder included; readers see the old content or the new, never a part."""
        self._place(path, (content,), sha256=hashlib.sha256(content).hexdigest(), mode=mode, timeout_s=60)

    def upload(self, source: Path, path: str, *, sha256: str, timeout_s: float = 900) -> None:
        """Copy a local file; it takes its name on the node only if its digest there is the one wanted."""
        try:
            with source.open("rb") as file:
                chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
                self._place(path, chunks, sha256=sha256, mode=0o644, timeout_s=timeout_s)
        except FileNotFoundError as error:
            raise TransferRefused(
                f"{source}: no such file on this machine", hint="run scripts/setup, or correct the path in the settings"
            ) from error

    def _place(self, path: str, content: Iterable[bytes], *, sha256: str, mode: int, timeout_s: float) -> None:
        # The digest also tells a file that came to its end from one whose connection broke.
        target = shlex.quote(path)
        script = (
            f'mkdir -p "$(dirname {target})" && new=$(mktemp {target}.XXXXXX) && trap \'rm -f "$new"\' EXIT || exit; '
            f'cat > "$new" || exit; [ "$(sha256sum < "$new" | cut -c1-64)" = {shlex.quote(sha256)} ] || exit {_WRONG_DIGEST}; '
            f'chmod {mode:o} "$new" && mv -f "$new" {target}'
        )
        try:
            self._run(script, content, timeout_s)
        except RemoteCommandFailed as error:
            if error.exit_status != _WRONG_DIGEST:
                raise
            raise TransferRefused(
                f"node {self.node}: {path} did not arrive with the sha256 on record ({sha256[:12]}…)",
                hint="correct the digest in the settings, or fetch the file again",
            ) from error

    def _run(self, command: str, stdin: Iterable[bytes], timeout_s: float, *, alone: bool = False) -> str:
        deadline = time.monotonic() + timeout_s
        # The home folder is there to be locked on every machine, and locking it writes nothing.
        patience_s = max(0.0, timeout_s - _ANSWER_S)
        turn = f"exec 9< ~ && flock -w {patience_s:.0f} 9 || exit {_BUSY}; " if alone else ""
        try:
            with self._transport.open_session(timeout=timeout_s) as channel:
                channel.settimeout(timeout_s)
                _execute(channel, f"export LC_ALL=C; {turn}{command}", deadline)
                with suppress(OSError):  # a command that ends early closes its stdin; its exit status says why
                    for chunk in stdin:
                        channel.sendall(chunk)
                channel.shutdown_write()
                stdout, stderr = _drain(channel, deadline)
                status = _exit_status(channel, deadline)
        except TimeoutError as error:
            raise NodeNotReady(
                f"node {self.node}: no answer within {timeout_s:.0f} s from `{_shown(command)}`"
            ) from error
        except Exception as error:
            raise _translate(error, self.node) from error
        if status < 0:
            raise NodeUnreachable(
                f"node {self.node}: the connection broke during `{_shown(command)}`",
                hint="see whether the server is running, then try again",
            )
        if alone and status == _BUSY:
            raise NodeNotReady(
                f"node {self.node}: what an earlier run began there has not ended in {patience_s:.0f} s",
                hint="wait for it, then run the same command again",
            )
        if status and _DISK_FULL in stderr:
            raise TransferRefused(
                f"node {self.node}: the disk is full (`{_shown(command)}`)",
                hint="choose a larger server type, or prune the builder's cache",
            )
        if status:
            raise RemoteCommandFailed(
                f"node {self.node}: `{_shown(command)}` failed (exit {status}): {_last_line(stderr or stdout)}",
                exit_status=status,
                stdout=stdout,
                stderr=stderr,
            )
        return stdout


def connect(
    node: str,
    address: str,
    *,
    host_keys: Sequence[str],
    private_key: str,
    user: str = "root",
    deadline_s: float = 180,
    port: int = 22,
) -> Connection:
    """Connect as soon as the machine answers.

    `host_keys` are OpenSSH public lines: exactly these are accepted. Tried again until the deadline: no route, refused, timeouts,
    connections that break during the handshake. A refused login is tried again for 30 s. A wrong host key is never tried again.
    """
    accepted = tuple(_fields(line) for line in host_keys)
    login = _load_key(private_key)
    deadline = time.monotonic() + deadline_s
    patience: dict[type[BuilderError], float] = {
        NodeUnreachable: deadline
    }  # until when such a failure may pass by itself
    pauses = _pauses()
    while True:
        remaining_s = deadline - time.monotonic()
        try:
            transport = _dial(address, port, min(_DIAL_TIMEOUT_S, max(remaining_s, 0.1)))
            transport.banner_timeout = transport.auth_timeout = min(_HANDSHAKE_TIMEOUT_S, max(remaining_s, 1.0))
            return _log_in(transport, node, user=user, accepted=accepted, login=login)
        except Exception as error:
            failure = _translate(error, node)
            if isinstance(failure, LoginRefused):
                patience.setdefault(LoginRefused, min(time.monotonic() + _LOGIN_GRACE_S, deadline))
            if time.monotonic() < patience.get(type(failure), 0.0):
                time.sleep(next(pauses))
                continue
            if isinstance(failure, NodeUnreachable):
                failure = NodeUnreachable(
                    f"node {node}: no SSH connection to {address} port {port} within {deadline_s:.0f} s ({_reason(error)})",
                    hint="see that the server is running and that the firewall admits this machine's address",
                )
            raise failure from error


def _dial(address: str, port: int, timeout_s: float) -> paramiko.Transport:
    """Open a connection on which nothing has been said yet."""
    raw = socket.create_connection((address, port), timeout=timeout_s)
    try:
        return paramiko.Transport(raw)
    except BaseException:
        raw.close()
        raise


def _log_in(
    transport: paramiko.Transport, node: str, *, user: str, accepted: Sequence[tuple[str, str]], login: paramiko.PKey
) -> Connection:
    """Check who answers, then say who we are; a failed attempt leaves no socket and no thread behind."""
    try:
        _prefer(transport.get_security_options(), [kind for kind, _ in accepted])
        _answer(transport, transport.start_client)
        _check_host_key(transport.get_remote_server_key(), accepted, node)
        _answer(transport, lambda event: transport.auth_publickey(user, login, event))
        _check_login(transport, node)
        transport.set_keepalive(15)
    except BaseException:
        transport.close()
        raise
    return Connection(node, transport)


def _answer(transport: paramiko.Transport, ask: Callable[[threading.Event], object]) -> None:
    """Ask, and wait until the machine has answered; paramiko itself takes silence for a session without keys, or a refused login."""
    answered = threading.Event()
    ask(answered)
    if not answered.wait(transport.banner_timeout):
        raise TimeoutError
    if not transport.is_active():
        raise transport.get_exception() or EOFError


def _check_host_key(key: paramiko.PKey, accepted: Sequence[tuple[str, str]], node: str) -> None:
    if (key.get_name(), key.get_base64()) not in accepted:
        raise HostKeyMismatch(
            f"node {node}: the machine shows the host key {key.fingerprint}, which is not on record",
            hint="if you rebuilt the server, or a `down` ended before it was gone, delete it and run `slipway up`; "
            "if not, somebody may stand between you and it",
        )


def _check_login(transport: paramiko.Transport, node: str) -> None:
    if transport.is_authenticated():
        return
    refusal = transport.get_exception() or paramiko.AuthenticationException("Authentication failed")
    if isinstance(refusal, PartialAuthentication):
        raise LoginRefused(
            f"node {node}: the machine asks for {refusal.allowed_types[0]} on top of the SSH key",
            hint="let publickey suffice in its sshd_config",
        )
    raise refusal


def _prefer(options: paramiko.SecurityOptions, key_types: Sequence[str]) -> None:
    """Ask for the key type on record first; the others stay, so that a stranger is seen as one and not as a failed negotiation."""
    options.ciphers = (*_FAST_CIPHERS, *(name for name in options.ciphers if name not in _FAST_CIPHERS))
    wanted = [
        name for name in options.key_types if name in key_types or (name.startswith("rsa-") and "ssh-rsa" in key_types)
    ]
    options.key_types = (*wanted, *(name for name in options.key_types if name not in wanted))


def _translate(error: Exception, node: str) -> BuilderError:
    """Say in our words what paramiko, the socket or we ourselves raised."""
    if isinstance(error, BuilderError):
        return error
    if isinstance(error, paramiko.AuthenticationException):
        return LoginRefused(
            f"node {node}: the machine does not accept the stack's SSH key ({_reason(error)})",
            hint="if its authorized_keys were changed by hand, put the stack's key back or delete the server and run `slipway up`",
        )
    if isinstance(error, paramiko.BadHostKeyException):
        return HostKeyMismatch(f"node {node}: the machine shows a host key that is not on record ({_reason(error)})")
    if isinstance(error, paramiko.SSHException | OSError | EOFError):
        return NodeUnreachable(f"node {node}: {_reason(error)}")
    raise error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, EOFError):
        return "it closed the connection"
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")) or type(
        error
    ).__name__


def _execute(channel: paramiko.Channel, command: str, deadline: float) -> None:
    """Have a command begun; paramiko waits for the machine's word on it without end."""

    def give_up() -> None:
        with suppress(OSError, EOFError):  # it may be closed already
            channel.close()

    giving_up = threading.Timer(max(0.0, deadline - time.monotonic()), give_up)
    giving_up.start()
    try:
        channel.exec_command(command)
    except paramiko.SSHException:
        if time.monotonic() < deadline:
            raise
        raise TimeoutError from None
    finally:
        giving_up.cancel()


def _drain(channel: paramiko.Channel, deadline: float) -> tuple[str, str]:
    """Read both streams to their end: a full one would keep the exit status from arriving."""
    stdout, stderr = bytearray(), bytearray()
    while True:
        ended = channel.eof_received or channel.closed
        while channel.recv_ready():
            stdout += channel.recv(_CHUNK_BYTES)
        while channel.recv_stderr_ready():
            stderr += channel.recv_stderr(_CHUNK_BYTES)
        if ended:
            return stdout.decode(errors="replace"), stderr.decode(errors="replace")
        if not select.select([channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError


def _exit_status(channel: paramiko.Channel, deadline: float) -> int:
    """Wait for the command's own status; -1 when the connection ended without one."""
    if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
        raise TimeoutError
    return channel.recv_exit_status()


def _pauses() -> Iterator[float]:
    """How long to wait between attempts: short at first, since a booting machine refuses at once."""
    pause = 0.2
    while True:
        yield pause
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _fields(line: str) -> tuple[str, str]:
    """Type and base64 of an OpenSSH public line, its comment left out."""
    try:
        kind, base64 = line.split()[:2]
    except ValueError as error:
        raise InvalidSetting(f"host key {line!r}: it is not an OpenSSH public key line") from error
    return kind, base64


def _load_key(private_key: str) -> paramiko.PKey:
    for kind in _KEY_CLASSES:
        with suppress(paramiko.SSHException, ValueError):
            return kind.from_private_key(io.StringIO(private_key))
    raise InvalidSetting("the SSH key to log in with is not an unencrypted OpenSSH private key")


def _shown(command: str) -> str:
    first = command.strip().splitlines()[0]
    return first if len(first) <= 80 else first[:79] + "…"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing").strip()
