"""The door to the API server: the official client, whose calls block, run on threads."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.errors import Cancelled, InvalidConfiguration
from scripts.toolchain.plugins.kubernetes.configuration import is_content
from scripts.toolchain.plugins.kubernetes.errors import ClusterUnreachable, FieldConflict, Refused, UnknownKind

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from scripts.toolchain.plugins.kubernetes.configuration import Configuration
    from scripts.toolchain.plugins.kubernetes.kinds import Kind

_THREADS = 16
_CONNECT_S, _ANSWER_S = 10.0, 60.0
_BUSY = frozenset({429, 503, 504})
_TRIES, _PAUSE_S = 4, 1.0
_HINT = 'annotate the object pulumi.com/patchForce: "true" to take them over'


class Api:
    """Requests of one configured provider; safe to use from many coroutines at once.

    A request is repeated, after a second each time, while the server says that it is busy (429, 503, 504): all requests
    here may be. The client repeats what found no connection.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="kubernetes")
        self._client = self._threads.submit(self._connect)  # while the engine is still busy with the program
        self._cancelled = False

    def cancel(self) -> None:
        """Refuse further requests, and with that end every wait."""
        self._cancelled = True

    async def namespace(self) -> str:
        """Return the namespace of objects that name none: the provider's, the context's, or default."""
        if self.configuration.namespace:
            return self.configuration.namespace
        if not self.configuration.is_known:
            return "default"
        _, namespace = await asyncio.wrap_future(self._client)
        return namespace

    async def find(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any] | None:
        """Get one object; None when there is none of that name."""
        try:
            return await self._request("GET", kind.path(namespace, name), kind)
        except Refused as error:
            if error.code == 404 and not isinstance(error, UnknownKind):
                return None
            raise

    async def items(self, kind: Kind, namespace: str | None, **query: str) -> list[dict[str, Any]]:
        """List objects."""
        answer = await self._request("GET", kind.path(namespace, **query), kind)
        return list(answer.get("items") or ())

    async def apply(
        self, kind: Kind, body: dict[str, Any], *, manager: str, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Apply an object on the server's side: make it, or change the fields that are ours; unknown ones are refused."""
        metadata = body["metadata"]
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        path = kind.path(metadata.get("namespace") if kind.namespaced else None, metadata["name"], **query)
        return await self._request("PATCH", path, kind, body)

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, propagation: str) -> bool:
        """Delete an object and tell whether there was one; it may be there for a while yet."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            await self._request("DELETE", kind.path(namespace, name), kind, options)
        except Refused as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _request(self, method: str, path: str, kind: Kind, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._cancelled:
            raise Cancelled("cancelled")
        if not self.configuration.is_known:
            raise ClusterUnreachable("the cluster is not known yet")
        client, _ = await asyncio.wrap_future(self._client)
        loop = asyncio.get_running_loop()
        status, answer = await loop.run_in_executor(self._threads, lambda: self._send(client, method, path, body))
        if status >= 400:
            raise _refusal(status, answer, kind, path)
        parsed: dict[str, Any] = json.loads(answer)
        return parsed

    def _send(self, client: ApiClient, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        import urllib3  # noqa: PLC0415 - with the client below

        content = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        call = client.param_serialize(
            method,
            path,
            header_params={"Accept": "application/json", **({"Content-Type": content} if body else {})},
            auth_settings=["BearerToken"],
        )
        method, url, headers, _, _ = call
        sent = json.dumps(body) if method == "PATCH" else body
        for tries_left in reversed(range(_TRIES)):
            try:
                response = client.call_api(method, url, headers, sent, _request_timeout=(_CONNECT_S, _ANSWER_S))
                answer: bytes = response.read()  # type: ignore[no-untyped-call]
            except (urllib3.exceptions.HTTPError, OSError) as exc:
                raise ClusterUnreachable(
                    f"{client.configuration.host}: no answer from the cluster ({_reason(exc)}); check kubeconfig, context "
                    "and the network"
                ) from exc
            if response.status not in _BUSY or not tries_left:
                break
            time.sleep(_PAUSE_S)
        return response.status, answer

    def _connect(self) -> tuple[ApiClient, str]:
        """Read the kubeconfig; the client's import takes a second."""
        import kubernetes.client  # noqa: PLC0415
        import yaml  # noqa: PLC0415
        from kubernetes.config import ConfigException, kube_config  # noqa: PLC0415

        source: dict[str, Any]
        given, context = self.configuration.kubeconfig, self.configuration.context or None
        settings = kubernetes.client.Configuration()
        settings.retries = 2
        try:
            if is_content(given):
                source = {"config_dict": yaml.safe_load(given)}
            else:
                path = str(Path(given).expanduser()) if given else kube_config.KUBE_CONFIG_DEFAULT_LOCATION
                source = {"filename": path}
            # The public functions make a client at once, and tell neither context nor namespace.
            loader = kube_config._get_kube_config_loader(**source, active_context=context)  # type: ignore[no-untyped-call]  # noqa: SLF001
            loader.load_and_set(settings)
        except (ConfigException, yaml.YAMLError, OSError, TypeError, AttributeError) as exc:
            where = "kubeconfig" if is_content(given) else given or "kubeconfig"
            raise InvalidConfiguration(
                f"{where}: {_first_line(exc)}; give a kubeconfig and one of its contexts"
            ) from exc
        namespace = (loader.current_context.get("context") or {}).get("namespace") or "default"
        return kubernetes.client.ApiClient(settings), namespace


def _refusal(status: int, answer: bytes, kind: Kind, path: str) -> Refused:
    """Turn the server's Status object, or whatever else stands in front of it, into an error."""
    try:
        told = json.loads(answer)
    except ValueError:
        told = {}
    message, reason = told.get("message") or answer.decode(errors="replace").strip()[:200], told.get("reason") or ""
    message = " ".join(message.split())  # several conflicts are told in lines
    details = told.get("details") or {}
    if status == 404 and not details.get("name"):
        return UnknownKind(
            f"the cluster has no {kind.name} in version {kind.api_version}", code=status, reason=reason or "NotFound"
        )
    if status == 409 and any(cause.get("reason") == "FieldManagerConflict" for cause in details.get("causes") or ()):
        name = path.partition("?")[0].rpartition("/")[2]
        return FieldConflict(f"{kind.name} {name}: {message}; {_HINT}", code=status, reason=reason)
    return Refused(message, code=status, reason=reason)


def _first_line(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0]


def _reason(exc: BaseException) -> str:
    """Return the innermost cause in a few words: urllib3 wraps the one line that matters several times."""
    inner: BaseException = exc
    while (cause := getattr(inner, "reason", None) or inner.__cause__ or inner.__context__) is not None:
        if not isinstance(cause, BaseException):
            break
        inner = cause
    return (
        inner.strerror.lower() if isinstance(inner, OSError) and inner.strerror else str(inner) or type(inner).__name__
    )
