"""What the command prints."""

from decimal import Decimal

import pytest

from builders import output
from builders.activity import Activity
from builders.hetzner import Kept
from builders.inventory import Node
from builders.lifecycle import Down
from builders.state import Resource
from builders.status import NodeStatus, Status

SERVER = Resource(
    type="hcloud:index/server:Server", name="arm64-1", id="1", protect=False,
    inputs={"name": "slipway-dev-arm64-1"}, outputs={},
)  # fmt: skip
ADDRESS = Resource(
    type="hcloud:index/primaryIp:PrimaryIp", name="arm64-1-ipv4", id="2", protect=True,
    inputs={"name": "slipway-dev-arm64-1-ipv4"}, outputs={"ipAddress": "198.51.100.11"},
)  # fmt: skip
FREE = Resource(
    type="hcloud:index/primaryIp:PrimaryIp", name="arm64-1-ipv6", id="3", protect=True,
    inputs={"name": "slipway-dev-arm64-1-ipv6"}, outputs={"ipAddress": "2001:db8::"},
)  # fmt: skip
ORPHAN = Kept(kind="server", id=9, name="slipway-dev-amd64-1", location=None, server_type=None, created=None, labels={})
PLAN = Down(going=(SERVER,), staying=((ADDRESS, Decimal("0.50")), (FREE, Decimal(0))), orphans=(ORPHAN,))


def test_the_plan_of_down_gives_a_reason_per_line():
    """What goes, what a killed run left, what stays and its price."""
    assert output.down_plan(PLAN) == (
        "- server slipway-dev-arm64-1\n"
        "- server slipway-dev-amd64-1: left by a killed run\n"
        "  primary IP slipway-dev-arm64-1-ipv4: kept (198.51.100.11), protected, 0.50 a month\n"
        "  primary IP slipway-dev-arm64-1-ipv6: kept (2001:db8::), protected, free"
    )


def test_after_down_the_kept_and_their_sum_are_told():
    """Nothing billable is left unsaid."""
    assert output.kept(PLAN) == (
        "nothing is left but what is kept: slipway-dev-arm64-1-ipv4, slipway-dev-arm64-1-ipv6 (0.50 a month in all)"
    )
    assert output.kept(Down(going=(SERVER,), staying=(), orphans=())) == "nothing is left"
    assert output.down_plan(Down(going=(), staying=(), orphans=())) == "nothing of the stack is in the Hetzner project"


def test_down_as_json():
    """Prices are exact, as text."""
    assert output.down_json(PLAN) == {
        "removed": [
            {"kind": "server", "name": "slipway-dev-arm64-1"},
            {"kind": "server", "name": "slipway-dev-amd64-1"},
        ],
        "kept": [
            {"kind": "primary_ip", "name": "slipway-dev-arm64-1-ipv4", "price_monthly_net": "0.5000"},
            {"kind": "primary_ip", "name": "slipway-dev-arm64-1-ipv6", "price_monthly_net": "0.0000"},
        ],
        "registry": None,
        "nodes": {},
    }


@pytest.mark.parametrize(
    ("stays", "line", "left"),
    [
        (True, "  registry r.example.com: kept, protected", " but what is kept: registry r.example.com (free)"),
        (False, "- registry r.example.com: its volume stays in the cluster", ""),
    ],
)
def test_down_tells_of_the_registry_too(stays, line, left):
    """It is in no Hetzner project, and whoever confirms has to know."""
    plan = Down(going=(), staying=(), orphans=(), registry=("r.example.com", stays))

    assert output.down_plan(plan) == line
    assert output.kept(plan) == f"nothing is left{left}"
    assert plan.takes_something is not stays
    assert output.down_json(plan)["registry"] == {"host": "r.example.com", "kept": stays}


def test_down_tells_of_the_builds_under_way():
    """They may be a colleague's."""
    nodes = {"amd64-1": Activity(builds=2, idle_s=0), "amd64-2": Activity(builds=0, idle_s=7300), "arm64-1": None}
    plan = Down(going=(), staying=(), orphans=(), nodes=nodes)

    assert output.down_plan(plan) == (
        "  node amd64-1: builds under way: 2\n"
        "  node amd64-2: idle for 2 h\n"
        "  node arm64-1: cannot be asked for its builds"
    )
    assert output.down_json(plan)["nodes"] == {
        "amd64-1": {"builds": 2, "idle_seconds": 0},
        "amd64-2": {"builds": 0, "idle_seconds": 7300},
        "arm64-1": None,
    }
    assert plan.busy(7301) == ("amd64-1", "amd64-2", "arm64-1")
    assert plan.busy(7300) == ("amd64-1", "arm64-1")


def test_status_tells_why_a_node_is_unreachable_and_hides_no_other():
    """One line per node, the reasons below, then this machine's own certificate."""
    common = {"builder": "slipway-dev", "buildkit": "v0.32.2"}
    found = Status(
        nodes=(
            NodeStatus(
                node="amd64-1", platform="linux/amd64", endpoint="tcp://198.51.100.12:1234", reachable=False,
                certificate_days_left=None, error="no answer in time", **common,
            ),
            NodeStatus(
                node="arm64-1", platform="linux/arm64", endpoint="tcp://198.51.100.11:1234", reachable=True,
                certificate_days_left=83, error=None, **common,
            ),
        ),
        connected={"slipway-dev": 12},
    )  # fmt: skip

    assert output.status(found) == (
        "BUILDER      NODE     PLATFORM     ENDPOINT                  STATE        BUILDKIT  CERTIFICATE\n"
        "slipway-dev  amd64-1  linux/amd64  tcp://198.51.100.12:1234  unreachable  v0.32.2   -\n"
        "slipway-dev  arm64-1  linux/arm64  tcp://198.51.100.11:1234  reachable    v0.32.2   83 days left\n"
        "node amd64-1: no answer in time\n"
        "this machine, builder slipway-dev: connected, 12 days left"
    )


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (None, "not connected: slipway connect"),
        (0, "its certificate ended: slipway connect"),
        (1, "connected, 1 day left"),
        (2, "connected, 2 days left"),
    ],
)
def test_status_of_this_machine_names_the_command_where_it_cannot_build(days, told):
    """It is the same whether it never could, or no more can."""
    assert output.status(Status(nodes=(), connected={"dev": days})).endswith(f"\nthis machine, builder dev: {told}")


def test_the_nodes_of_an_up():
    """Name, platform, endpoint, what it runs on and its BuildKit."""
    node = Node(
        name="arm64-1", platform="linux/arm64", address="198.51.100.11", endpoint="tcp://198.51.100.11:1234",
        host_key="ssh-ed25519 AAAA", certificate_expires="2027-01-01T00:00:00+00:00", buildkit_version="v0.32.2",
        server_type="cax21", location="fsn1",
    )  # fmt: skip

    assert output.nodes([node]).splitlines()[1] == (
        "arm64-1  linux/arm64  tcp://198.51.100.11:1234  cax21 in fsn1  v0.32.2"
    )
