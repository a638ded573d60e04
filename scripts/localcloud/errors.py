"""The API's refusals as values: one constructor per code, written out at one place (`api/__init__.py`).

Codes, statuses and messages are the vendor's (fleet facts, and the answers seen in public bug reports); a client decides by code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STATUS = {
    "json_error": 400,
    "token_readonly": 401,
    "unauthorized": 401,
    "forbidden": 403,
    "maintenance": 403,
    "resource_limit_exceeded": 403,
    "not_found": 404,
    "firewall_resource_not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "uniqueness_error": 409,
    "deprecated_api_endpoint": 410,
    "primary_ip_version_mismatch": 412,
    "resource_unavailable": 412,
    "locked": 423,
    "protected": 423,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "bad_gateway": 502,
    "unavailable": 503,
    "timeout": 504,
}
OTHERWISE = 422
"""The status of every other code: the input was understood and cannot be acted upon."""


class ApiError(Exception):
    """A refused call: code, message and details go to the client as they are."""

    def __init__(
        self, code: str, message: str, *, details: Mapping[str, Any] | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status or STATUS.get(code, OTHERWISE)

    def body(self) -> dict[str, Any]:
        """Give the error envelope."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


def invalid_input(*problems: tuple[str, str]) -> ApiError:
    """Refuse input; each problem is (field, message), and a client shows them per field."""
    fields = [{"name": name, "messages": [message]} for name, message in problems]
    names = ", ".join(f"'{name}'" for name, _ in problems)
    noun = "field" if len(problems) == 1 else "fields"
    return ApiError("invalid_input", f"invalid input in {noun} {names}", details={"fields": fields})


def unknown_reference(noun: str, name: object) -> ApiError:
    """Refuse a body that names something which is not there."""
    return ApiError("invalid_input", f"{noun} '{name}' not found", details={"fields": []})


def not_found(noun: str, name: object) -> ApiError:
    """Answer for an address without a resource behind it."""
    return ApiError("not_found", f"{noun} with ID '{name}' not found")


def not_unique(noun: str, field: str, message: str) -> ApiError:
    """Refuse a second resource with the same name, fingerprint, …"""
    fields = [{"name": field, "messages": [message]}]
    return ApiError("uniqueness_error", f"{noun}: {message}", details={"fields": fields})


def locked(noun: str) -> ApiError:
    """Refuse while another action holds the resource."""
    return ApiError("locked", f"{noun} is locked")


def protected(noun: str, what: str) -> ApiError:
    """Refuse what protection forbids."""
    return ApiError("protected", f"{noun} {what} is protected")


def in_use(message: str) -> ApiError:
    """Refuse to delete what others hold."""
    return ApiError("resource_in_use", message)


def limit_exceeded(noun: str, limit: int) -> ApiError:
    """Refuse one resource more than the project may have."""
    details = {"limits": [{"name": noun}]}
    return ApiError("resource_limit_exceeded", f"{noun} limit exceeded ({limit})", details=details)


def unsupported(what: str) -> ApiError:
    """Say plainly that the local cloud does not do this."""
    return ApiError("unsupported_error", f"the local cloud has no {what}")


def gone(what: str, announcement: str) -> ApiError:
    """Answer for what the vendor has removed."""
    return ApiError("deprecated_api_endpoint", f"{what} was removed", details={"announcement": announcement})


def field_problems(path: str, message: str) -> Iterable[tuple[str, str]]:
    """Turn a decoder's complaint about `$.a.b[0]` into problems per field."""
    name = path.removeprefix("$").lstrip(".")
    return [(name or "body", message)]
