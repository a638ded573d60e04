"""What all dynamic resources share: a provider that holds nothing, and failures told in one line.

Pulumi stores a pickled provider beside every resource and runs that copy for `read` and `delete`. A shell is pickled
by reference (its class lives in an importable module and it has no attributes), so resources of an older state run
the code of today.
"""

from __future__ import annotations

import inspect
import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pulumi.dynamic import ResourceProvider

from builders.errors import BuilderError
from infra.resources import watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

# The dynamic provider's gRPC server logs a traceback for each failure that it also reports to the engine.
logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
watchdog.start()

_F = TypeVar("_F", bound="Callable[..., Any]")


class Failed(Exception):
    """A foreseeable failure; the engine shows its text and nothing else."""


def plainly(method: _F) -> _F:
    """Turn a BuilderError into its one line, hint included, and what the system refused into its own."""

    @wraps(method)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except BuilderError as error:
            reason = f"{error}; {error.hint}" if error.hint else str(error)
        except OSError as error:  # a folder of this user that cannot be written, a full disk
            reason = str(error)
        _tell(reason)
        raise Failed(reason) from None

    return cast("_F", told)


def _tell(reason: str) -> None:
    """Give gRPC the text as it is, if a call of the engine led here: of the exception alone it would tell its own words too.

    The SDK does not hand the call's context on to a provider, so it is looked for among our callers.
    """
    frame = inspect.currentframe()
    while frame := frame and frame.f_back:
        set_details = getattr(frame.f_locals.get("context"), "set_details", None)
        if set_details:
            set_details(reason)
            return


class Shell(ResourceProvider):
    """A provider without state of its own."""

    def __reduce__(self) -> tuple[type[Shell], tuple[()]]:
        """Pickle as the class's name alone."""
        return type(self), ()


def changed(olds: dict[str, Any], news: dict[str, Any], *names: str) -> list[str]:
    """Return which of the properties differ; one that is unknown in a preview counts as different."""
    return [name for name in names if olds.get(name) != news.get(name)]
