"""The local cloud's command: up, down and all between, with real machines, and what is left after the worst."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hcloud import Client
from hcloud.firewalls.domain import FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

from scripts.localcloud import __main__ as cli
from scripts.localcloud import cgroups, network

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(120)]


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


PORT, CONTROL_PORT = _free_port(), _free_port()
PORTS = ("--port", str(PORT), "--control-port", str(CONTROL_PORT))


def _localcloud(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "scripts.localcloud", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def _done(*arguments):
    done = _localcloud(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _status(state):
    return json.loads(_localcloud("status", "--state", str(state), "--format", "json").stdout)


@pytest.fixture
def state(tmp_path, traces):
    """Give a state folder; `down` must remove whatever a test leaves on the host."""
    assert network.namespaces() == [], "a local cloud is up on this host: python -m scripts.localcloud down"
    folder = tmp_path / "state"
    before = traces(folder)
    yield folder
    _done("down", "--state", str(folder))
    assert traces(folder) == before


@pytest.fixture
def up(state):
    """Bring a local cloud up."""
    _done("up", "--state", str(state), *PORTS)
    return state


@pytest.fixture
def client(up):
    """Give the official client, set up by nothing but what `env` prints."""
    lines = _done("env", "--state", str(up)).splitlines()
    told = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    return Client(
        token=told["HCLOUD_TOKEN"], api_endpoint=told["HCLOUD_ENDPOINT"], poll_interval=0.05, poll_max_retries=1_000
    )


def _server(client, name="web-1"):
    answer = client.servers.create(
        name, ServerType(name="cx23"), image=Image(name="debian-12"), location=Location(name="fsn1")
    )
    for action in (answer.action, *answer.next_actions):
        action.wait_until_finished()
    return client.servers.get_by_id(answer.server.id)


def _answers(address, port=22, deadline_s=10.0):
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def test_up_is_said_once_and_done_once(up):
    """A second `up` changes nothing and says so; the `env` line that it gives says where the API is, as `status` does."""
    pid = _status(up)["pid"]

    again = _done("up", "--state", str(up), *PORTS)

    assert again.splitlines()[0] == f"local cloud is up already (API and machines, pid {pid})"
    assert _status(up)["endpoint"] == f"http://127.0.0.1:{PORT}/v1"
    given = re.fullmatch(r'next +eval "\$\(python -m scripts.localcloud (.*)\)"', again.splitlines()[-1])
    assert given
    assert _done(*shlex.split(given[1])).splitlines()[0] == f"export HCLOUD_ENDPOINT=http://127.0.0.1:{PORT}/v1"


def test_a_server_of_the_api_is_a_machine_on_the_network(client, up):
    """What the official client orders boots, answers at its addresses, and a firewall of the API closes its ports."""
    server = _server(client)
    ipv6 = server.public_net.ipv6.ip.split("/")[0] + "1"
    assert _answers(server.public_net.ipv4.ip)
    assert _answers(ipv6)
    rules = [FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["203.0.113.0/24"])]
    firewall = client.firewalls.create("closed", rules=rules).firewall

    for action in client.firewalls.apply_to_resources(firewall, [_resource(server)]):
        action.wait_until_finished()

    assert not _answers(server.public_net.ipv4.ip, deadline_s=1.5)
    assert not _answers(ipv6, deadline_s=1.5)
    server.delete().wait_until_finished()
    assert _status(up)["machines"] == []
    assert cgroups.machine_ids() == []


def _resource(server):
    from hcloud.firewalls.domain import FirewallResource

    return FirewallResource(type="server", server=server)


def test_machines_outlive_the_api_server(client, up):
    """Killed with SIGKILL, the server is started by the next `up`, and the machine never noticed."""
    server = _server(client)
    machine = cgroups.init_pid(server.id)
    first = _status(up)["pid"]

    os.kill(first, signal.SIGKILL)
    while cgroups.birth(first):
        time.sleep(0.01)
    _done("up", "--state", str(up), *PORTS)

    assert _status(up)["pid"] != first
    assert client.servers.get_by_id(server.id).status == "running"
    assert cgroups.init_pid(server.id) == machine


def test_down_removes_what_sigkill_left(client, up):
    """After SIGKILL of the server and of every supervisor, `down` leaves nothing, also when run twice."""
    server = _server(client)
    _done("host", "--state", str(up), "target", "198.51.100.4", "--also", "10.99.0.4/32")
    inside = subprocess.Popen(["ip", "netns", "exec", "slipway-target", "sleep", "600"])
    machine = cgroups.init_pid(server.id)
    supervisor = int(Path(f"/proc/{machine}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (_status(up)["pid"], supervisor):
        os.kill(pid, signal.SIGKILL)

    assert _done("down", "--state", str(up)) == "local cloud is down\n"

    assert inside.wait(5) != 0
    assert cgroups.machine_ids() == []
    assert network.namespaces() == []
    assert _done("down", "--state", str(up)) == "local cloud is down\n"
    assert cgroups.birth(machine) is None


@pytest.mark.parametrize("moment_s", [0.05, 0.15, 0.3, 0.5, 0.8])
def test_up_killed_at_any_moment_is_finished_or_removed(state, moment_s):
    """SIGKILL of the whole group of `up` at any moment: the next `up` works, and `down` leaves nothing."""
    command = [sys.executable, "-m", "scripts.localcloud", "up", "--state", str(state), *PORTS]
    killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    time.sleep(moment_s)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    _done("up", "--state", str(state), *PORTS)

    assert _status(state)["up"]


def test_reset_forgets_everything(client, up):
    """After `reset` the cloud answers and has no server, no disk."""
    _server(client)

    _done("reset", "--state", str(up), *PORTS)

    assert client.servers.get_all() == []
    assert not (up / "machines").exists()


def test_a_test_host_is_reached_at_all_its_addresses(up):
    """A test host answers over IPv4 and IPv6; making it again changes nothing."""
    for _ in range(2):
        told = _done("host", "--state", str(up), "target", "198.51.100.4")
    server = subprocess.Popen(
        ["ip", "netns", "exec", "slipway-target", sys.executable, "-m", "http.server", "--bind", "::", "8080"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    assert told.splitlines()[0] == "slipway-target: 198.51.100.4 2001:db8:51::4"
    assert _answers("198.51.100.4", 8080)
    assert _answers("2001:db8:51::4", 8080)
    assert _status(up)["test_hosts"] == ["slipway-target"]
    _done("down", "--state", str(up))
    assert server.wait(5) != 0


def test_a_test_host_takes_no_address_of_another(up):
    """Nor another one than it has: the refusal leaves both as they were."""
    _done("host", "--state", str(up), "one", "198.51.100.2", "--also", "10.99.0.2/32")
    _done("host", "--state", str(up), "two", "198.51.100.3")

    taken = _refused("host", "--state", str(up), "two", "198.51.100.2")
    also = _refused("host", "--state", str(up), "two", "198.51.100.3", "--also", "10.99.0.2/32")
    other = _refused("host", "--state", str(up), "two", "198.51.100.4")

    assert taken == "localcloud: 198.51.100.2: another has it, behind h-one of slipway-hub"
    assert also == "localcloud: 10.99.0.2/32: another has it, behind h-one of slipway-hub"
    assert other == "localcloud: slipway-two: it has another address than 198.51.100.4, and keeps it until `down`"


def test_a_half_made_test_host_is_made_whole(up):
    """What a killed command left is not taken for a test host."""
    subprocess.run(["ip", "netns", "add", "slipway-target"], check=True)

    _done("host", "--state", str(up), "target", "198.51.100.4")

    told = subprocess.run(["ip", "-n", "slipway-target", "address"], capture_output=True, text=True, check=True).stdout
    assert "198.51.100.4/32" in told
    assert "2001:db8:51::4/128" in told


def test_down_removes_what_an_earlier_up_left_under_an_api_without_machines(up):
    """`up --api-only` after a killed `up` does not make `down` forget the networks."""
    pid = _status(up)["pid"]
    os.kill(pid, signal.SIGKILL)
    while cgroups.birth(pid):
        time.sleep(0.01)
    _done("up", "--api-only", "--state", str(up), *PORTS)

    _done("down", "--state", str(up))

    assert network.namespaces() == []


def test_down_and_status_of_another_folder_name_the_one_that_is_up(up, tmp_path):
    """Nobody takes the host for free, or the test hosts for those of the other, because of a forgotten --state."""
    _done("host", "--state", str(up), "target", "198.51.100.4")
    other = str(tmp_path / "other")

    status = _localcloud("status", "--state", other)
    down = _done("down", "--state", other)

    assert status.stdout.splitlines() == [
        f"local cloud is down (start it: python -m scripts.localcloud up --state {other})",
        f"note      another one is on this host: python -m scripts.localcloud status --state {up}",
    ]
    assert down.splitlines() == [
        "local cloud is down",
        f"note      another one is on this host: python -m scripts.localcloud down --state {up}",
    ]
    assert _status(up)["up"]


def _refused(*arguments, **environment):
    done = _localcloud(*arguments, **environment)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_second_local_cloud_names_the_first(up, tmp_path):
    """There is one set of machines per host; the refusal says how to end the other."""
    line = _refused("up", "--state", str(tmp_path / "other"), *PORTS)

    assert line == f"localcloud: another local cloud is on this host: python -m scripts.localcloud down --state {up}"


def test_a_taken_port_names_its_holder(state):
    """A port in use is named with the process that holds it and the option that chooses another."""
    with socket.create_server(("127.0.0.1", PORT)):
        line = _refused("up", "--state", str(state), *PORTS)

    assert line.startswith(f"localcloud: port {PORT}: Address already in use by ")
    assert f"pid={os.getpid()}," in line
    assert line.endswith("(choose another with --port)")


def test_a_taken_range_is_named(state):
    """A host that uses our addresses for something else is left alone."""
    subprocess.run(["ip", "link", "add", "lcprobe0", "type", "veth", "peer", "name", "lcprobe1"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "198.51.100.129/25", "dev", "lcprobe0"], check=True)
        subprocess.run(["ip", "link", "set", "lcprobe0", "up"], check=True)

        line = _refused("up", "--state", str(state), *PORTS)
    finally:
        subprocess.run(["ip", "link", "del", "lcprobe0"], check=True)

    assert line == "localcloud: 198.51.100.0/24 is in use on this host: 198.51.100.128/25 on lcprobe0"


def test_missing_images_and_tools_name_the_cure(state, tmp_path):
    """What `scripts/setup` makes is asked for by its name."""
    images = tmp_path / "slipway/machines"
    no_images = _refused("up", "--state", str(state), *PORTS, XDG_CACHE_HOME=str(tmp_path))
    own, foreign = {"x86_64": ("amd64", "arm64"), "aarch64": ("arm64", "amd64")}[os.uname().machine]
    (images / foreign / "usr").mkdir(parents=True)
    one_image = _refused("up", "--state", str(state), *PORTS, XDG_CACHE_HOME=str(tmp_path))
    no_tools = _refused("up", "--state", str(state), *PORTS, PATH=str(tmp_path))

    no_network = _refused("cluster", "--state", str(state))

    assert no_network == (
        f"localcloud: the local cloud has no network yet: python -m scripts.localcloud up --state {state}"
    )
    told = f"localcloud: no machine image of this host's architecture, {own}, in {images} (run scripts/setup)"
    assert (no_images, one_image) == (told, told)
    assert no_tools == ("localcloud: not on PATH: ip, nft, nsenter, systemd-nspawn, unshare (run scripts/setup)")


@pytest.mark.parametrize("verb", ["up", "down"])
def test_only_root_may(state, verb):
    """Another user is told why in one line, also where he may not look."""
    state.mkdir(mode=0o700)
    code = f"from scripts.localcloud.__main__ import main; raise SystemExit(main(['{verb}', '--state', '{state}']))"
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parents[2],
    )

    assert done.stderr == "localcloud: the local cloud must be run by root: its servers are machines on this host\n"
    assert done.returncode == 1


def test_every_verb_has_an_example():
    """Each verb's help ends in an example that its own parser accepts."""
    parser = cli._parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert [choice.dest for choice in verbs._choices_actions] == [
        "up",
        "down",
        "status",
        "env",
        "reset",
        "host",
        "cluster",
    ]
    for verb in verbs.choices.values():
        example = verb.epilog.removeprefix("example: ").removeprefix('eval "$(').removesuffix(')"')
        parser.parse_args(example.removeprefix("python -m scripts.localcloud ").split())
