"""Pages and sorting of lists. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from scripts.localcloud.errors import invalid_input

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

DEFAULT_PER_PAGE = 25
MAX_PER_PAGE = 50


def paginate(items: Sequence[T], *, page: int, per_page: int) -> tuple[Sequence[T], dict[str, Any]]:
    """Cut one page out of a list and describe it as `meta.pagination`; more than 50 a page are never given."""
    per_page = min(per_page, MAX_PER_PAGE)
    last_page = max(1, -(-len(items) // per_page))
    pagination = {
        "page": page,
        "per_page": per_page,
        "previous_page": page - 1 if page > 1 else None,
        "next_page": page + 1 if page < last_page else None,
        "last_page": last_page,
        "total_entries": len(items),
    }
    return items[(page - 1) * per_page : page * per_page], {"pagination": pagination}


def sort_by(items: Sequence[T], keys: Sequence[str], *, allowed: Sequence[str]) -> list[T]:
    """Sort by `field`, `field:asc` or `field:desc`, the first key counting most; by id when there is none."""
    ordered = sorted(items, key=_key("id"))
    for key in reversed(keys):
        field, _, direction = key.partition(":")
        if field not in allowed or direction not in ("", "asc", "desc"):
            raise invalid_input(("sort", f"cannot sort by '{key}' (one of {', '.join(allowed)}, with :asc or :desc)"))
        ordered.sort(key=_key(field), reverse=direction == "desc")
    return ordered


def _key(field: str) -> Any:
    def value(item: object) -> tuple[bool, Any]:
        found = getattr(item, field)
        return found is None, found

    return value
