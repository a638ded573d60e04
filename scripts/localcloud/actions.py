"""Actions: what takes time, runs beside the calls and ends in success or in an error with a reason.

An action is on record with all it needs, so that a restarted process carries on what it finds running. What each command
does stands in `api/`, beside the call that begins it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from scripts.localcloud.errors import ApiError
from scripts.localcloud.hypervisor import MachineFailed
from scripts.localcloud.records import Action, Failure, Resource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from scripts.localcloud.cloud import Cloud

KEPT_ACTIONS = 2000
log = logging.getLogger(__name__)


class ActionFailed(Exception):
    """An action cannot be carried out."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a command does: `enter` and `settle` change records (in one transaction each), `drive` works on machines.

    Every step may run twice when the process was killed between them.
    """

    seconds: float
    """How long it takes at factor 1, unless `drive` takes longer."""
    enter: Callable[[Cloud, Action], None] | None = None
    drive: Callable[[Cloud, Action], Awaitable[None]] | None = None
    settle: Callable[[Cloud, Action], None] | None = None
    undo: Callable[[Cloud, Action], Awaitable[None]] | None = None
    """Runs after a failure."""
    locks: bool = True
    """Whether its resources take no other action meanwhile."""


@dataclass(slots=True)
class Actions:
    """Begins actions, runs them and knows which are under way."""

    cloud: Cloud
    work: Mapping[str, Work]
    factor: float
    stuck: set[int] = field(default_factory=set)
    """Actions that a fault holds for ever."""
    _begun: list[Action] = field(default_factory=list)
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _since: dict[int, float] = field(default_factory=dict)

    def begin(self, command: str, *resources: Resource, after: Action | None = None, **arguments: Any) -> Action:
        """Put a running action on record; it starts when the call's transaction is through (`launch`)."""
        action = Action(
            id=self.cloud.store.next_id(),
            command=command,
            status="running",
            started=self.cloud.clock.now(),
            resources=resources,
            arguments=arguments,
            after=after.id if after else None,
        )
        self._begun.append(self.cloud.store.put(action))
        return action

    def at_once(self, command: str, *resources: Resource) -> Action:
        """Put an action on record that was done within the call."""
        now = self.cloud.clock.now()
        action = Action(
            id=self.cloud.store.next_id(),
            command=command,
            status="success",
            started=now,
            finished=now,
            resources=resources,
            arguments={},
        )
        return self.cloud.store.put(action)

    def launch(self) -> None:
        """Start what was begun."""
        for action in self._begun:
            self._since[action.id] = time.monotonic()
            self._tasks[action.id] = asyncio.get_running_loop().create_task(self._run(action))
        self._begun.clear()

    def drop(self) -> None:
        """Forget what was begun: the call failed."""
        self._begun.clear()

    def resume(self) -> None:
        """Carry on what an earlier process left running."""
        self._begun += [action for action in self.cloud.store.all(Action) if action.status == "running"]
        self.launch()

    def running(self, resource: Resource) -> tuple[Action, ...]:
        """Give the actions under way on a resource."""
        ids = [*self._tasks, *(action.id for action in self._begun)]
        found = (self.cloud.store.get(Action, number) for number in dict.fromkeys(ids))
        return tuple(
            action for action in found if action and action.status == "running" and resource in action.resources
        )

    def locks(self, resource: Resource, *, but_stuck: bool = False) -> bool:
        """Tell whether a resource is locked by an action under way."""
        return any(
            self.work[action.command].locks and not (but_stuck and action.id in self.stuck)
            for action in self.running(resource)
        )

    def progress(self, action: Action) -> int:
        """Tell how far an action is, in percent; it slows down when the work takes longer than thought."""
        if action.status != "running":
            return 100
        expected = max(0.1, self.work[action.command].seconds * self.factor)
        elapsed = time.monotonic() - self._since.get(action.id, time.monotonic())
        return min(99, int(100 * (1 - 0.25 ** (elapsed / expected))))

    def abandon(self, resource: Resource, reason: str) -> None:
        """End the stuck actions of a resource in error."""
        for action in self.running(resource):
            if action.id in self.stuck:
                self.stuck.discard(action.id)
                self._tasks[action.id].cancel()
                self._finish(action, Failure(code="action_failed", message=reason))

    async def close(self) -> None:
        """Stop working; what is under way stays on record as running."""
        while tasks := [task for task in self._tasks.values() if not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, action: Action) -> None:
        work = self.work[action.command]
        try:
            await self._carry_out(action, work)
        except (MachineFailed, ActionFailed, ApiError) as exc:
            await self._fail(action, work, getattr(exc, "code", "action_failed"), str(exc))
        except Exception as exc:
            log.exception("action %s %s", action.id, action.command)
            await self._fail(action, work, "server_error", f"{type(exc).__name__}: {exc}")
        finally:
            self._tasks.pop(action.id, None)
            self._since.pop(action.id, None)

    async def _carry_out(self, action: Action, work: Work) -> None:
        store = self.cloud.store
        if action.after in self._tasks:
            await asyncio.wait([self._tasks[action.after]])
        before = store.get(Action, action.after) if action.after else None
        if before and before.status != "success":
            raise ActionFailed("action_failed", f"{before.command} did not succeed")
        if fault := self.cloud.faults.action(action.command):
            raise ActionFailed(fault.code, fault.message)
        begun = time.monotonic()
        with store.transaction():
            if work.enter:
                work.enter(self.cloud, action)
        if work.drive:
            await work.drive(self.cloud, action)
        await asyncio.sleep(max(0.0, work.seconds * self.factor - (time.monotonic() - begun)))
        with store.transaction():
            if work.settle:
                work.settle(self.cloud, action)
            self._finish(action, None)

    async def _fail(self, action: Action, work: Work, code: str, message: str) -> None:
        try:
            if work.undo:
                await work.undo(self.cloud, action)
        except MachineFailed as exc:
            message = f"{message}; then: {exc}"
        with self.cloud.store.transaction():
            self._finish(action, Failure(code=code, message=message))

    def _finish(self, action: Action, failure: Failure | None) -> None:
        finished = replace(
            action, status="error" if failure else "success", finished=self.cloud.clock.now(), error=failure
        )
        self.cloud.store.put(finished)
        kept = self.cloud.store.all(Action)
        for old in kept[: max(0, len(kept) - KEPT_ACTIONS)]:
            if old.status != "running":
                self.cloud.store.remove(old)
