"""What is kept between releases: addresses, here IPv6 alone, which costs nothing, and the authority with all that it signed."""

import json
import re
from dataclasses import replace

import pytest

from tests.e2e.conftest import AMD64

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def operator(make_operator):
    """A stack whose one builder has no IPv4."""
    machine = make_operator("six", builders=AMD64, address="ipv6")
    machine.run("slipway", "up")
    yield machine
    machine.run("pulumi", "state", "unprotect", "--all", "--yes", check=False)
    machine.run("slipway", "down", "--yes")


def test_a_builder_without_ipv4_builds(operator, cloud, tmp_path):
    """SSH, BuildKit's certificate, the registration and `status` all take the IPv6 address."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")

    operator.run("buildx", "build", "--builder", "slipway-six", "--platform", "linux/amd64", tmp_path)

    [server] = cloud.listing("servers", "six")
    assert server["public_net"]["ipv4"] is None
    [node] = json.loads(operator.run("slipway", "status", "--format", "json").stdout)["nodes"]
    assert (node["endpoint"].startswith("tcp://[2001:db8:"), node["reachable"]) == (True, True)


def test_its_address_is_kept_for_nothing_and_comes_back_for_one_command(operator, cloud, tmp_path):
    """`down` says what is kept; `slipway with` builds on what is registered as it was, without naming it, and takes it down."""
    before = operator.outputs()["builders"]
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")

    said = operator.run("slipway", "down", "--yes").stdout
    assert said.splitlines()[-1] == "nothing is left but what is kept: slipway-six-amd64-1-ipv6 (free)"

    said = operator.run(
        "slipway", "with", "--", "buildx", "build", "--progress", "plain", "--no-cache", tmp_path
    ).stdout
    assert "COPY Dockerfile /" in said
    assert operator.outputs()["builders"] == before
    assert cloud.listing("servers", "six") == []


def test_replacing_the_authority_ends_all_invitations_and_keeps_the_addresses(operator, tmp_path):
    """As docs/operate.md tells; whoever is invited anew builds again."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    colleague = replace(operator, home=tmp_path / "colleague", project=None, state=None)

    def build(machine, *, check=True):
        return machine.run("buildx", "build", "--builder", "slipway-six", "--no-cache", tmp_path, check=check)

    def connect(*, check=True):
        operator.run("slipway", "invite", "ada", "--output", tmp_path / "ada.slipway")
        return colleague.run("slipway", "connect", tmp_path / "ada.slipway", check=check)

    connect()
    addresses = [each["address"] for each in operator.outputs()["nodes"]]
    [authority] = re.findall(r"urn:\S+:Authority::authority", operator.run("pulumi", "stack", "--show-urns").stdout)
    operator.run("slipway", "down", "--yes")
    operator.run("pulumi", "state", "unprotect", authority, "--yes")
    operator.up("--replace", authority)

    assert [each["address"] for each in operator.outputs()["nodes"]] == addresses
    build(operator)
    assert build(colleague, check=False).returncode != 0
    assert "its certificate is not this stack's" in colleague.run("slipway", "status", check=False).stdout
    assert "connected to another stack's builder" in connect(check=False).stdout
    colleague.run("slipway", "disconnect")
    connect()
    build(colleague)
    assert not re.search(r"\d+ (created|updated|replaced|deleted)", operator.up().stdout)


def test_the_address_of_a_builder_that_is_dropped_is_kept_and_comes_back(operator, cloud):
    """It is protected, so a program without it could not be run; `up` says that it serves nobody."""

    def up(count):
        operator.run("pulumi", "config", "set", "--path", "slipway:builders[0].count", count)
        return operator.run("slipway", "up").stdout

    def addresses():
        return {node["name"]: node["address"] for node in operator.outputs()["nodes"]}

    up(2)
    before = addresses()
    told = up(1)

    assert "slipway-six-amd64-2-ipv6 is kept, though no builder has it any more" in told
    assert [each["name"] for each in cloud.listing("servers", "six")] == ["slipway-six-amd64-1"]
    assert sorted(each["name"] for each in cloud.listing("primary_ips", "six")) == [
        f"slipway-six-amd64-{slot}-ipv6" for slot in (1, 2)
    ]
    up(2)
    assert addresses() == before


def test_where_nothing_is_protected_any_more_it_goes_with_the_second_up(operator, cloud):
    """The engine refuses to delete what it protects, so the first one unprotects the address of a builder dropped with it."""
    operator.run("pulumi", "config", "set", "slipway:protect", "false")
    operator.run("pulumi", "config", "set", "--path", "slipway:builders[0].count", "1")

    operator.run("slipway", "up")
    operator.run("slipway", "up")

    assert [each["name"] for each in cloud.listing("primary_ips", "six")] == ["slipway-six-amd64-1-ipv6"]
    assert operator.run("slipway", "down", "--yes", "--idle", "1s").stdout.splitlines()[-1] == "nothing is left"
