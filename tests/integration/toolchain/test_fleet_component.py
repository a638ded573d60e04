"""infra.components.fleet under the real engine, without a builder, so that nothing needs a machine."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.timeout(180)]

PROGRAM = """
from infra import plan, settings
from infra.components.fleet import Fleet

address = plan.AddressPlan(node="arm64-1", server_name="slipway-dev-arm64-1", location={location!r}, kinds=(),
    spare=("ipv4",), moves={moves})
planned = plan.Plan(name={name!r}, labels={{"managed-by": "slipway"}}, nodes=(), retired=(address,), registrations={{}})
fleet = Fleet(planned, settings.parse({settings!r}), {{}})
pulumi.export("key", fleet.ssh_key.public_key)
"""
SETTINGS = {
    "builders": '[{"name": "arm64", "platform": "linux/arm64", "types": ["cax21"], "locations": ["fsn1"]}]',
    "address": "keep",
    "allowedCidrs": '["0.0.0.0/0"]',
    "protect": "true",
    "image": "debian-12",
    "buildkit": '{"version": "v0.32.2", "tarballs": {"linux/arm64": {"source": "/tarball"}}}',
    "snapshotter": "auto",
    "cacheKeepDays": "60",
}


def _write(stack, *, name="slipway-dev", location="fsn1", moves=False):
    settings = {f"slipway:{key}": value for key, value in SETTINGS.items()}
    stack.write(PROGRAM.format(name=name, location=location, moves=moves, settings=settings))


def test_a_protected_address_stays_where_it_is_unless_it_is_given_up(stack):
    """The plan finds what exists by its name and labels, which a rename of the stack changes, and may choose another place."""
    _write(stack)
    stack.up()
    before = stack.resources()["arm64-1-ipv4"]["outputs"]

    _write(stack, name="slipway-renamed", location="nbg1")
    stack.up()
    after = stack.resources()["arm64-1-ipv4"]["outputs"]
    assert (after["ipAddress"], after["location"]) == (before["ipAddress"], "fsn1")

    _write(stack, name="slipway-renamed", location="nbg1", moves=True)
    stack.run("state", "unprotect", "--all", "--yes")
    stack.up()
    assert stack.resources()["arm64-1-ipv4"]["outputs"]["location"] == "nbg1"


def test_the_operators_key_can_be_replaced(stack):
    """Its name in the Hetzner project can be had only once, so the old one goes first."""
    _write(stack)
    stack.up()
    before = stack.run("stack", "output", "key").strip()

    stack.run("up", "--yes", "--skip-preview", "--replace", "**SshKeyPair::operator")

    [registered] = stack.api("GET", "/ssh_keys")["ssh_keys"]
    assert registered["public_key"] == stack.run("stack", "output", "key").strip() != before
