"""The Hetzner Cloud API: what is sold, and what of ours exists (the only importer of hcloud in builders)."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from hcloud import APIException, Client, HCloudException

from builders.errors import API_ADVICE, CloudRefused, CloudUnreachable, InvalidSetting, TokenRejected
from builders.placement import Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

READ_WRITE_HINT = "set a read and write token of the Hetzner project: pulumi config set --secret hcloud:token"
PUBLIC_ENDPOINT = "https://api.hetzner.cloud/v1"
STOCK_CODES = frozenset({"resource_unavailable", "placement_error"})  # changelog: sold out, no room in a spread group
_BUSY_CODES = frozenset({"locked", "conflict", "resource_in_use", "must_be_unassigned"})
"""An order of a killed run may still be under way, or the end of the server that an address is on."""

_TOKEN = re.compile(r"[!-~]+")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A resource in the project that carries the stack's labels."""

    kind: str  # server, primary_ip, firewall, ssh_key
    id: int
    name: str
    location: str | None
    server_type: str | None
    created: datetime | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """What one plan needs to know of the project."""

    offers: tuple[Offer, ...]
    existing: tuple[Kept, ...]

    def server(self, name: str) -> Kept | None:
        """Return our server of that name."""
        return next((kept for kept in self.existing if kept.kind == "server" and kept.name == name), None)

    def primary_ip(self, name: str) -> Kept | None:
        """Return our primary IP of that name."""
        return next((kept for kept in self.existing if kept.kind == "primary_ip" and kept.name == name), None)


class Hetzner:
    """A project, reached with its token; nothing here creates or changes anything but `remove`."""

    def __init__(self, token: str, endpoint: str | None = None) -> None:
        if not token:
            raise TokenRejected("hcloud:token: not set", code="unauthorized", hint=READ_WRITE_HINT)
        if not _TOKEN.fullmatch(token):  # it could not be sent, and what refuses it would show it
            raise TokenRejected(
                "hcloud:token: it has a blank, an end of line or a letter that no token has",
                code="unauthorized",
                hint=READ_WRITE_HINT,
            )
        self._endpoint = (endpoint or PUBLIC_ENDPOINT).rstrip("/")
        if not self._endpoint.startswith(("http://", "https://")):
            raise InvalidSetting(f"hcloud:endpoint: {self._endpoint!r} is no URL, for example {PUBLIC_ENDPOINT}")
        self._client = Client(
            token=token, api_endpoint=self._endpoint, application_name="slipway", poll_interval=0.5, timeout=30
        )

    def __repr__(self) -> str:
        return f"Hetzner({self._endpoint!r})"

    def load(self, labels: Mapping[str, str]) -> Cloud:
        """Read the offers and whatever carries all of `labels`, side by side."""
        with ThreadPoolExecutor(2) as pool:
            offers = pool.submit(self.offers)
            existing = pool.submit(self.existing, labels)
            return Cloud(offers=offers.result(), existing=existing.result())

    def offers(self) -> tuple[Offer, ...]:
        """List every server type in every location that sells it."""
        now = datetime.now(UTC)
        return tuple(offer for each in self._call(self._client.server_types.get_all) for offer in _offers(each, now))

    def existing(self, labels: Mapping[str, str]) -> tuple[Kept, ...]:
        """List our servers, primary IPs, firewalls and SSH keys."""
        selector = ",".join(f"{key}=={value}" for key, value in labels.items())
        kinds: dict[str, Any] = {
            "server": self._client.servers,
            "primary_ip": self._client.primary_ips,
            "firewall": self._client.firewalls,
            "ssh_key": self._client.ssh_keys,
        }
        found = []
        for kind, resource in kinds.items():
            for each in self._call(partial(resource.get_all, label_selector=selector)):
                location, server_type = getattr(each, "location", None), getattr(each, "server_type", None)
                found.append(
                    Kept(
                        kind=kind,
                        id=each.id,
                        name=each.name,
                        location=location.name if location else None,
                        server_type=server_type.name if server_type else None,
                        created=getattr(each, "created", None),
                        labels=dict(each.labels or {}),
                    )
                )
        return tuple(found)

    def address_prices(self) -> dict[tuple[str, str], Decimal]:
        """Return what a primary IP costs a month, net, by its type (ipv4, ipv6) and location."""
        pricing = self._call(lambda: self._client.request("GET", "/pricing")["pricing"])
        return {
            (each["type"], price["location"]): Decimal(price["price_monthly"]["net"])
            for each in pricing["primary_ips"]
            for price in each["prices"]
        }

    def remove(self, kept: Kept, *, deadline_s: float = 120) -> None:
        """Delete a resource and wait for it; one that is gone already is no error, one that is busy is tried again until the deadline."""
        resource = getattr(self._client, f"{kept.kind}s")
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                action = self._call(lambda: resource.delete(resource.get_by_id(kept.id)))
                break
            except CloudRefused as error:
                if error.code == "not_found":
                    return
                if error.code not in _BUSY_CODES or time.monotonic() > deadline:
                    raise
                time.sleep(1)
        if hasattr(action, "wait_until_finished"):
            self._call(action.wait_until_finished)

    def _call(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except APIException as error:
            code, message = str(error.code), f"Hetzner API {self._endpoint}: {error}"
            if code == "200":  # no JSON, as of a proxy that wants a login
                raise self._stranger() from error
            if code in {"unauthorized", "forbidden", "token_readonly"}:
                raise TokenRejected(message, code=code, hint=READ_WRITE_HINT) from error
            raise CloudRefused(message, code=code, hint=self._advice(code)) from error
        except HCloudException as error:
            raise CloudRefused(f"Hetzner API {self._endpoint}: {error}", code="action_failed") from error
        except (KeyError, TypeError) as error:
            raise self._stranger() from error
        except requests.RequestException as error:
            reason = str(error).rsplit(": ", 1)[-1].rstrip("'\")") or type(error).__name__
            raise CloudUnreachable(
                f"Hetzner API {self._endpoint}: no answer ({reason})",
                hint="check hcloud:endpoint and the network; for the local cloud: python -m scripts.localcloud up",
            ) from error

    def _stranger(self) -> CloudRefused:
        return CloudRefused(
            f"Hetzner API {self._endpoint}: what answers there is another service",
            code="no_api",
            hint=f"correct hcloud:endpoint, as in {PUBLIC_ENDPOINT}, or log in to the proxy in between",
        )

    def _advice(self, code: str) -> str | None:
        if code in {"not_found", "404"} and not self._endpoint.endswith("/v1"):
            return f"hcloud:endpoint ends with the API's version, as in {PUBLIC_ENDPOINT}"
        return API_ADVICE.get(code)


def _offers(server_type: Any, now: datetime) -> list[Offer]:
    prices = {price["location"]: price for price in server_type.prices or []}
    return [
        Offer(
            server_type=server_type.name,
            architecture=server_type.architecture,
            cores=server_type.cores,
            memory_gb=server_type.memory,
            disk_gb=server_type.disk,
            location=sold.location.name,
            available=bool(sold.available),
            orderable=sold.deprecation is None or sold.deprecation.unavailable_after > now,
            price_hourly=Decimal(prices[sold.location.name]["price_hourly"]["net"]),
            price_monthly=Decimal(prices[sold.location.name]["price_monthly"]["net"]),
        )
        for sold in server_type.locations or []
        if sold.location.name in prices
    ]
