"""Machines and networks as they are: booted, reached over the network, cut off by rules, and gone without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.localcloud import cgroups, instance, network, private_networks
from scripts.localcloud.commands import CommandFailed
from scripts.localcloud.hypervisor import FirewallRule, MachineFailed, MachineSpec, PrivateAddress
from scripts.localcloud.machines import Machines
from scripts.localcloud.nspawn import make_disk

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(240)]

IMAGES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway/machines"
EVERYBODY = ("0.0.0.0/0", "::/0")
USER_DATA = """\
#cloud-config
runcmd:
- [systemd-run, python3, -m, http.server, --bind, "::", "80"]
- [systemd-run, python3, -m, http.server, --bind, "::", "81"]
- [sh, -c, 'date +%s%N > /root/booted']
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, traces):
    """Open a hub and a hypervisor with a state folder of their own; afterwards the host must be as it was."""
    state = tmp_path_factory.mktemp("localcloud")
    before = traces(state)
    assert before["namespaces"] == [], "a local cloud is up on this host: python -m scripts.localcloud down"
    network.open_hub()
    machines = Machines(state, IMAGES)

    yield machines

    instance.sweep(state)
    instance.sweep(state)
    assert traces(state) == before


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """Make a key pair and give the path of its private half."""
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def spec(key):
    """Give the spec of an amd64 machine that serves on two ports."""
    return MachineSpec(
        id=41,
        name="web-1",
        architecture="x86",
        cores=2,
        memory_gb=4,
        disk_gb=40,
        image="debian-12",
        user_data=USER_DATA,
        ssh_keys=(key.with_suffix(".pub").read_text().strip(),),
        ipv4="198.51.100.41",
        ipv6_network="2001:db8:51:29::/64",
        metadata={},
    )


@pytest.fixture(scope="module")
def web(cloud, spec, key):
    """Boot a machine and wait for its first boot to finish."""
    asyncio.run(cloud.start(spec))
    _first_boot(spec, key)
    return spec


def _ssh(spec, key, command, *, check=True):
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5"]
    done = subprocess.run(
        ["ssh", "-i", key, *(f"-o{option}" for option in options), f"root@{spec.ipv4}", command],
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"{command}: exit {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def _first_boot(spec, key, deadline_s=150):
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if "status: done" in _ssh(spec, key, "cloud-init status --wait", check=False):
            return
        time.sleep(0.2)
    raise AssertionError(f"{spec.name} has not finished its first boot")


def _open(address, port, timeout_s=1.0):
    try:
        socket.create_connection((address, port), timeout_s).close()
    except OSError:
        return False
    return True


def _dial(address, port):
    """Give the shell words that say whether a port answers."""
    return f"(timeout 1 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo open || echo closed)"


def _rule(direction, port, networks=EVERYBODY):
    return FirewallRule(direction=direction, protocol="tcp", networks=networks, port_from=port, port_to=port)


def test_a_machine_is_what_its_spec_says(web, key):
    """The key lets root in, user data has reached cloud-init, and the name and addresses are the given ones."""
    told = json.loads(_ssh(web, key, "ip -j addr show dev eth0"))[0]["addr_info"]

    assert _ssh(web, key, "hostname") == "web-1"
    assert _ssh(web, key, "uname -m; systemctl is-system-running --wait").split() == ["x86_64", "running"]
    assert _ssh(web, key, "cat /root/booted").isdigit()
    assert {"198.51.100.41/32", "2001:db8:51:29::1/64"} <= {f"{one['local']}/{one['prefixlen']}" for one in told}


def test_another_key_is_refused(web, tmp_path):
    """Only the given keys log in."""
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)

    assert _ssh(web, other, "true; echo in", check=False) == ""


