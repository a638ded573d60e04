"""The Kubernetes door: requests to an API server, and commands in its pods (the exec stream, over a WebSocket).

It owns kubeconfigs, service accounts, TLS and the stream's channels; what objects mean is deployment.py's affair.
Reads, and what was never sent, are repeated for a while; what may have been done is not.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import websocket
import yaml

from scripts.registry.collection.places import Done
from scripts.registry.errors import AccessDenied, PlaceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ATTEMPTS, _PAUSE_S, _TIMEOUT_S = 6, 0.5, 20.0
_CHUNK = 16 << 10
_NO_PROXY = "name a context whose server is reached without a proxy, or run this in a pod: --in-cluster"
_OTHER_LOGIN = "name a context whose user has a token, a certificate or a login command (exec)"
_UNSUPPORTED = {
    "cluster": {"proxy-url": _NO_PROXY},
    "user": dict.fromkeys(("auth-provider", "username", "as", "as-uid", "as-groups", "as-user-extra"), _OTHER_LOGIN),
}
"""What leads elsewhere, or in as somebody else, where it is overlooked; and what helps."""

_STDIN, _STDOUT, _STDERR, _STATUS = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How an API server is reached, and as whom; `token` is asked for each time, as tokens are renewed.

    `server_name` is what its certificate is for, where that is not the host of `server`.
    """

    server: str
    namespace: str
    context: ssl.SSLContext | None
    server_name: str = ""
    token: Callable[[], str] = field(repr=False, default=lambda: "")


