"""Maintenance: tell whether a registry takes writes now, by an upload that is begun and given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.registry import exchange

if TYPE_CHECKING:
    from scripts.registry.exchange import Protocol
    from scripts.registry.references import Reference


def check_writable(repository: Reference) -> Protocol[None]:
    """Raise ReadOnly in maintenance, and what else keeps this login from pushing to the repository."""
    (response,) = yield [exchange.begin_upload(repository)]
    if response.status != 202:
        raise exchange.refusal(repository.name, response)
    if place := response.headers.get("location"):
        yield [exchange.cancel_upload(repository, place)]
