"""Who may build on a stack, and from where: invite a colleague, connect this machine, disconnect it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builders import certificates, credentials, registration
from builders.certificates import Authority, Leaf
from builders.errors import InvalidCertificate, InvalidSetting, StackFailed
from builders.inventory import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from builders.inventory import Builders
    from builders.state import State

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,62}")  # a certificate's common name has at most 64 characters


def invite(state: State, name: str, *, lifetime: timedelta, now: datetime) -> Bundle:
    """Issue a client certificate to `name` and pack it with all that a colleague needs."""
    if not _NAME.fullmatch(name):
        raise InvalidSetting(
            f"{name!r} is no name to invite: letters, digits and @ . _ -, at most 63, a letter or digit first"
        )
    authority = _authority(state)
    if now + lifetime > certificates.expires(authority.certificate):
        raise InvalidSetting(
            f"--for: the stack's authority ends before that, on {certificates.expires(authority.certificate):%Y-%m-%d}"
        )
    leaf = certificates.issue_client(authority, name, now=now, days=lifetime.total_seconds() / 86400)
    return Bundle(
        name=name,
        builders=_builders(state),
        authority=authority.certificate,
        certificate=leaf.certificate,
        key=leaf.key,
    )


def connect_operator(state: State, *, now: datetime) -> tuple[str, ...]:
    """Register a stack's builders on this machine, for whoever can read its secrets; return their names."""
    authority = _authority(state)
    builders = _builders(state)
    for builder, _ in builders.builders:
        registration.check_free(builder, authority.certificate)
    for builder, endpoints in builders.builders:
        registration.register_operator(builder, endpoints, authority, now=now)
    return tuple(builder for builder, _ in builders.builders)


def connect_bundle(bundle: Bundle, *, now: datetime) -> tuple[str, ...]:
    """Register the builders of an invitation on this machine; return their names."""
    leaf = Leaf(certificate=bundle.certificate, key=bundle.key)
    try:
        whole = certificates.is_pair(leaf) and certificates.issued_by(leaf.certificate, bundle.authority)
    except InvalidCertificate:
        whole = False
    if not whole:
        raise InvalidSetting(
            "bundle: its certificate, key and authority do not belong together", hint="ask for a new one"
        )
    if (ended := certificates.expires(leaf.certificate)) <= now:
        raise InvalidSetting(
            f"bundle: it ended on {ended:%Y-%m-%d %H:%M} UTC", hint=f"ask for a new one: slipway invite {bundle.name}"
        )
    for builder, _ in bundle.builders.builders:
        registration.check_free(builder, bundle.authority)
    for builder, endpoints in bundle.builders.builders:
        registration.register(builder, endpoints, bundle.authority, leaf)
    return tuple(builder for builder, _ in bundle.builders.builders)


def disconnect(names: Sequence[str], *, everything: bool) -> tuple[str, ...]:
    """Remove builders of ours and their credentials from this machine; return which."""
    held = credentials.builders()
    if unknown := sorted(set(names) - set(held)):
        raise InvalidSetting(f"{', '.join(unknown)}: not connected on this machine", hint=_choices(held))
    if not names and len(held) > 1 and not everything:
        raise InvalidSetting("this machine is connected to several builders: name them, or --all", hint=_choices(held))
    chosen = tuple(dict.fromkeys(names)) or held
    for builder in chosen:
        registration.unregister(builder)
    return chosen


def _authority(state: State) -> Authority:
    return Authority(certificate=state.output("authority"), key=state.output("authorityKey"))


def _builders(state: State) -> Builders:
    if not state.builders().builders:
        raise StackFailed("the stack has no builders yet", hint="bring it up first: slipway up")
    return state.builders()


def _choices(held: Iterable[str]) -> str:
    return f"connected: {', '.join(held) or 'none'}"