def test_a_machine_can_run_containers(web, key):
    """Control groups are writable, packets can be forwarded and rewritten, and the build cache is no overlay."""
    _ssh(web, key, "for group in /sys/fs/cgroup/*/; do mkdir $group/probe && rmdir $group/probe || exit 1; done")
    _ssh(web, key, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    _ssh(
        web,
        key,
        'nft \'table inet probe { chain nat { type nat hook postrouting priority srcnat; oifname "none" masquerade; };'
        " chain forward { type filter hook forward priority 0; ct state established accept; }; }'"
        " && nft delete table inet probe",
    )

    kind = _ssh(web, key, "findmnt -no FSTYPE --target /var/lib/buildkit")

    assert kind not in ("", "overlay")


def test_the_machine_reaches_nothing_outside(web, key):
    """The hub has no route out: not to the host's own networks and not beyond; the host is not to be called either."""
    for address in ("192.0.2.2", "192.0.2.1", "203.0.113.1", "198.51.100.1"):
        assert _ssh(web, key, f"{_dial(address, 22)}") == "closed"


def test_metadata_answers_inside_and_nowhere_else(web, key):
    """A machine reaches the hub's metadata socket as itself; the host has no way to it."""
    listener = network.metadata_socket()
    listener.setblocking(True)
    callers = []

    def answer():
        connection, caller = listener.accept()
        callers.append(caller[0])
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nweb-1")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        said = _ssh(web, key, "curl -s -m 5 http://169.254.169.254/hetzner/v1/metadata/hostname")
        thread.join(5)
    finally:
        listener.close()

    assert said == "web-1"
    assert callers == ["198.51.100.41"]
    route = subprocess.run(["ip", "route", "get", "169.254.169.254"], capture_output=True, text=True, check=False)
    assert "slipway" not in route.stdout


@pytest.mark.parametrize("address", ["198.51.100.41", "2001:db8:51:29::1"])
def test_inbound_rules_hold_outside_the_machine(cloud, web, address):
    """With a firewall only what a rule names gets in, over IPv4 and IPv6; without one all does."""
    asyncio.run(cloud.set_firewall(web.id, None))
    assert (_open(address, 80), _open(address, 81)) == (True, True)

    asyncio.run(cloud.set_firewall(web.id, (_rule("in", 22), _rule("in", 80))))
    assert (_open(address, 80), _open(address, 81)) == (True, False)

    asyncio.run(cloud.set_firewall(web.id, (_rule("in", 80, ("203.0.113.0/24", "2001:db8:ffff::/48")),)))
    assert (_open(address, 80), _open(address, 22)) == (False, False)

    asyncio.run(cloud.set_firewall(web.id, None))
    assert _open(address, 81)


@pytest.fixture
def target():
    """Make a test host with an address of a private range, and a server on it."""
    namespace = network.add_host("target", "198.51.100.3", ("10.99.0.3/32",))
    again = network.add_host("target", "198.51.100.3", ("10.99.0.3/32",))
    assert again == namespace
    server = subprocess.Popen(
        ["ip", "netns", "exec", namespace, "python3", "-m", "http.server", "--bind", "::", "8080"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not _open("198.51.100.3", 8080):
        time.sleep(0.05)
    yield
    server.terminate()
    server.wait()


@pytest.mark.usefixtures("target")
def test_outbound_rules_hold_outside_the_machine(cloud, web, key):
    """Outbound traffic is free until the first outbound rule, then only what a rule names goes out."""
    probe = "; ".join(_dial(address, 8080) for address in ("198.51.100.3", "2001:db8:51::3", "10.99.0.3"))
    assert _ssh(web, key, probe).split() == ["open", "open", "open"]

    asyncio.run(cloud.set_firewall(web.id, (_rule("in", 22), _rule("out", 8080, ("198.51.100.3/32",)))))
    closed = _ssh(web, key, probe).split()
    asyncio.run(cloud.set_firewall(web.id, None))

    assert closed == ["open", "closed", "closed"]


def test_reset_keeps_the_disk_and_rebuild_does_not(cloud, web, key):
    """A reset boots the same disk again, a graceful stop ends cleanly, a rebuild begins anew."""
    _ssh(web, key, "touch /root/mine; sync")

    asyncio.run(cloud.reset(web.id))
    _first_boot(web, key)
    assert _ssh(web, key, "ls /root/mine") == "/root/mine"

    began = time.monotonic()
    asyncio.run(cloud.stop(web.id, graceful=True))
    assert time.monotonic() - began < 20
    assert not asyncio.run(cloud.running(web.id))
    console = cloud.state / "machines/41/console.log"
    assert "Reached target poweroff.target" in console.read_text(errors="replace")  # what follows it may be lost
    assert not _open(web.ipv4, 22)

    asyncio.run(cloud.rebuild(web))
    _first_boot(web, key)
    assert asyncio.run(cloud.running(web.id))
    assert _ssh(web, key, "ls /root/mine; true") == ""


def test_a_reboot_from_inside_comes_back(cloud, web, key):
    """The user's own `reboot` boots the same machine again."""
    first = cgroups.init_pid(web.id)
    _ssh(web, key, "reboot", check=False)
    deadline = time.monotonic() + 30
    while cgroups.init_pid(web.id) in (None, first) and time.monotonic() < deadline:
        time.sleep(0.1)

    _first_boot(web, key)
    assert asyncio.run(cloud.running(web.id))


def test_a_restarted_api_finds_its_machines(cloud, web):
    """Another hypervisor over the same state folder finds what runs, and starting again changes nothing."""
    pid = cgroups.init_pid(web.id)
    successor = Machines(cloud.state, IMAGES)

    asyncio.run(successor.start(web))

    assert asyncio.run(successor.running(web.id))
    assert cgroups.init_pid(web.id) == pid


def test_private_networks_join_members_only(cloud, web, key):
    """Machines of one private network reach each other there, though a firewall closes their public side."""
    first = replace(web, private_addresses=(PrivateAddress(ip="10.0.0.2", network="10.0.0.0/16", network_id=1),))
    second = replace(
        web,
        id=42,
        name="web-2",
        ipv4="198.51.100.42",
        ipv6_network="2001:db8:51:2a::/64",
        private_addresses=(PrivateAddress(ip="10.0.0.3", network="10.0.0.0/16", network_id=1),),
    )

    async def both():
        await asyncio.gather(cloud.start(first), cloud.start(second), cloud.set_firewall(second.id, ()))

    asyncio.run(both())
    deadline = time.monotonic() + 30
    while _ssh(web, key, _dial("10.0.0.3", 22)) != "open" and time.monotonic() < deadline:
        time.sleep(0.2)

    assert _ssh(web, key, _dial("10.0.0.3", 22)) == "open"
    assert _ssh(web, key, _dial("198.51.100.42", 22)) == "closed"
    asyncio.run(cloud.start(replace(first, private_addresses=())))
    assert _ssh(web, key, _dial("10.0.0.3", 22)) == "closed"
    asyncio.run(cloud.delete(second.id))
    assert not (cloud.state / "machines/42").exists()


@pytest.mark.parametrize("moment_s", [0.005, 0.02, 0.05, 0.2])
def test_what_nobody_waits_for_any_more_ends_before_the_next_begins(cloud, spec, moment_s):
    """A start that was cancelled leaves no machine behind the deletion that follows."""
    made = replace(spec, id=47, name="gone", ipv4="198.51.100.47", ipv6_network=None)

    async def change_of_mind():
        start = asyncio.create_task(cloud.start(made))
        await asyncio.sleep(moment_s)
        start.cancel()
        await cloud.delete(made.id)

    asyncio.run(change_of_mind())
    time.sleep(1)

    assert made.id not in cgroups.machine_ids()
    assert network.namespace_of(made.id) not in network.namespaces()
    assert not (cloud.state / "machines/47").exists()


@pytest.fixture
def wired(cloud, spec):  # noqa: ARG001 - the hub that it connects to
    """Give a function that connects a machine without booting it; its links are removed afterwards."""
    ids = []

    def connect(number, ip, network_id):
        ids.append(number)
        address = PrivateAddress(ip=ip, network="10.0.0.0/16", network_id=network_id)
        made = replace(spec, id=number, ipv4=f"198.51.100.{number}", ipv6_network=None, private_addresses=(address,))
        network.attach(made)
        private_networks.sync(made)
        return made

    yield connect
    for number in ids:
        network.detach(number)


def _in(machine, *command):
    namespace = network.namespace_of(machine.id)
    return subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False)


def _reaches(machine, address):
    """Tell whether a call to a port that nobody serves is refused by the machine that has the address."""
    call = f"import socket\ntry: socket.create_connection(('{address}', 9), 1)\nexcept ConnectionRefusedError: print('there')"
    return _in(machine, "python3", "-c", call + "\nexcept OSError: pass").stdout == "there\n"


def test_two_private_networks_of_the_same_range_are_apart(wired):
    """The API allows them, so a machine is told which of the two it is in."""
    first = wired(44, "10.0.0.2", 1)
    wired(45, "10.0.0.3", 1)
    wired(46, "10.0.0.4", 2)

    assert [_reaches(first, address) for address in ("10.0.0.3", "10.0.0.4")] == [True, False]


def test_an_attachment_that_failed_half_way_is_made_whole(wired):
    """The next attempt does not take what is there for the whole."""
    first, second = wired(44, "10.0.0.2", 1), wired(45, "10.0.0.3", 1)
    apart = replace(second, private_addresses=())
    private_networks.sync(apart)
    _in(second, "ip", "route", "add", "10.0.0.0/16", "dev", "lo")
    with pytest.raises(CommandFailed):
        private_networks.sync(second)
    _in(second, "ip", "route", "del", "10.0.0.0/16", "dev", "lo")

    private_networks.sync(second)

    assert _reaches(second, first.private_addresses[0].ip)


def test_a_machine_that_dies_while_booting_tells_why(cloud, spec):
    """The failure carries the console's last words, and nothing of the machine is left running."""
    broken = replace(spec, id=43, name="broken", ipv4="198.51.100.43", ipv6_network=None)
    disk = cloud.state / "machines/43/disk"
    make_disk(disk, broken)
    init = disk / "upper/usr/lib/systemd/systemd"
    init.parent.mkdir(parents=True)
    init.write_text("#!/bin/sh\necho out of luck; exit 1\n")
    init.chmod(0o755)

    with pytest.raises(MachineFailed, match=r"machine broken: stopped while it booted: .*out of luck"):
        asyncio.run(cloud.start(broken))

    assert not asyncio.run(cloud.running(broken.id))
    assert 43 not in cgroups.machine_ids()
    assert network.namespace_of(43) not in network.namespaces()
    asyncio.run(cloud.delete(broken.id))


def test_a_missing_image_names_the_cure(spec, tmp_path):
    """Without the image of its architecture a server fails with what to run."""
    with pytest.raises(MachineFailed, match=r"amd64 is missing: run scripts/setup"):
        asyncio.run(Machines(tmp_path, tmp_path / "images").start(replace(spec, id=46)))


def test_an_arm_machine_has_an_arm_userland(cloud, spec, key):
    """An ARM64 server says so itself, also to user data that asks; it is fully up, and stops when asked."""
    arm = replace(spec, id=44, name="arm-1", architecture="arm", ipv4="198.51.100.44", ipv6_network=None)

    asyncio.run(cloud.start(arm))
    _first_boot(arm, key)

    asked = "uname -m; cloud-init query v1.machine; dpkg --print-architecture; systemctl is-system-running --wait"
    told = _ssh(arm, key, asked).split()
    asyncio.run(cloud.stop(arm.id, graceful=True))
    console = (cloud.state / "machines/44/console.log").read_text(errors="replace")
    assert told == ["aarch64", "aarch64", "arm64", "running"]
    assert "Reached target poweroff.target" in console  # what follows it may be lost
    asyncio.run(cloud.delete(arm.id))
