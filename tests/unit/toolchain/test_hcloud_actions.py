"""Waiting for actions together."""

from __future__ import annotations

import asyncio

import pytest

from scripts.toolchain.plugins.errors import Cancelled, ProviderError
from scripts.toolchain.plugins.hcloud.actions import ActionWaiter
from scripts.toolchain.plugins.hcloud.configuration import Configuration
from scripts.toolchain.plugins.hcloud.errors import ActionFailed, CloudError


class Cloud:
    """Ends each action at its own poll; counts the requests."""

    def __init__(self, ends_at=None, *, failing=(), missing=(), error=None):
        self.ends_at = ends_at or {}
        self.failing, self.missing, self.error = failing, missing, error
        self.asked = []

    async def get(self, path, **params):
        """Answer GET /actions."""
        assert path == "/actions"
        self.asked.append(params["id"])
        if self.error:
            raise self.error
        return {"actions": [self._action(action) for action in params["id"] if action not in self.missing]}

    def _action(self, action_id):
        running = len(self.asked) < self.ends_at.get(action_id, 1)
        if running:
            return {"id": action_id, "command": "create_server", "status": "running", "error": None}
        if action_id in self.failing:
            error = {"code": "server_error", "message": "the machine did not boot"}
            return {"id": action_id, "command": "create_server", "status": "error", "error": error}
        return {"id": action_id, "command": "create_server", "status": "success", "error": None}


def _running(*ids):
    return [{"id": action_id, "command": "create_server", "status": "running"} for action_id in ids]


def _waiter(cloud, **settings):
    defaults = {"poll_function": "constant", "poll_interval_s": 0.01}
    return ActionWaiter(api=cloud, configuration=Configuration(token="t" * 64, **{**defaults, **settings}))


def test_ended_actions_are_never_polled():
    """An action that was answered as a success costs no request."""
    cloud = Cloud()

    asyncio.run(_waiter(cloud).wait([None, {"id": 1, "command": "x", "status": "success"}]))

    assert cloud.asked == []


def test_concurrent_waits_share_one_request_an_interval():
    """Four creations at once are asked about together."""
    cloud = Cloud({1: 3, 2: 3, 3: 3, 4: 3})

    async def four():
        one = _waiter(cloud)
        await asyncio.gather(*(one.wait(_running(action)) for action in (1, 2, 3, 4)))

    asyncio.run(four())

    assert cloud.asked == [[1, 2, 3, 4]] * 3


def test_ids_are_asked_about_25_at_a_time():
    """More actions than fit take another request."""
    cloud = Cloud()

    asyncio.run(_waiter(cloud).wait(_running(*range(1, 61))))

    assert [len(ids) for ids in cloud.asked] == [25, 25, 10]


def test_failed_action_raises_its_reason():
    """The reason that the API gives is what the user reads; the others are not affected."""
    cloud = Cloud(failing=(2,))

    async def both():
        one = _waiter(cloud)
        return await asyncio.gather(one.wait(_running(1)), one.wait(_running(2)), return_exceptions=True)

    first, second = asyncio.run(both())
    assert first is None
    assert isinstance(second, ActionFailed)
    assert str(second) == "action create_server failed: the machine did not boot (server_error, 2)"


def test_action_that_is_not_in_the_answer_is_an_error():
    """An emulator or API that forgets an action does not make us wait for ever."""
    with pytest.raises(ProviderError, match="action 2: actions not found"):
        asyncio.run(_waiter(Cloud(missing=(2,))).wait(_running(1, 2)))


def test_refused_poll_ends_the_waits():
    """When the API refuses to tell, every wait ends with its error."""
    error = CloudError(code="unauthorized", message="unable to authenticate", correlation_id="abc")

    with pytest.raises(CloudError, match=r"^unable to authenticate \(unauthorized, abc\)$"):
        asyncio.run(_waiter(Cloud(error=error)).wait(_running(1)))


def test_exponential_polling_doubles_the_pause(monkeypatch):
    """Each poll waits twice as long as the one before."""
    cloud = Cloud({1: 4})
    now = [0.0]
    moments = []

    async def later():
        loop = asyncio.get_running_loop()
        real_sleep = asyncio.sleep

        async def sleep(seconds):
            now[0] += seconds
            await real_sleep(0)

        get = cloud.get

        async def timed(path, **params):
            moments.append(round(now[0], 3))
            return await get(path, **params)

        monkeypatch.setattr(loop, "time", lambda: now[0])
        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(cloud, "get", timed)
        await _waiter(cloud, poll_function="exponential", poll_interval_s=0.5).wait(_running(1))

    asyncio.run(later())

    assert moments == [0.5, 1.5, 3.5, 7.5]


def test_cancel_ends_every_wait():
    """A cancelled wait does not hang until the action ends."""

    async def cancelled():
        one = _waiter(Cloud({1: 1000}), poll_interval_s=5)
        wait = asyncio.create_task(one.wait(_running(1)))
        await asyncio.sleep(0)
        one.cancel(Cancelled("cancelled"))
        await wait

    with pytest.raises(Cancelled):
        asyncio.run(cancelled())
