"""What every call passes before a handler sees it: history, ordered delays, token, rate limit, ordered errors."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scripts.localcloud.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from scripts.localcloud.cloud import Cloud

PREFIX = "/v1"


class Gate:
    """Admits calls or refuses them, and puts them on record with the status they got."""

    def __init__(self, app: ASGIApp, cloud: Cloud) -> None:
        self.app = app
        self.cloud = cloud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one call."""
        cloud, begun, status = self.cloud, time.perf_counter(), 500
        path = scope["path"].removeprefix(PREFIX)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers()]
            await send(message)

        try:
            await self._admit(path, scope)
            await self.app(scope, receive, answer)
        except ApiError as exc:
            await refusal(exc)(scope, receive, answer)
        finally:
            cloud.history.add(
                time=cloud.clock.now(),
                method=scope["method"],
                path=path,
                query=scope["query_string"].decode("latin-1"),
                status=status,
                duration_ms=(time.perf_counter() - begun) * 1000,
            )

    async def _admit(self, path: str, scope: Scope) -> None:
        cloud, method = self.cloud, scope["method"]
        if delay := cloud.faults.delay(method, path):
            await asyncio.sleep(delay)
        found = re.fullmatch(r"Bearer (\S+)", Request(scope).headers.get("authorization", ""))
        token = found[1].encode() if found else b""
        if not any(hmac.compare_digest(token, known.encode()) for known in cloud.settings.tokens):
            raise ApiError("unauthorized", "unable to authenticate")
        if not cloud.rate_limit.take(cloud.clock.now().timestamp()):
            raise ApiError("rate_limit_exceeded", f"limit of {cloud.rate_limit.limit} requests per hour reached")
        if error := cloud.faults.error(method, path):
            raise error

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = {"X-Correlation-Id": uuid.uuid4().hex, **self.cloud.rate_limit.headers()}
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def refusal(error: ApiError) -> Response:
    """Write an error."""
    return json_response(error.status, error.body())


def json_response(status: int, body: Mapping[str, Any] | None) -> Response:
    """Write a body, or none."""
    if body is None:
        return Response(status_code=status)
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")
