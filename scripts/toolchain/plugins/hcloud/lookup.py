"""Finding an object by what a program gives: an id, or else a name."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from scripts.toolchain.plugins.hcloud.api import Api


async def by_id_or_name(api: Api, path: str, singular: str, plural: str, given: str, **params: Any) -> Any:
    """Return the object with this id, else with this name, else None; an empty name is nobody's, though the API lists all."""
    if not given:
        return None
    if given.isdigit():
        found = await api.find(f"{path}/{given}", singular)
        if found is not None:
            return found
    answer = await api.get(path, name=given, **params)
    return next(iter(answer[plural]), None)


async def identify(find: Callable[[str], Awaitable[Any]], given: str) -> str:
    """Return the id of what is given by its id or name; what nobody has stays as it is given."""
    return given if given.isdigit() else str((await find(given) or {}).get("id", given))


async def server_type(api: Api, given: str) -> dict[str, Any]:
    """Return a server type that can still be ordered."""
    found: dict[str, Any] | None = await by_id_or_name(api, "/server_types", "server_type", "server_types", given)
    if found is None:
        raise ProviderError(f"server type {given} not found")
    ends = (found.get("deprecation") or {}).get("unavailable_after")
    if ends and datetime.fromisoformat(ends) < datetime.now(UTC):
        raise ProviderError(f"server type {given} is deprecated and can no longer be ordered (since {ends})")
    return found


async def image(api: Api, given: str, architecture: str, *, allow_deprecated: bool) -> dict[str, Any]:
    """Return an image for an architecture; a deprecated one is found, and refused unless it is allowed."""
    params = {"architecture": architecture, "include_deprecated": "true"}
    found: dict[str, Any] | None = await by_id_or_name(api, "/images", "image", "images", given, **params)
    if found is None:
        raise ProviderError(f"image {given} for architecture {architecture} not found")
    deprecation = found.get("deprecation")
    if deprecation and not allow_deprecated:
        raise ProviderError(
            f"image {given} is deprecated, available until {deprecation.get('unavailable_after')}; "
            "set allowDeprecatedImages to use it all the same"
        )
    return found


async def ssh_key_ids(api: Api, given: Iterable[str]) -> Sequence[int]:
    """Return the ids of SSH keys."""

    async def find(key: str) -> int:
        found = await by_id_or_name(api, "/ssh_keys", "ssh_key", "ssh_keys", key)
        if found is None:
            raise ProviderError(f"SSH key not found: {key}")
        return int(found["id"])

    return await asyncio.gather(*map(find, given))


async def placement_group(api: Api, group_id: int | None) -> int | None:
    """Return the id of a placement group once it is known to exist."""
    if not group_id:
        return None
    if await api.find(f"/placement_groups/{group_id}", "placement_group") is None:
        raise ProviderError(f"placement group not found: {group_id}")
    return group_id
