"""One call and its reply, and what every resource needs of them: bodies, lists, labels, actions in wire form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from scripts.localcloud.errors import ApiError, field_problems, invalid_input, not_found, not_unique
from scripts.localcloud.labels import InvalidSelector, label_problems, parse_selector
from scripts.localcloud.paging import DEFAULT_PER_PAGE, paginate, sort_by

if TYPE_CHECKING:
    from datetime import datetime

    from scripts.localcloud.cloud import Cloud
    from scripts.localcloud.records import Action

T = TypeVar("T")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`(?: - at `(?P<path>[^`]+)`)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request, apart from HTTP."""

    path: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    body: bytes

    def id(self, name: str = "id") -> int:
        """Give a number out of the address."""
        text = self.path[name]
        if not text.isdecimal():
            raise not_found("resource", text)
        return int(text)

    def all(self, name: str) -> tuple[str, ...]:
        """Give all values of a query parameter that may be repeated."""
        return tuple(value for key, value in self.query if key == name and value)

    def first(self, name: str) -> str | None:
        """Give the value of a query parameter."""
        return next(iter(self.all(name)), None)

    def number(self, name: str, default: int) -> int:
        """Give a query parameter that counts something."""
        text = self.first(name) or str(default)
        if not text.isdecimal() or int(text) < 1:
            raise invalid_input((name, f"'{text}' is not a positive number"))
        return int(text)

    def flag(self, name: str) -> bool:
        """Give a query parameter that is true or false."""
        return (self.first(name) or "").lower() in ("true", "1")

    def decode(self, kind: type[T]) -> T:
        """Check the body against its type."""
        try:
            return msgspec.json.decode(self.body or b"{}", type=kind)
        except msgspec.ValidationError as exc:
            raise _invalid(str(exc)) from exc
        except msgspec.DecodeError as exc:
            raise ApiError("json_error", "invalid JSON in request body") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered; no body means 204."""

    status: int = 200
    body: Mapping[str, Any] | None = None


Handler = Callable[["Cloud", Call], Reply]
Routes = Mapping[str, Handler]
"""`"METHOD /path/{id}"` → what answers it."""


class Named(Protocol):
    """A record as lists see it."""

    @property
    def id(self) -> int:
        """The number."""

    @property
    def name(self) -> str | None:
        """The name, unique in its kind."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels."""


N = TypeVar("N", bound=Named)


def ok(**body: Any) -> Reply:
    """Answer 200."""
    return Reply(body=body)


def created(**body: Any) -> Reply:
    """Answer 201."""
    return Reply(status=201, body=body)


def no_content() -> Reply:
    """Answer 204."""
    return Reply(status=204)


def timestamp(moment: datetime) -> str:
    """Write a moment as the API does, in whole seconds."""
    return moment.isoformat(timespec="seconds")


def page_of(call: Call, noun: str, items: Sequence[T], render: Callable[[T], Any], sortable: Sequence[str]) -> Reply:
    """Answer with one page of a list."""
    ordered = sort_by(items, call.all("sort"), allowed=sortable)
    page, per_page = call.number("page", 1), call.number("per_page", DEFAULT_PER_PAGE)
    part, meta = paginate(ordered, page=page, per_page=per_page)
    return Reply(body={noun: [render(item) for item in part], "meta": meta})


def listing(
    call: Call,
    noun: str,
    items: Sequence[N],
    render: Callable[[N], Any],
    sortable: Sequence[str] = ("id", "name", "created"),
) -> Reply:
    """Answer with one page of the records that the name, the label selector and the status ask for."""
    name, selector, status = call.first("name"), call.first("label_selector"), call.all("status")
    if name is not None:
        items = [item for item in items if item.name == name]
    if selector is not None:
        try:
            requirements = parse_selector(selector)
        except InvalidSelector as exc:
            raise invalid_input(("label_selector", str(exc))) from exc
        items = [item for item in items if all(each.holds(item.labels) for each in requirements)]
    if status:
        items = [item for item in items if getattr(item, "status", None) in status]
    return page_of(call, noun, items, render, sortable)


def check_labels(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """Refuse labels with a wrong syntax."""
    if problems := label_problems(labels or {}):
        raise invalid_input(*(("labels", problem) for problem in problems))
    return labels or {}


def check_name(noun: str, name: str, others: Sequence[Named], *, but: int | None = None) -> None:
    """Refuse an empty name or one that another resource of the kind has."""
    if not name.strip() or len(name) > 128:
        raise invalid_input(("name", "must be between 1 and 128 characters"))
    if any(other.name == name and other.id != but for other in others):
        raise not_unique(noun, "name", f"{noun} name '{name}' is already used")


def action_json(cloud: Cloud, action: Action) -> dict[str, Any]:
    """Write an action in wire form."""
    error = {"code": action.error.code, "message": action.error.message} if action.error else None
    return {
        "id": action.id,
        "command": action.command,
        "status": action.status,
        "progress": cloud.actions.progress(action),
        "started": timestamp(action.started),
        "finished": timestamp(action.finished) if action.finished else None,
        "resources": [{"id": resource.id, "type": resource.type} for resource in action.resources],
        "error": error,
    }


def begun(cloud: Cloud, action: Action) -> Reply:
    """Answer with an action that was begun."""
    return created(action=action_json(cloud, action))


def _invalid(complaint: str) -> ApiError:
    if missing := _MISSING.fullmatch(complaint):
        path = f"{missing['path'] or '$'}.{missing['name']}"
        return invalid_input(*field_problems(path, "Missing data for required field."))
    message, _, path = complaint.partition(" - at ")
    return invalid_input(*field_problems(path.strip("`"), message))
