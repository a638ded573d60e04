"""The cloud's network on this host: a hub namespace that routes between machines, the host and test hosts.

Every machine has a network namespace of its own and a veth pair to the hub, which is its gateway as at Hetzner: 172.31.1.1 and
fe80::1. The hub has no route to anything but these, so nothing leaves the host. All names begin with `slipway-`, which is how
`remove` finds them.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.localcloud.commands import CommandFailed, ip, nft, run
from scripts.localcloud.firewall import HUB as HUB_RULES
from scripts.localcloud.firewall import interface_of, render_firewall

if TYPE_CHECKING:
    from scripts.localcloud.hypervisor import FirewallRule, MachineSpec

PREFIX = "slipway-"
HUB = f"{PREFIX}hub"
HOST_LINK = f"{PREFIX}host"
IPV4 = IPv4Network("198.51.100.0/24")
IPV6 = IPv6Network("2001:db8:51::/48")
HOST_IPV4, HOST_IPV6 = "198.51.100.1", "2001:db8:51::1"
GATEWAY_IPV4, GATEWAY_IPV6 = "172.31.1.1", "fe80::1"
METADATA_IPV4 = "169.254.169.254"
TEST_HOSTS = range(2, 8)
"""Last numbers of test hosts' addresses; the Kubernetes node has 8."""
NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
FORWARDING = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0")


class AddressTaken(OSError):
    """A test host cannot have an address."""


def namespace_of(machine_id: int) -> str:
    """Name a machine's network namespace."""
    return f"{PREFIX}server-{machine_id}"


def namespaces() -> list[str]:
    """List the network namespaces that are ours."""
    return sorted(path.name for path in NAMESPACES.glob(f"{PREFIX}*")) if NAMESPACES.is_dir() else []


def hosts() -> list[str]:
    """List the namespaces of test hosts."""
    others = re.compile(rf"{PREFIX}(hub|server-\d+|net-\d+)")
    return [name for name in namespaces() if not others.fullmatch(name)]


def host_ipv6(ipv4: str) -> str:
    """Give the IPv6 address of a test host: it ends in the digits that its IPv4 address ends in."""
    return f"2001:db8:51::{IPv4Address(ipv4).packed[3]}"


def ranges_in_use() -> str | None:
    """Say which of our ranges another interface of this host already holds, if one does."""
    for family, ours in (("-4", IPV4), ("-6", IPV6)):
        for route in json.loads(run("ip", "-j", family, "route", "show", "table", "all") or "[]"):
            if route.get("dst", "default") == "default" or route.get("dev") in (None, HOST_LINK, "lo"):
                continue
            if ip_network(route["dst"], strict=False).overlaps(ours):
                return f"{ours} is in use on this host: {route['dst']} on {route['dev']}"
    return None


def open_hub() -> None:
    """Make the hub, its rules and the host's link to it; what is there already is kept."""
    if HUB not in namespaces():
        run("ip", "netns", "add", HUB)
    run("nsenter", f"--net={NAMESPACES / HUB}", "sysctl", "-qw", *FORWARDING)
    if not (Path("/sys/class/net") / HOST_LINK).exists():
        ip([f"link add {HOST_LINK} type veth peer name host netns {HUB}"])
    ip(
        [
            "link set lo up",
            f"addr replace {METADATA_IPV4}/32 dev lo",
            *_gateway_side("host", HOST_IPV4, f"{HOST_IPV6}/128"),
        ],
        namespace=HUB,
    )
    ip(
        [
            f"addr replace {HOST_IPV4}/32 dev {HOST_LINK}",
            f"addr replace {HOST_IPV6}/128 dev {HOST_LINK} nodad",
            f"link set {HOST_LINK} up",
            f"route replace {IPV4} via {GATEWAY_IPV4} dev {HOST_LINK} onlink src {HOST_IPV4}",
            f"route replace {IPV6} via {GATEWAY_IPV6} dev {HOST_LINK} src {HOST_IPV6}",
        ]
    )
    nft(HUB_RULES, namespace=HUB)


def metadata_socket() -> socket.socket:
    """Open the listening socket at 169.254.169.254:80 inside the hub; nothing outside the hub can reach it."""
    result: list[socket.socket | OSError] = []

    def listen() -> None:
        # A thread has a network namespace of its own, and a socket keeps the one it was made in.
        try:
            with (NAMESPACES / HUB).open() as hub:
                if ctypes.CDLL(None, use_errno=True).setns(hub.fileno(), _CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))  # noqa: TRY301
            server = socket.create_server((METADATA_IPV4, 80), backlog=128)
            server.setblocking(False)
            result.append(server)
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def attach(spec: MachineSpec) -> None:
    """Make a machine's namespace afresh, with its public addresses."""
    detach(spec.id)
    _join(namespace_of(spec.id), interface_of(spec.id), spec.ipv4, spec.ipv6_network)


