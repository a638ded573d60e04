"""What a server is told about itself at 169.254.169.254, in the vendor's form: a document and the same values one by one."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any

from scripts.localcloud import catalog, records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.localcloud.cloud import Cloud


def tree(cloud: Cloud, server: records.Server) -> Mapping[str, str]:
    """Give all of a server's metadata: path below /hetzner/v1/metadata → text; "" is the whole document."""
    ipv4 = cloud.addresses(server.id).get("ipv4")
    places = [_place(cloud, server, number) for number in range(len(server.private_net))]
    values: dict[str, Any] = {
        "hostname": server.name,
        "instance-id": server.id,
        "local-ipv4": server.private_net[0].ip if server.private_net else "",
        "private-networks": places,
        "public-ipv4": ipv4.ip if ipv4 else "",
        "public-keys": list(server.ssh_keys),
        "region": catalog.location_named(server.location).network_zone,
    }
    # JSON is YAML too: the document needs no YAML library on either side.
    document = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
    return {"": document, **{key: _text(value) for key, value in values.items()}}


def find_server(cloud: Cloud, source: str) -> records.Server | None:
    """Find the server that a request comes from, by any of its addresses."""
    address = ipaddress.ip_address(source.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    for ip in cloud.store.all(records.PrimaryIp):
        if ip.server is not None and address in ipaddress.ip_network(ip.ip):
            return cloud.store.get(records.Server, ip.server)
    private = (each for each in cloud.store.all(records.Server) if any(p.ip == str(address) for p in each.private_net))
    return next(private, None)


def _place(cloud: Cloud, server: records.Server, number: int) -> dict[str, Any]:
    place = server.private_net[number]
    network = cloud.store.get(records.Network, place.network)
    subnets = network.subnets if network else ()
    inside = (s.ip_range for s in subnets if ipaddress.ip_address(place.ip) in ipaddress.ip_network(s.ip_range))
    return {
        "ip": place.ip,
        "alias_ips": list(place.alias_ips),
        "interface_num": number + 2,
        "mac_address": place.mac_address,
        "network_id": place.network,
        "network_name": network.name if network else "",
        "network": network.ip_range if network else "",
        "subnet": next(inside, ""),
        "gateway": str(ipaddress.ip_network(network.ip_range)[1]) if network else "",
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
