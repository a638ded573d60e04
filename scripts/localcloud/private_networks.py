"""Private networks: each is a namespace of its own that routes between its members, past every firewall, as at Hetzner."""

from __future__ import annotations

import json
import threading
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from scripts.localcloud.commands import ip, run
from scripts.localcloud.network import FORWARDING, NAMESPACES, PREFIX, namespace_of, namespaces

if TYPE_CHECKING:
    from scripts.localcloud.hypervisor import MachineSpec, PrivateAddress

_routers = threading.Lock()


def sync(spec: MachineSpec) -> None:
    """Give a machine exactly the private addresses of `spec`; interfaces that stay as they are keep their traffic."""
    namespace = namespace_of(spec.id)
    links = json.loads(run("ip", "-n", namespace, "-j", "link", "show", "type", "veth") or "[]")
    present = {link.get("ifalias", ""): link["ifname"] for link in links if link["ifname"] != "eth0"}
    wanted = {
        f"{one.network_id} {one.network} {one.ip} {' '.join(one.alias_ips)}".strip(): one
        for one in spec.private_addresses
    }
    gone = [name for alias, name in present.items() if alias not in wanted]
    if gone:
        ip([f"link del {name}" for name in gone], namespace=namespace)
    free = (f"eth{slot}" for slot in range(1, 100) if f"eth{slot}" not in set(present.values()) - set(gone))
    for alias, address in wanted.items():
        if alias not in present:
            _join(spec.id, next(free), alias, address)


def _join(machine_id: int, name: str, alias: str, address: PrivateAddress) -> None:
    network = IPv4Network(address.network)
    router = f"{PREFIX}net-{address.network_id}"
    with _routers:
        if router not in namespaces():
            ip([f"netns add {router}"])
        run("nsenter", f"--net={NAMESPACES / router}", "sysctl", "-qw", *FORWARDING)
    namespace, link, gateway = namespace_of(machine_id), f"p{machine_id}", network[1]
    ip([f"link del {link}"], namespace=router, force=True)
    ip([f"link add {link} netns {router} type veth peer name {name} netns {namespace}"])
    ip(
        [
            f"addr add {gateway}/32 dev {link}",
            f"link set {link} up",
            *(f"route replace {one}/32 dev {link}" for one in (address.ip, *address.alias_ips)),
        ],
        namespace=router,
    )
    ip(
        [
            f"addr add {address.ip}/32 dev {name}",
            f"link set {name} up",
            f"route add {gateway} dev {name}",
            f"route add {network} via {gateway} dev {name}",
            f'link set {name} alias "{alias}"',  # last: what is called so is whole
        ],
        namespace=namespace,
    )