def in_cluster() -> Access:
    """Return the way in that a pod has."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        namespace = (_ACCOUNT / "namespace").read_text().strip()
        context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    except OSError as error:
        raise PlaceUnreachable(
            f"--in-cluster: this is no pod with a service account ({error.filename}: {error.strerror})",
            hint="elsewhere, name a kubeconfig: --kubeconfig FILE",
        ) from error
    host = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{host}:{port}",
        namespace=namespace,
        context=context,
        token=lambda: (_ACCOUNT / "token").read_text().strip(),
    )


def from_kubeconfig(path: str, context: str, *, content: str = "") -> Access:
    """Return the way in that a kubeconfig tells, as kubectl reads it; its content, where it is in no file.

    What of it is not supported is refused by its name.
    """
    file = Path("of the stack") if content else _file(path)
    try:
        config = yaml.safe_load(content or file.read_text())
        name = context or config["current-context"]
        chosen = _named(config, "contexts", name)["context"]
        cluster = _named(config, "clusters", chosen["cluster"])["cluster"]
        user = _named(config, "users", chosen["user"])["user"] or {}
        server = str(cluster["server"])
        tls = _tls(cluster, user, folder=file.parent) if server.startswith("https://") else None
    except OSError as error:
        told = f"{error.filename or file}: {(error.strerror or str(error)).lower()}"
        raise PlaceUnreachable(f"kubeconfig {told}", hint="name it: --kubeconfig FILE") from error
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        said = error.args[0] if isinstance(error, KeyError) else "it cannot be read as one"
        raise PlaceUnreachable(f"kubeconfig {file}: {said} is missing or wrong", hint="kubectl config view") from error
    _refuse_unsupported(file, cluster=cluster, user=user)
    return Access(
        server=server.rstrip("/"),
        namespace=str(chosen.get("namespace") or "default"),
        context=tls,
        server_name=str(cluster.get("tls-server-name") or ""),
        token=lambda: _token(user, folder=file.parent),
    )


def _file(path: str) -> Path:
    listed = [each for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    if not path and len(listed) > 1:
        raise PlaceUnreachable(
            f"$KUBECONFIG lists {len(listed)} files, and they are not put together here",
            hint="name one: --kubeconfig FILE; kubectl config view --flatten makes one of all",
        )
    return Path(path or (listed[0] if listed else Path.home() / ".kube" / "config"))


def _refuse_unsupported(file: Path, **sections: Mapping[str, Any]) -> None:
    for section, found in sections.items():
        for name, hint in _UNSUPPORTED[section].items():
            if found.get(name):
                raise PlaceUnreachable(f"kubeconfig {file}: {name} of its {section} is not supported", hint=hint)


def _named(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    for each in config.get(kind) or ():
        if each["name"] == name:
            found: dict[str, Any] = each
            return found
    raise KeyError(f"{kind.removesuffix('s')} {name!r}")


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], *, folder: Path) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate", folder), _content(user, "client-key", folder)
    if certificate and key:
        with tempfile.NamedTemporaryFile() as file:  # readable by its owner alone; the library takes files only
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _content(section: Mapping[str, Any], name: str, folder: Path) -> bytes:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data)
    return (folder / str(section[name])).read_bytes() if section.get(name) else b""


def _token(user: Mapping[str, Any], *, folder: Path) -> str:
    if user.get("token"):
        return str(user["token"])
    if user.get("tokenFile"):
        return (folder / str(user["tokenFile"])).read_text().strip()
    plugin = user.get("exec")
    if not plugin:
        return ""
    environment = {**os.environ, **{each["name"]: each["value"] for each in plugin.get("env") or ()}}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    )
    try:
        command = [plugin["command"], *(plugin.get("args") or ())]
        told = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
        return str(json.loads(told.stdout)["status"]["token"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise AccessDenied(f"kubeconfig: its login command {plugin.get('command')} gave no token") from error


class Api:
    """An API server. Connections are for one request each, so threads may share it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._parts = urlsplit(access.server)

    def call(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        """Send a request; its status and what was answered. AccessDenied and PlaceUnreachable are raised."""
        attempt = 0
        while True:
            attempt += 1
            sent = False
            connection = self._connection()
            try:
                connection.sock = self._connect()
                sent = True
                connection.request(
                    method,
                    f"{self._parts.path}{path}",
                    None if body is None else json.dumps(body),
                    {"Accept": "application/json", "Content-Type": kind, **self._login()},
                )
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                if (
                    attempt >= _ATTEMPTS
                    or (sent and method != "GET")
                    or isinstance(error, ssl.SSLCertVerificationError)
                ):
                    raise self._unreachable(error) from error
            else:
                status = answer.status
                if status not in {429, 500, 502, 503, 504}:
                    return status, self._read(status, content, f"{method} {path}")
                if attempt >= _ATTEMPTS or (method != "GET" and status != 429):
                    raise PlaceUnreachable(f"Kubernetes, {self._access.server}: it failed ({status})", hint="try again")
            finally:
                connection.close()
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))

    def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], *, stdin: bytes, timeout_s: float
    ) -> Done:
        """Run a command in a container. PlaceUnreachable: it was not begun, or its end was not told."""
        query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        query += [("command", each) for each in command]
        url = f"{'wss' if self._access.context else 'ws'}://{self._parts.netloc}{self._parts.path}"
        url += f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(query)}"
        what = f"pod {namespace}/{pod}"
        header = [f"{name}: {value}" for name, value in self._login().items()]
        try:
            stream = websocket.create_connection(
                url,
                timeout=_TIMEOUT_S,
                header=header,
                subprotocols=["v5.channel.k8s.io", "v4.channel.k8s.io"],
                suppress_origin=True,
                redirect_limit=0,  # it would follow on a connection of its own
                socket=self._connect(),
            )
        except websocket.WebSocketBadStatusException as error:
            said = _message(getattr(error, "resp_body", b"") or b"")
            if error.status_code in {401, 403}:
                raise AccessDenied(
                    f"{what}: no command may be run in it ({said})", hint="see docs/gc.md, rights"
                ) from error
            raise PlaceUnreachable(f"{what}: no command can be run in it ({error.status_code}, {said})") from error
        except (OSError, websocket.WebSocketException) as error:
            raise self._unreachable(error) from error
        try:
            stream.settimeout(timeout_s)
            return _converse(stream, stdin, what)
        finally:
            stream.close()

    def _connect(self) -> socket.socket:
        """Connect without a proxy: http.client knows none, and the WebSocket library would take the environment's."""
        host, context = self._parts.hostname or "", self._access.context
        found = socket.create_connection((host, self._parts.port or (443 if context else 80)), timeout=_TIMEOUT_S)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return context.wrap_socket(found, server_hostname=self._access.server_name or host) if context else found

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._access.context:
            return http.client.HTTPSConnection(host, port or 443, timeout=_TIMEOUT_S, context=self._access.context)
        return http.client.HTTPConnection(host, port or 80, timeout=_TIMEOUT_S)

    def _login(self) -> dict[str, str]:
        token = self._access.token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _read(self, status: int, content: bytes, what: str) -> dict[str, Any]:
        if status in {401, 403}:
            raise AccessDenied(
                f"Kubernetes, {self._access.server}: {what}: {_message(content)} ({status})",
                hint="these credentials lack a right: see docs/gc.md, rights",
            )
        try:
            found = json.loads(content)
        except ValueError as error:
            raise PlaceUnreachable(
                f"Kubernetes, {self._access.server}: it answers what no API server does ({status})",
                hint="see the kubeconfig's server",
            ) from error
        return found if isinstance(found, dict) else {}

    def _unreachable(self, error: Exception) -> PlaceUnreachable:
        said = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error) or repr(error)
        return PlaceUnreachable(
            f"Kubernetes, {self._access.server}: no answer ({' '.join(str(said).split())})",
            hint="see that the kubeconfig is the right one and that the API server runs",
        )


