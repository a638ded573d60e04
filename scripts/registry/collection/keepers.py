"""Keepers: what holds a registry in its mode. A ConfigMap and a Deployment (deployment.py), or a file and a supervisor (here)."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scripts.registry import lock, mode
from scripts.registry.collection import commands, server
from scripts.registry.collection.places import ThisHost
from scripts.registry.errors import CollectionStopped, Locked, PlaceUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from scripts.registry.collection.places import Place
    from scripts.registry.collection.server import Server

_PAUSE_S = 0.05
_START_S = 60.0


class Keeper(Protocol):
    """What a collection asks of whoever keeps a registry running."""

    place: Place

    def held(self) -> AbstractContextManager[None]:
        """Be the only collection; Locked where another one is at work."""

    def server(self) -> Server:
        """Return the registry's process; CollectionStopped where there is not exactly one."""

    def roll(self, wanted: Mapping[str, str]) -> Server:
        """Give the registry a mode ({} is the usual one) and return its process, the only one, once it has it."""

    def still_held(self) -> None:
        """Raise Locked where another collection has taken over."""

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell those who look after the registry."""


def read_server(place: Place, mark: str = "") -> Server:
    """Return the registry's process at a place."""
    done = place.sh(commands.SERVER, mark, timeout_s=60)
    if done.code:
        raise CollectionStopped(
            f"the registry, {place.name}: its process is not found ({done.said})",
            hint="it must run as `registry serve FILE`, and this user must be allowed to see it",
        )
    return server.parse(done.text)


class ModeFile:
    """A registry on this host whose supervisor runs mode.ENTRYPOINT and starts it again when it ends."""

    def __init__(self, path: Path) -> None:
        self.place: Place = ThisHost(folder=Path("/"))
        self._path = path.absolute()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold a file beside the mode's, which the system lets go of however this process ends."""
        with ExitStack() as holding:
            try:
                holding.enter_context(lock.held(f"{self._path}.lock", wait_s=0, waiting=lambda _line: None))
            except Locked as error:
                raise Locked(
                    f"the registry with {self._path}: another collection is at work",
                    hint="let that one end, then run this",
                ) from error
            yield

    def server(self) -> Server:
        """Return the process that was started with the mode's file."""
        return read_server(self.place, f"{mode.FILE}={self._path}")

    def roll(self, wanted: Mapping[str, str]) -> Server:
        """Write the mode and end the process; its supervisor starts it again."""
        if wanted:
            text = "".join(f"{name}='{value}'\n" for name, value in wanted.items())
            new = self._path.with_suffix(".new")
            new.write_text(text)
            new.replace(self._path)
        else:
            self._path.unlink(missing_ok=True)
        before = self._server_or_none()
        if before and before.until != int(wanted.get(mode.UNTIL, "0")):
            os.kill(int(before.pid), 15)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            found = self._server_or_none()
            if found and found.until == int(wanted.get(mode.UNTIL, "0")):
                return found
            time.sleep(_PAUSE_S)
        raise PlaceUnreachable(
            f"the registry with {self._path}: it did not start again within {_START_S:.0f} s",
            hint="its supervisor must start it again when it ends",
        )

    def still_held(self) -> None:
        """Do nothing: the lock cannot be taken away."""

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Do nothing: whoever started this sees it."""

    def _server_or_none(self) -> Server | None:
        try:
            return self.server()
        except CollectionStopped:
            return None
