"""A cloud that answers from a script and remembers what it was asked."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from scripts.toolchain.plugins.errors import Cancelled
from scripts.toolchain.plugins.hcloud.api import Api
from scripts.toolchain.plugins.hcloud.configuration import Configuration
from scripts.toolchain.plugins.hcloud.errors import CloudError

NOT_FOUND = CloudError(code="not_found", message="not found")
SUCCESS = {"id": 1, "command": "any", "status": "success", "error": None}


@dataclass
class Script:
    """Answers by "METHOD path"; a list is used up answer by answer, an exception is raised."""

    answers: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[str, Any]] = field(default_factory=list)

    def requests(self) -> list[str]:
        """Return what was asked, in order."""
        return [request for request, _ in self.history]

    def bodies(self, request: str) -> list[Any]:
        """Return what was sent with one request, in order."""
        return [body for sent, body in self.history if sent == request]


class ScriptedApi(Api):
    """The real door with the wire cut: everything above the request runs as it does in the plugin."""

    def __init__(self, script: Script) -> None:
        super().__init__(Configuration(token="t" * 64, poll_function="constant", poll_interval_s=0.001))
        self.script = script

    def warm_up(self) -> None:
        """Import nothing."""

    async def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if self._cancelled:
            raise Cancelled("cancelled")
        request = f"{method} {path}"
        self.script.history.append((request, copy.deepcopy(arguments.get("json") or arguments.get("params"))))
        assert request in self.script.answers, f"unexpected request: {request}"
        answer = self.script.answers[request]
        if isinstance(answer, list):
            assert answer, f"asked once too often: {request}"
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return copy.deepcopy(answer)


@pytest.fixture(name="script")
def _script() -> Script:
    return Script()


@pytest.fixture(name="api")
def _api(script) -> ScriptedApi:
    return ScriptedApi(script)


@pytest.fixture(name="no_pauses")
def _no_pauses(monkeypatch):
    """Repeat without waiting."""
    monkeypatch.setattr("scripts.toolchain.plugins.hcloud.api._RETRY_S", 0.0)


@pytest.fixture(name="not_found")
def _not_found() -> CloudError:
    return NOT_FOUND


@pytest.fixture(name="success")
def _success() -> dict[str, Any]:
    return SUCCESS


@pytest.fixture(name="server")
def _server() -> dict[str, Any]:
    """Return a server as the API tells it."""
    return {
        "id": 42,
        "name": "builder",
        "status": "running",
        "server_type": {"id": 1, "name": "cax21", "architecture": "arm"},
        "location": {"id": 1, "name": "fsn1"},
        "image": {"id": 7, "name": "debian-12"},
        "public_net": {
            "ipv4": {"id": 5, "ip": "198.51.100.17"},
            "ipv6": {"id": 6, "ip": "2001:db8:51:7::/64"},
            "firewalls": [{"id": 3, "status": "applied"}],
        },
        "private_net": [],
        "labels": {},
        "protection": {"delete": False, "rebuild": False},
        "backup_window": None,
        "primary_disk_size": 80,
        "iso": None,
        "rescue_enabled": False,
        "placement_group": None,
    }