def _converse(stream: websocket.WebSocket, stdin: bytes, what: str) -> Done:
    """Send stdin and read all channels until the command's end is told, which may be before it has read its stdin.

    By one thread: a TLS connection must not be written to and read from by two at once (CPython gh-134698).
    """
    starts = iter(range(0, len(stdin), _CHUNK))
    unsent = next(starts, None)
    channels: dict[int, list[bytes]] = {_STDOUT: [], _STDERR: []}
    while True:
        try:
            if unsent is not None and not _has_come(stream):
                stream.send_binary(bytes([_STDIN]) + stdin[unsent : unsent + _CHUNK])
                unsent = next(starts, None)
                continue
            kind, frame = stream.recv_data_frame(control_frame=True)  # a ping is answered there
        except (OSError, websocket.WebSocketException) as error:
            raise PlaceUnreachable(
                f"{what}: the stream of a command broke ({error or type(error).__name__})"
            ) from error
        if kind in {websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG}:
            continue
        content = b"" if kind == websocket.ABNF.OPCODE_CLOSE else bytes(frame.data)
        if not content:
            raise PlaceUnreachable(f"{what}: the stream of a command ended, and its end was not told")
        if content[0] == _STATUS:
            code = _exit_code(content[1:])
            if code is None:
                raise PlaceUnreachable(f"{what}: a command could not be run in it ({_message(content[1:])})")
            return Done(code=code, out=b"".join(channels[_STDOUT]), err=b"".join(channels[_STDERR]))
        channels.setdefault(content[0], []).append(content[1:])


def _has_come(stream: websocket.WebSocket) -> bool:
    """Wait until there is something to read or something can be sent, and tell whether it is the former."""
    sock: Any = stream.sock
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    readable, _, _ = select.select([sock], [sock], [], stream.gettimeout())
    return bool(readable)


def _exit_code(status: bytes) -> int | None:
    """Return the exit code that a Status tells; None where it tells of something else."""
    try:
        found = json.loads(status)
        if found.get("status") == "Success":
            return 0
        causes = found["details"]["causes"]
        return next((int(each["message"]) for each in causes if each.get("reason") == "ExitCode"), None)
    except (ValueError, KeyError, TypeError):
        return None


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(content.decode(errors="replace").split())[:200]
