"""What every resource does; the provider drives it and knows nothing else about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from scripts.toolchain.plugins.hcloud.errors import CloudError

if TYPE_CHECKING:
    from scripts.toolchain.plugins.hcloud.api import Api
    from scripts.toolchain.plugins.hcloud.schema import Schema

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An object that exists from now on, and the actions that must end before it is usable."""

    object_id: str
    actions: Sequence[Mapping[str, Any] | None] = ()


class Resource(ABC):
    """One kind of object; its methods get plain values, and never an unknown one."""

    schema: ClassVar[Schema]

    def __init__(self, api: Api) -> None:
        self.api = api

    @abstractmethod
    async def create(self, inputs: Values) -> Made:
        """Send the request that makes the object. Once it returns, the object is in the state, whatever follows."""

    async def finish(self, object_id: str, inputs: Values) -> None:  # noqa: B027 - most need nothing more
        """Do what creation needs beyond the first request; its actions have ended by now."""

    async def identify(self, given: str) -> str:
        """Return the id of what a user imports; most kinds are imported by their id alone."""
        return given

    @abstractmethod
    async def read(self, object_id: str, known: Values) -> Values | None:
        """Return the outputs, taking from `known` what the API does not tell; None when the object is gone."""

    @abstractmethod
    async def update(self, object_id: str, *, old: Values, new: Values, changed: frozenset[str]) -> None:
        """Carry out the changes of the named properties, from old outputs to new inputs."""

    @abstractmethod
    async def delete(self, object_id: str, outputs: Values) -> None:
        """Delete the object."""

    async def put_changed(self, path: str, *, new: Values, changed: frozenset[str], fields: Mapping[str, str]) -> None:
        """Send one PUT per changed field, as the vendor's provider does; a field left out is reset."""
        empty: dict[str, Any] = {"labels": {}}
        for name, wire_name in fields.items():
            if name in changed:
                await self.api.put(path, {wire_name: new.get(name, empty.get(name))})

    async def protect(self, path: str, **protection: bool) -> None:
        """Set the protection of an object."""
        await self.api.act(f"{path}/actions/change_protection", protection)

    async def delete_if_there(self, path: str) -> None:
        """Delete an object; that it is gone already is success."""
        try:
            await self.api.actions.wait([(await self.api.delete(path)).get("action")])
        except CloudError as error:
            if error.code != "not_found":
                raise


def given(**fields: Any) -> dict[str, Any]:
    """Make a request body of the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