def detach(machine_id: int) -> None:
    """Remove a machine's namespace and links; its firewall rules stay."""
    ip([f"link del {interface_of(machine_id)}"], namespace=HUB, force=True)
    ip([f"netns del {namespace_of(machine_id)}"], force=True)


def set_firewall(machine_id: int, rules: tuple[FirewallRule, ...] | None) -> None:
    """Replace a machine's rules in one transaction."""
    nft(render_firewall(machine_id, rules), namespace=HUB)


def add_host(name: str, ipv4: str, also: tuple[str, ...] = ()) -> str:
    """Make the namespace of a test host, or bring it up to date; returns the namespace's name.

    The addresses of `also` are its own too, and routed to it. Raises `AddressTaken` for one that is somebody else's.
    """
    namespace, link = f"{PREFIX}{name}", f"h-{name}"
    for address in (ipv4, *also):
        if (holder := _holder(address)) not in (None, link):
            raise AddressTaken(f"{address}: another has it, behind {holder} of {HUB}")
    if namespace in namespaces() and not _is_joined(namespace):  # a killed command has left it
        ip([f"netns del {namespace}"])
    if namespace not in namespaces():
        _join(namespace, link, ipv4, f"{host_ipv6(ipv4)}/128")
    if _holder(ipv4) != link:
        raise AddressTaken(f"{namespace}: it has another address than {ipv4}, and keeps it until `down`")
    for interface in (IPv4Interface(text) for text in also):
        ip([f"addr replace {interface.ip}/32 dev eth0"], namespace=namespace)
        ip([f"route replace {interface.ip}/32 dev {link}"], namespace=HUB)
    return namespace


def remove() -> None:
    """Remove every namespace and link of ours, and end what still runs inside; done when nothing is left."""
    for namespace in namespaces():
        _end_processes(namespace)
    ip([f"netns del {namespace}" for namespace in namespaces()], force=True)
    ip([f"link del {HOST_LINK}"], force=True)
    # The kernel takes a namespace and its links down in the background.
    deadline = time.monotonic() + 5
    while (Path("/sys/class/net") / HOST_LINK).exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _join(namespace: str, link: str, ipv4: str | None, ipv6: str | None) -> None:
    """Make a namespace and connect it to the hub; `ipv6` is a /64 (the first address is taken) or one address."""
    ip([f"netns add {namespace}", f"link add {link} netns {HUB} type veth peer name eth0 netns {namespace}"])
    ip(_gateway_side(link, ipv4, ipv6), namespace=HUB)
    lines = ["link set lo up"]
    if ipv4:
        lines.append(f"addr add {ipv4}/32 dev eth0")
    if ipv6:
        network = IPv6Network(ipv6)
        first = network[1] if network.prefixlen < 128 else network[0]
        lines.append(f"addr add {first}/{network.prefixlen} dev eth0 nodad")
    lines.append("link set eth0 up")
    if ipv4:
        lines += [f"route add {GATEWAY_IPV4} dev eth0", f"route add default via {GATEWAY_IPV4} dev eth0"]
    if ipv6:
        lines.append(f"route add default via {GATEWAY_IPV6} dev eth0")
    ip(lines, namespace=namespace)


def _holder(address: str) -> str | None:
    """Name the link of the hub behind which an address is."""
    routes = json.loads(run("ip", "-n", HUB, "-j", "route", "show", "exact", address) or "[]")
    return next((route["dev"] for route in routes), None)


def _is_joined(namespace: str) -> bool:
    """Tell whether a namespace has what `_join` gives it last."""
    return bool(json.loads(run("ip", "-n", namespace, "-6", "-j", "route", "show", "default") or "[]"))


def _gateway_side(link: str, ipv4: str | None, ipv6: str | None) -> list[str]:
    return [
        f"addr replace {GATEWAY_IPV4}/32 dev {link}",
        f"addr replace {GATEWAY_IPV6}/64 dev {link} nodad",
        f"link set {link} up",
        *([f"route replace {ipv4}/32 dev {link}"] if ipv4 else []),
        *([f"route replace {ipv6} dev {link}"] if ipv6 else []),
    ]


def _end_processes(namespace: str) -> None:
    """End the processes that live in one of our namespaces, politely for two seconds."""
    for signal_number, patience_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + patience_s
        pids = _pids(namespace)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        while pids and time.monotonic() < deadline:
            time.sleep(0.02)
            pids = _pids(namespace)
        if not pids:
            return


def _pids(namespace: str) -> list[int]:
    with suppress(CommandFailed):
        return [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]
    return []
