"""What a RUN step reaches and what it does not, on a real machine; and that every rule of the guard is needed for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from builders import buildkit, certificates, guard, health, hostkeys

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
ALLOWED, NEIGHBOUR, PRIVATE = "198.51.100.4", "198.51.100.5", "198.51.100.6"
PRIVATE_ADDRESSES = ("10.1.0.2", "100.64.0.2", "172.16.5.2", "192.168.7.2", "169.254.7.7")
OPENED_ADDRESS, OPENED_NETWORK = "10.99.0.2", "10.99.0.0/24"
PRIVATE_V6, OPENED_V6, OPENED_NETWORK_V6 = "fd00:77::2", "fd00:99::2", "fd00:99::/64"
HUB = "slipway-hub"
PORT = 8080
BUILD = (
    "buildctl build --no-cache --progress=plain --frontend=dockerfile.v0 "
    "--local context=/root/probe --local dockerfile=/root/dockerfile"
)


def _ipv6(address):
    from scripts.localcloud.network import host_ipv6

    return host_ipv6(address)


RULES = guard.render(neighbours=[NEIGHBOUR, _ipv6(NEIGHBOUR)], allow=[OPENED_NETWORK, OPENED_NETWORK_V6])


def _weakened():
    """Yield the guard without one rule, and without one address of a rule."""
    lines = RULES.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("\t\t") or line.startswith("\t\ttype"):
            continue
        rule = line.strip()
        yield pytest.param("\n".join(lines[:number] + lines[number + 1 :]), id=f"without {rule}")
        addresses = re.search(r"daddr \{ (.+) \}", line)
        for address in addresses[1].split(", ") if addresses and ", " in addresses[1] else ():
            rest = ", ".join(each for each in addresses[1].split(", ") if each != address)
            weaker = line.replace(addresses[1], rest)
            yield pytest.param("\n".join([*lines[:number], weaker, *lines[number + 1 :]]), id=f"without {address}")


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(scope="module")
def hosts(cloud):
    """Set up three hosts on the internet, one of them with private addresses too; each tells who comes."""
    running = []
    also = [*PRIVATE_ADDRESSES, OPENED_ADDRESS]
    for name, address, private in (("allowed", ALLOWED, []), ("neighbour", NEIGHBOUR, []), ("private", PRIVATE, also)):
        flags = [part for each in private for part in ("--also", f"{each}/32")]
        command = [
            sys.executable,
            "-m",
            "scripts.localcloud",
            "host",
            name,
            address,
            *flags,
            "--state",
            str(cloud.state),
        ]
        subprocess.run(command, check=True, cwd=HERE.parents[1])
        witness = ["ip", "netns", "exec", f"slipway-{name}", sys.executable, str(HERE / "probe/witness.py"), str(PORT)]
        running.append(subprocess.Popen(witness))
    for address in (PRIVATE_V6, OPENED_V6):
        _ip("-n", "slipway-private", "-6", "addr", "add", f"{address}/128", "dev", "eth0", "nodad")
        _ip("-n", HUB, "-6", "route", "add", f"{address}/128", "dev", "h-private")
    yield
    for process in running:
        process.terminate()
        process.wait()


class _Builder:
    """A node with BuildKit and the probe on it."""

    def __init__(self, node, connection, host_key, probe):
        self.node, self.connection, self.host_key = node, connection, host_key
        connection.put("/root/probe/probe", probe, mode=0o755)
        mac = connection.run(f"ip -6 -o addr show dev {guard.BRIDGE} scope link")
        self.link_local = re.search(r"fe80::[0-9a-f:]+", mac)[0]

    def targets(self):
        """Return every target by name, as the probe takes it."""
        v4, v6 = self.node.addresses
        gateway_v4, gateway_v6 = "10.83.0.1", "fd83:5119:3a7e::1"
        own = {"public-v4": v4, "public-v6": f"[{v6}]", "gateway-v4": gateway_v4, "gateway-v6": f"[{gateway_v6}]"}
        own["link-local"] = f"[{self.link_local}%LINK]"
        return {
            "internet-v4": f"http://{ALLOWED}:{PORT}/seen",
            "internet-v6": f"http://[{_ipv6(ALLOWED)}]:{PORT}/seen",
            "back-v4": f"http://{ALLOWED}:{PORT}/back?host={{4}}",
            "back-v6": f"http://{ALLOWED}:{PORT}/back?host={{6}}",
            "metadata": "169.254.169.254:80",
            **{f"ssh-{name}": f"{address}:22" for name, address in own.items()},
            **{f"buildkit-{name}": f"{address}:1234" for name, address in own.items()},
            "neighbour-v4": f"{NEIGHBOUR}:{PORT}",
            "neighbour-v6": f"[{_ipv6(NEIGHBOUR)}]:{PORT}",
            **{f"private-{address}": f"{address}:{PORT}" for address in PRIVATE_ADDRESSES},
            "private-v6": f"[{PRIVATE_V6}]:{PORT}",
            "opened-v4": f"{OPENED_ADDRESS}:{PORT}",
            "opened-v6": f"[{OPENED_V6}]:{PORT}",
        }

    def expected(self):
        """Return what a RUN step must get as answers."""
        v4, v6 = self.node.addresses
        reached = {"internet-v4": v4, "internet-v6": v6, "opened-v4": "open", "opened-v6": "open"}
        return dict.fromkeys(self.targets(), "closed") | reached

    def probe(self, patience="2500ms"):
        """Return the answers that a RUN step gets."""
        self.write_dockerfile(self.targets(), patience)
        said = self.connection.run(f"{BUILD} 2>&1", timeout_s=60)
        return dict(line.split(" ", 2)[1:] for line in re.findall(r"PROBE .+", said))

    def write_dockerfile(self, targets, patience):
        """Let the next build try these targets."""
        command = json.dumps(["/probe/probe", patience, *(f"{name}={target}" for name, target in targets.items())])
        self.connection.put(
            "/root/dockerfile/Dockerfile", f"FROM scratch\nRUN --mount=target=/probe {command}\n".encode()
        )

    @contextmanager
    def loaded(self, rules):
        """Have other rules for a while, and links on which nothing has been learned under the old ones."""
        self.connection.run("/usr/sbin/nft -f - && systemctl restart buildkit.service", stdin=rules.encode())
        try:
            yield
        finally:
            self.connection.run("/usr/sbin/nft -f /etc/slipway/guard.nft")


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def builder(request, make_node, make_probe, hosts):  # noqa: ARG001 - the hosts must be there
    """Install BuildKit on a machine; whoever is outside knows the way to its RUN steps."""
    node = make_node(request.param)
    wanted = node.wanted(neighbours=(NEIGHBOUR, _ipv6(NEIGHBOUR)), allow=(OPENED_NETWORK, OPENED_NETWORK_V6))
    with node.connect() as connection:
        key = hostkeys.make_final(connection)
        hostkeys.retire_bootstrap(connection)
    with node.connect(key) as connection:
        buildkit.install(connection, wanted, node.authority, now=datetime.now(UTC))
        builder = _Builder(node, connection, key, make_probe(request.param))
        link = re.search(r"dev (\S+)", subprocess.check_output(
            ["ip", "-n", HUB, "route", "get", node.addresses[0]], text=True))[1]  # fmt: skip
        _ip("-n", HUB, "route", "replace", guard.SUBNET_V4, "via", node.addresses[0], "dev", link, "onlink")
        _ip("-n", HUB, "-6", "route", "replace", guard.SUBNET_V6, "via", node.addresses[1], "dev", link, "onlink")
        yield builder


def test_a_run_step_reaches_the_internet_and_nothing_that_trusts_the_builder(builder):
    """Over IPv4 and IPv6, masqueraded; nothing private but what the settings open, and nobody comes in."""
    assert builder.probe() == builder.expected()


def test_the_machine_loads_the_rules_that_are_tested(builder):
    """The file on the machine is what `guard.render` gives for its settings."""
    assert builder.connection.run("cat /etc/slipway/guard.nft") == RULES


@pytest.mark.parametrize("builder", ["amd64"], indirect=True)
@pytest.mark.parametrize("rules", list(_weakened()))
def test_without_one_rule_the_guard_does_not_hold(builder, rules):
    """No rule is there for show: without any one of them, or one of its addresses, a RUN step notices."""
    with builder.loaded(rules):
        # A second SYN, sent a second after the first, is waited for: the ways are known by now.
        assert builder.probe("1300ms") != builder.expected()


def test_two_builds_do_not_see_each_other(builder):
    """The ports of the bridge are isolated from each other; BuildKit keeps a build's link for a while."""
    ports = builder.connection.run(f"ip -d link show master {guard.BRIDGE}")

    assert set(re.findall(r"isolated (on|off)", ports)) == {"on"}


def test_the_guard_is_there_again_after_a_reboot(builder):
    """BuildKit starts by itself, behind the same rules."""
    builder.connection.close()
    builder.node.server.reboot().wait_until_finished()

    with builder.node.connect(builder.host_key) as connection:
        builder.connection = connection
        health.check(
            builder.node.name,
            builder.node.addresses[0],
            authority_certificate=builder.node.authority.certificate,
            client=certificates.issue_client(builder.node.authority, "test", now=datetime.now(UTC), days=1),
            deadline_s=90,
        )
        assert builder.probe() == builder.expected()
