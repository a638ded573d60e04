"""Waiting for the API's actions: whoever waits, one request per interval asks about them all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud.errors import ActionFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scripts.toolchain.plugins.hcloud.configuration import Configuration

_IDS_A_REQUEST = 25
_LONGEST_INTERVAL_S = 60.0


class Requests(Protocol):
    """The one call that waiting needs."""

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Send a GET."""


@dataclass(slots=True)
class _Watched:
    """An action that somebody waits for."""

    ended: asyncio.Future[None]
    interval_s: float
    due: float


@dataclass(slots=True)
class ActionWaiter:
    """Polls all running actions together: constant, or doubling from the interval up to a minute for each."""

    api: Requests
    configuration: Configuration
    _watched: dict[int, _Watched] = field(default_factory=dict)
    _poller: asyncio.Task[None] | None = None

    async def wait(self, actions: Iterable[Mapping[str, Any] | None]) -> None:
        """Return when all have succeeded, raise `ActionFailed` for the first that did not; ended ones cost no request."""
        futures = []
        for action in actions:
            if action is None:
                continue
            if action["status"] == "running":
                futures.append(self._watch(action["id"]))
            else:
                raise_if_failed(action)
        if futures:
            await asyncio.gather(*futures)

    def cancel(self, reason: ProviderError) -> None:
        """End every wait with an error."""
        for watched in self._watched.values():
            if not watched.ended.done():
                watched.ended.set_exception(reason)
        self._watched.clear()

    def _watch(self, action_id: int) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        watched = self._watched.get(action_id)
        if watched is None:
            interval = self.configuration.poll_interval_s
            watched = _Watched(ended=loop.create_future(), interval_s=interval, due=loop.time() + interval)
            self._watched[action_id] = watched
        if self._poller is None or self._poller.done():
            self._poller = loop.create_task(self._poll())
        return watched.ended

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while self._watched:
            due = min(watched.due for watched in self._watched.values())
            # Never sleep past one interval: an action that is watched meanwhile may be due earlier.
            pause = min(max(due - loop.time(), 0), self.configuration.poll_interval_s)
            await asyncio.sleep(pause)
            if self._watched and min(watched.due for watched in self._watched.values()) <= loop.time():
                await self._ask(tuple(self._watched))

    async def _ask(self, ids: tuple[int, ...]) -> None:
        for start in range(0, len(ids), _IDS_A_REQUEST):
            some = ids[start : start + _IDS_A_REQUEST]
            try:
                answer = await self.api.get(
                    "/actions", id=list(some), sort=["status", "id"], page=1, per_page=2 * _IDS_A_REQUEST
                )
            except ProviderError as error:
                for action_id in some:
                    self._end(action_id, error)
                continue
            found = {action["id"]: action for action in answer["actions"]}
            for action_id in some:
                self._take(action_id, found.get(action_id))

    def _take(self, action_id: int, action: Mapping[str, Any] | None) -> None:
        if action is None:
            self._end(action_id, ProviderError(f"action {action_id}: actions not found"))
        elif action["status"] == "running":
            self._postpone(action_id)
        else:
            try:
                raise_if_failed(action)
            except ActionFailed as error:
                self._end(action_id, error)
            else:
                self._end(action_id, None)

    def _postpone(self, action_id: int) -> None:
        watched = self._watched.get(action_id)
        if watched is None:
            return
        now = asyncio.get_running_loop().time()
        # One that was only asked about because another was due keeps its interval; its next turn counts from now.
        if self.configuration.poll_function == "exponential" and watched.due <= now:
            watched.interval_s = min(watched.interval_s * 2, _LONGEST_INTERVAL_S)
        watched.due = now + watched.interval_s

    def _end(self, action_id: int, error: ProviderError | None) -> None:
        watched = self._watched.pop(action_id, None)
        if watched is None or watched.ended.done():
            return
        if error is None:
            watched.ended.set_result(None)
        else:
            watched.ended.set_exception(error)


def raise_if_failed(action: Mapping[str, Any]) -> None:
    """Raise for an action that ended in an error."""
    if action["status"] != "error":
        return
    error = action.get("error") or {}
    raise ActionFailed(
        command=action["command"],
        code=error.get("code", "unknown"),
        message=error.get("message", "the API gives no reason"),
        action_id=action["id"],
    )
