"""The door to the API: the official client, whose calls block, run on threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from scripts.toolchain.plugins.errors import Cancelled
from scripts.toolchain.plugins.hcloud.actions import ActionWaiter
from scripts.toolchain.plugins.hcloud.errors import CloudError, CloudUnreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    import hcloud

    from scripts.toolchain.plugins.hcloud.configuration import Configuration

T = TypeVar("T")

_THREADS = 32
_CONNECT_S, _ANSWER_S = 10.0, 120.0
_RETRY_S, _LONGEST_RETRY_S = 1.0, 10.0


class Api:
    """Requests of one configured provider; safe to use from many coroutines at once.

    The official client repeats a request up to five times, with exponential pauses and jitter, on the codes `conflict`,
    `rate_limit_exceeded`, `bad_gateway` and `timeout`, on bare 502 and 504, and on network timeouts; on nothing else.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.actions = ActionWaiter(api=self, configuration=configuration)
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="hcloud")
        self._local = threading.local()
        self._cancelled = False

    def warm_up(self) -> None:
        """Import the client while the engine is still busy with the program."""
        self._threads.submit(self._client)

    def cancel(self) -> None:
        """End every wait and refuse further requests; what is on its way to the API is still answered."""
        self._cancelled = True
        self.actions.cancel(Cancelled("cancelled"))

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Send a GET; parameters that are None are left out."""
        return await self._request("GET", path, params={k: v for k, v in params.items() if v is not None})

    async def get_all(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """Send GETs for every page of a list."""
        items: list[dict[str, Any]] = []
        page: int | None = 1
        while page is not None:
            answer = await self.get(path, **params, page=page, per_page=50)
            items += answer[key]
            page = ((answer.get("meta") or {}).get("pagination") or {}).get("next_page")
        return items

    async def find(self, path: str, key: str) -> dict[str, Any] | None:
        """Send a GET for one object; None when there is no such object."""
        try:
            found: dict[str, Any] = (await self.get(path))[key]
        except CloudError as error:
            if error.code == "not_found":
                return None
            raise
        return found

    async def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a POST."""
        return await self._request("POST", path, json=body)

    async def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a PUT."""
        return await self._request("PUT", path, json=body)

    async def delete(self, path: str) -> dict[str, Any]:
        """Send a DELETE."""
        return await self._request("DELETE", path)

    async def act(self, path: str, body: dict[str, Any] | None = None) -> None:
        """Send a POST and wait for the actions that it begins."""
        await self.actions.wait(begun(await self.post(path, body)))

    async def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if self._cancelled:
            raise Cancelled("cancelled")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self._send(method, path, **arguments))

    def _send(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        import hcloud  # noqa: PLC0415 - a tenth of a second that a start without calls need not pay
        import requests  # noqa: PLC0415

        try:
            return self._client().request(method, path, **arguments)
        except hcloud.APIException as exc:
            if isinstance(exc.code, int):  # an HTTP status, without an error of the API's own
                raise CloudUnreachable(
                    f"{self.configuration.endpoint}: no answer of the Hetzner Cloud API ({exc.code} {exc.message}); "
                    "check hcloud:endpoint and the network"
                ) from exc
            raise CloudError(code=exc.code, message=exc.message, correlation_id=exc.correlation_id) from exc
        except requests.RequestException as exc:
            raise CloudUnreachable(
                f"{self.configuration.endpoint}: no answer ({_reason(exc)}); check hcloud:endpoint and the network"
            ) from exc

    def _client(self) -> hcloud.Client:
        """Return this thread's client: its connection is not meant to be shared."""
        import hcloud  # noqa: PLC0415

        client: hcloud.Client | None = getattr(self._local, "client", None)
        if client is None:
            client = hcloud.Client(
                token=self.configuration.token,
                api_endpoint=self.configuration.endpoint,
                application_name="slipway-pulumi-resource-hcloud",
                timeout=(_CONNECT_S, _ANSWER_S),
            )
            self._local.client = client
        return client


def begun(answer: dict[str, Any]) -> list[dict[str, Any] | None]:
    """Return the actions that an answer speaks of, wherever the API puts them."""
    return [answer.get("action"), *(answer.get("next_actions") or ()), *(answer.get("actions") or ())]


async def retrying(tries: int, codes: Collection[str], call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while the API answers with one of `codes`, doubling the pause from one second to ten."""
    pause = _RETRY_S
    for _ in range(tries - 1):
        try:
            return await call()
        except CloudError as error:
            if error.code not in codes:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_RETRY_S)
    return await call()


def _reason(exc: BaseException) -> str:
    """Return the innermost cause in a few words: requests wraps the one line that matters several times."""
    inner = exc
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return inner.strerror.lower() if isinstance(inner, OSError) and inner.strerror else type(exc).__name__
