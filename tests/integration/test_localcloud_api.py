"""The local cloud's API as the official Python client sees it: every call round-trips, every refusal has its code."""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal

import hcloud
import httpx
import pytest
from hcloud import APIException
from hcloud.actions import ActionFailedException
from hcloud.firewalls import FirewallResource, FirewallResourceLabelSelector, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.networks import NetworkRoute, NetworkSubnet
from hcloud.placement_groups import PlacementGroup
from hcloud.primary_ips import PrimaryIP
from hcloud.server_types import ServerType
from hcloud.servers import ServerCreatePublicNetwork
from hcloud.ssh_keys import SSHKey

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBgyJnt3VLFDAilumDd+IoYcVG8CSAhLpGNOzge8noc9 test"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBcwpuERU6IdxXRRpG6IcMu2rmcohgHcx63hrnjBupam test"
FSN1, NBG1 = Location(name="fsn1"), Location(name="nbg1")
DEBIAN = Image(name="debian-12")
CAX11, CX23, CX33 = ServerType(name="cax11"), ServerType(name="cx23"), ServerType(name="cx33")
SSH_IN = FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["192.0.2.0/24", "2001:db8::/32"])


@pytest.fixture
def client(localcloud):
    """Make the official client."""
    return hcloud.Client(
        localcloud.token, api_endpoint=localcloud.endpoint, poll_interval=0.005, poll_max_retries=5_000
    )


def order(client, name="one", server_type=CX23, *, wait=True, **options):
    """Order a server and wait until it runs."""
    response = client.servers.create(name, server_type, DEBIAN, location=options.pop("location", FSN1), **options)
    if wait:
        finish(response.action, *response.next_actions)
    return response.server


def finish(*actions):
    """Wait for actions."""
    for action in actions:
        action.wait_until_finished()


@contextmanager
def refused(code, message=""):
    """Expect an error of the API."""
    with pytest.raises(APIException) as caught:
        yield caught
    assert caught.value.code == code
    assert message in caught.value.message
    assert caught.value.correlation_id


def raw(localcloud, method, path, **options):
    """Call without a client that knows better."""
    headers = {"Authorization": f"Bearer {localcloud.token}"}
    return httpx.request(method, localcloud.endpoint + path, headers=headers, **options)


class TestCatalog:
    """What can be rented."""

    def test_locations(self, client):
        """Six locations with their zones; one by name and by id."""
        assert [each.name for each in client.locations.get_all()] == ["fsn1", "nbg1", "hel1", "ash", "hil", "sin"]
        assert client.locations.get_by_name("hel1").network_zone == "eu-central"
        assert client.locations.get_by_id(1).city == "Falkenstein"

    def test_server_types(self, client):
        """Architecture, sizes and where they are offered; removed ones are not found."""
        cax21 = client.server_types.get_by_name("cax21")

        assert (cax21.architecture, cax21.cores, cax21.memory, cax21.disk) == ("arm", 4, 8, 80)
        assert [each.location.name for each in cax21.locations] == ["fsn1", "nbg1", "hel1"]
        assert [each.available for each in cax21.locations] == [True, True, True]
        assert client.server_types.get_by_id(cax21.id).name == "cax21"
        assert client.server_types.get_by_name("cx22") is None

    def test_images(self, client):
        """An image per architecture; deprecated ones only when asked."""
        both = client.images.get_all(name="debian-12")

        assert sorted(image.architecture for image in both) == ["arm", "x86"]
        assert client.images.get_by_name_and_architecture("debian-12", "arm").architecture == "arm"
        assert client.images.get_by_id(both[0].id).os_flavor == "debian"
        assert client.images.get_all(name="debian-11") == []
        assert len(client.images.get_all(name="debian-11", include_deprecated=True)) == 2

    def test_pricing(self, localcloud):
        """Decimal strings per type and location."""
        pricing = raw(localcloud, "GET", "/pricing").json()["pricing"]

        cx33 = next(each for each in pricing["server_types"] if each["name"] == "cx33")
        at_fsn1 = next(each for each in cx33["prices"] if each["location"] == "fsn1")
        assert Decimal(at_fsn1["price_monthly"]["net"]) == Decimal("8.49")
        assert Decimal(at_fsn1["price_hourly"]["net"]) == Decimal("0.0136057692")
        assert pricing["currency"] == "EUR"

    def test_datacenters_are_gone(self, client):
        """410 since 2026-10-01, with the announcement."""
        with refused("deprecated_api_endpoint") as caught:
            client.request("GET", "/datacenters")

        assert "datacenters-deprecated" in caught.value.details["announcement"]


class TestSshKeys:
    """/ssh_keys."""

    def test_round_trip(self, client):
        """Create, find, change, delete."""
        key = client.ssh_keys.create("laptop", KEY, labels={"team": "a"})

        assert key.fingerprint == "d6:54:28:4d:82:21:b1:6e:3b:50:73:dc:e8:61:1c:49"
        assert client.ssh_keys.get_by_fingerprint(key.fingerprint).id == key.id
        assert client.ssh_keys.get_by_name("laptop").public_key == KEY
        key = client.ssh_keys.update(key, name="desk", labels={"team": "b"})
        assert (client.ssh_keys.get_by_id(key.id).name, key.labels) == ("desk", {"team": "b"})
        key.delete()
        with refused("not_found"):
            client.ssh_keys.get_by_id(key.id)

    def test_the_same_key_twice(self, client):
        """Refused by fingerprint, whatever the name; the details name the field."""
        client.ssh_keys.create("laptop", KEY)

        with refused("uniqueness_error", "SSH key with the same fingerprint already exists") as caught:
            client.ssh_keys.create("other", KEY)
        assert caught.value.details["fields"][0]["name"] == "public_key"
        with refused("uniqueness_error") as caught:
            client.ssh_keys.create("laptop", OTHER_KEY)
        assert caught.value.details["fields"][0]["name"] == "name"

    @pytest.mark.parametrize("key", ["", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-rsa " + KEY.split()[1]])
    def test_what_is_no_public_key(self, client, key):
        """Refused with the field's name."""
        with refused("invalid_input", "'public_key'"):
            client.ssh_keys.create("laptop", key)


class TestServers:
    """/servers: order, show, change, delete."""

    def test_an_order_has_two_actions_and_a_status_for_each_step(self, localcloud, client):
        """Initializing and locked, then starting, then running with both addresses."""
        httpx.put(f"{localcloud.control}/speed", json={"action_factor": 0.1}).raise_for_status()
        key = client.ssh_keys.create("laptop", KEY)
        response = client.servers.create(
            "arm64-1",
            CAX11,
            DEBIAN,
            location=FSN1,
            ssh_keys=[key],
            labels={"slipway": "x"},
            user_data="#cloud-config\n",
        )

        assert (response.server.status, response.action.command) == ("initializing", "create_server")
        assert response.server.reload() is None
        assert response.server.locked
        assert [action.command for action in response.next_actions] == ["start_server"]
        finish(response.action)
        finish(*response.next_actions)
        server = client.servers.get_by_id(response.server.id)
        assert (server.status, server.locked, server.name) == ("running", False, "arm64-1")
        assert server.public_net.ipv4.ip == "198.51.100.10"
        assert server.public_net.ipv6.ip == "2001:db8:51:1::/64"
        assert (server.server_type.name, server.location.name, server.image.architecture) == ("cax11", "fsn1", "arm")
        assert (server.primary_disk_size, server.labels, server.rescue_enabled) == (40, {"slipway": "x"}, False)

    def test_an_action_makes_progress_and_ends(self, localcloud, client):
        """Percent below 100 while it runs; a finish time when it is done."""
        httpx.put(f"{localcloud.control}/speed", json={"action_factor": 0.05}).raise_for_status()
        response = client.servers.create("one", CX23, DEBIAN)

        assert (response.action.status, response.action.finished) == ("running", None)
        assert response.action.progress < 100
        finish(response.action)
        assert (response.action.status, response.action.progress) == ("success", 100)
        assert response.action.finished is not None
        assert response.action.resources == [{"id": response.server.id, "type": "server"}]

    def test_not_started_after_creation(self, client):
        """It is off and has no action to start it."""
        response = client.servers.create("one", CX23, DEBIAN, start_after_create=False)
        finish(response.action)

        assert response.next_actions == []
        assert client.servers.get_by_id(response.server.id).status == "off"

    def test_find_change_delete(self, client):
        """By name, label and status; new name and labels; gone after deletion, with its own addresses."""
        server = order(client, "one", labels={"a": "b"})

        assert client.servers.get_by_name("one").id == server.id
        assert [each.id for each in client.servers.get_all(label_selector="a in (b,c)")] == [server.id]
        assert client.servers.get_all(label_selector="!a") == []
        assert client.servers.get_all(status=["off"]) == []
        server = server.update(name="two", labels={})
        assert (server.name, server.labels) == ("two", {})
        finish(server.delete())
        assert client.servers.get_all() == []
        assert client.primary_ips.get_all() == []
        with refused("not_found"):
            server.delete()

    def test_names_are_unique(self, client):
        """409, with the field."""
        order(client, "one", wait=False)

        with refused("uniqueness_error") as caught:
            order(client, "one")
        assert caught.value.details["fields"][0]["name"] == "name"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "no_hostname"}, "'name'"),
            ({"name": ""}, "'name'"),
            ({"name": 5}, "'name'"),
            ({"server_type": "cx22"}, "server type 'cx22' not found"),
            ({"location": "fsn9"}, "location 'fsn9' not found"),
            ({"location": "ash"}, "unsupported location for server type"),
            ({"image": "debian-99"}, "image 'debian-99' not found"),
            ({"image": 114690389}, "'image'"),
            ({"ssh_keys": ["nobody"]}, "SSH key 'nobody' not found"),
            ({"user_data": "x" * 32769}, "'user_data'"),
            ({"user_data": "ä" * 16385}, "'user_data'"),
            ({"labels": {"a b": "c"}}, "'labels'"),
            ({"labels": {"a": 1}}, "'labels[...]'"),
            ({"firewalls": [{"firewall": 4}]}, "firewall '4' not found"),
            ({"networks": [4]}, "network '4' not found"),
            ({"volumes": [4]}, "volume '4' not found"),
            ({"placement_group": 4}, "placement group '4' not found"),
            ({"public_net": {"enable_ipv4": False, "enable_ipv6": False}}, "'public_net'"),
            ({"public_net": {"enable_ipv4": False, "ipv4": 1}}, "'public_net.ipv4'"),
        ],
    )
    def test_bad_input(self, client, change, message):
        """Refused as invalid_input that names the field; nothing is left behind."""
        body = {"name": "one", "server_type": "cx23", "image": "debian-12", "location": "fsn1"} | change

        with refused("invalid_input", message):
            client.request("POST", "/servers", json=body)
        assert client.servers.get_all() == []
        assert client.primary_ips.get_all() == []

    def test_32_kib_of_user_data_are_allowed(self, client):
        """The limit itself is inside."""
        order(client, user_data="x" * 32768)

    def test_missing_fields_are_named(self, client):
        """details.fields[] says which."""
        with refused("invalid_input", "invalid input in field 'server_type'") as caught:
            client.request("POST", "/servers", json={"name": "one"})

        assert caught.value.details["fields"] == [
            {"name": "server_type", "messages": ["Missing data for required field."]}
        ]

    def test_what_is_locked(self, localcloud, client):
        """While one action runs another is refused, deletion too."""
        httpx.put(f"{localcloud.control}/speed", json={"action_factor": 1}).raise_for_status()
        server = order(client, wait=False)

        with refused("locked"):
            server.power_off()
        with refused("locked"):
            server.delete()
        assert raw(localcloud, "DELETE", f"/servers/{server.id}").status_code == 423


class TestServerActions:
    """/servers/{id}/actions."""

    def test_power(self, client):
        """Off and on, by each of the calls."""
        server = order(client)

        for call, status in (
            (server.power_off, "off"),
            (server.power_off, "off"),
            (server.power_on, "running"),
            (server.power_on, "running"),
            (server.reboot, "running"),
            (server.reset, "running"),
            (server.shutdown, "off"),
            (server.reset, "running"),
        ):
            finish(call())
            server.reload()
            assert server.status == status

    def test_reboot_of_a_server_that_is_off(self, client):
        """Refused: nobody is there to be asked."""
        server = order(client, start_after_create=False)

        with refused("invalid_input", "is off"):
            server.reboot()

    def test_rebuild_takes_new_user_data(self, client):
        """The image and, where given, the user data change; the server keeps its addresses."""
        server = order(client, user_data="old")
        address = server.public_net.ipv4.ip

        finish(server.rebuild(DEBIAN, user_data="new").action)

        server.reload()
        assert (server.status, server.public_net.ipv4.ip) == ("running", address)
        with refused("invalid_input", "'user_data'"):
            server.rebuild(DEBIAN, user_data="x" * 40000)

    def test_change_type(self, client):
        """Only when off, only within the architecture, the disk never smaller; it is started again by that."""
        server = order(client, server_type=CX33)

        with refused("server_not_stopped"):
            server.change_type(ServerType(name="cx43"), upgrade_disk=True)
        finish(server.power_off())
        with refused("invalid_server_type"):
            server.change_type(CAX11, upgrade_disk=False)
        with refused("invalid_server_type", "too small"):
            server.change_type(CX23, upgrade_disk=False)
        finish(server.change_type(ServerType(name="cx43"), upgrade_disk=False))
        server.reload()
        assert (server.server_type.name, server.primary_disk_size, server.status) == ("cx43", 80, "running")
        finish(server.power_off())
        finish(server.change_type(CX33, upgrade_disk=True))

    def test_protection(self, client):
        """Deletion and rebuild are refused until it is lifted; both go together."""
        server = order(client)

        finish(server.change_protection(delete=True, rebuild=True))
        with refused("protected"):
            server.delete()
        with refused("protected"):
            server.rebuild(DEBIAN)
        with refused("invalid_input", "'delete', 'rebuild'"):
            server.change_protection(delete=False)
        finish(server.change_protection(delete=False, rebuild=False), server.delete())

    def test_backups_are_on_record(self, client):
        """A window while they are on, none after."""
        server = order(client)

        finish(server.enable_backup())
        server.reload()
        assert server.backup_window == "22-02"
        finish(server.disable_backup())
        server.reload()
        assert server.backup_window is None

    def test_snapshots(self, client):
        """Recorded, found by label, changed, protected, deleted; none can boot a server here, and the action says so."""
        server = order(client)
        response = server.create_image(description="before", labels={"keep": "yes"})
        finish(response.action)

        image = client.images.get_all(label_selector="keep=yes", type=["snapshot"])[0]
        assert (image.id, image.status, image.description) == (response.image.id, "available", "before")
        assert (image.created_from.id, image.architecture) == (server.id, "x86")
        image = image.update(description="after", labels={})
        finish(image.change_protection(delete=True))
        with refused("protected"):
            image.delete()
        finish(image.change_protection(delete=False))
        made = client.servers.create("two", CX23, image)
        finish(made.action)
        with pytest.raises(ActionFailedException, match="the local cloud keeps no disk of a snapshot"):
            finish(*made.next_actions)
        assert client.servers.get_by_id(made.server.id).status == "off"
        image.delete()
        with refused("not_found"):
            client.images.get_by_id(image.id)

    def test_system_images_belong_to_the_vendor(self, client):
        """They cannot be changed or deleted."""
        image = client.images.get_by_name_and_architecture("debian-12", "x86")

        with refused("forbidden"):
            image.delete()

    def test_what_the_local_cloud_does_not_have(self, client):
        """Rescue system, console and ISOs are refused in words, never answered with a pretence."""
        server = order(client)

        for call in (server.enable_rescue, server.disable_rescue, server.request_console, server.detach_iso):
            with refused("unsupported_error", "the local cloud has no"):
                call()

    def test_reverse_names(self, client):
        """Set on the server or on its address, and dropped again."""
        server = order(client)
        address = server.public_net.ipv4.ip

        finish(server.change_dns_ptr(address, "builder.example"))
        server.reload()
        assert server.public_net.ipv4.dns_ptr == "builder.example"
        finish(server.change_dns_ptr(address, None))
        server.reload()
        assert server.public_net.ipv4.dns_ptr == "static.10.100.51.198.clients.your-server.de"
        with refused("invalid_input", "'ip'"):
            server.change_dns_ptr("198.51.100.99", "x.example")


class TestActions:
    """/actions."""

    def test_many_by_id_in_one_call(self, localcloud, client):
        """`?id=…&id=…` gives just these, sorted as asked; the list of all is gone."""
        one, two = order(client, "one"), order(client, "two")
        ids = [action.id for server in (one, two) for action in server.get_actions()]

        query = [("id", number) for number in (*ids, 99)] + [("sort", "status"), ("sort", "id:desc"), ("per_page", 50)]
        found = raw(localcloud, "GET", "/actions", params=query).json()
        assert [action["id"] for action in found["actions"]] == sorted(ids, reverse=True)
        assert found["meta"]["pagination"]["total_entries"] == len(ids) == 4
        assert raw(localcloud, "GET", "/actions").status_code == 410

    def test_per_resource(self, client):
        """Of one server, of all servers, one by its id; filtered by status."""
        server = order(client)
        commands = [action.command for action in server.get_actions(sort=["id"])]

        assert commands == ["create_server", "start_server"]
        assert len(client.servers.actions.get_all()) == 2
        assert server.get_actions(status=["running"]) == []
        action = server.get_actions(sort=["id"])[0]
        assert client.actions.get_by_id(action.id).command == "create_server"
        assert client.servers.actions.get_by_id(action.id).status == "success"
        with refused("not_found"):
            client.volumes.actions.get_by_id(action.id)


class TestFirewalls:
    """/firewalls."""

    def test_round_trip(self, client):
        """Rules as they were given; changed, applied, taken off, deleted."""
        server = order(client)
        response = client.firewalls.create("builders", rules=[SSH_IN], labels={"a": "b"})
        finish(*response.actions)
        firewall = client.firewalls.get_by_name("builders")

        assert firewall.rules == [SSH_IN]
        finish(*firewall.apply_to_resources([FirewallResource(type="server", server=server)]))
        firewall.reload()
        assert firewall.applied_to[0].server.id == server.id
        server.reload()
        assert [(each.firewall.id, each.status) for each in server.public_net.firewalls] == [(firewall.id, "applied")]
        with refused("resource_in_use"):
            firewall.delete()
        with refused("firewall_already_applied"):
            firewall.apply_to_resources([FirewallResource(type="server", server=server)])
        out = FirewallRule(direction="out", protocol="icmp", destination_ips=["0.0.0.0/0"], description="ping")
        finish(*firewall.set_rules([SSH_IN, out]))
        firewall.reload()
        assert firewall.rules == [SSH_IN, out]
        finish(*firewall.remove_from_resources([FirewallResource(type="server", server=server)]))
        firewall = firewall.update(name="other", labels={})
        assert (firewall.name, firewall.labels) == ("other", {})
        firewall.delete()
        assert client.firewalls.get_all() == []

    def test_by_label_selector(self, client):
        """It covers servers that come later, and cannot be taken off one of them by hand."""
        target = FirewallResource(
            type="label_selector", label_selector=FirewallResourceLabelSelector(selector="slipway=x")
        )
        firewall = client.firewalls.create("builders", rules=[SSH_IN], resources=[target]).firewall
        server = order(client, labels={"slipway": "x"})

        firewall.reload()
        assert firewall.applied_to[0].applied_to_resources[0].server.id == server.id
        with refused("firewall_managed_by_label_selector"):
            firewall.remove_from_resources([FirewallResource(type="server", server=server)])
        server.update(labels={})
        server.reload()
        assert server.public_net.firewalls == []

    def test_at_creation_of_a_server(self, client):
        """It is applied before the server starts, and lets go of a deleted one."""
        firewall = client.firewalls.create("builders", rules=[SSH_IN]).firewall
        server = order(client, firewalls=[firewall])
        server.reload()

        assert server.public_net.firewalls[0].firewall.id == firewall.id
        finish(server.delete())
        firewall.delete()

    def test_a_server_that_is_not_there(self, client):
        """Its own code."""
        firewall = client.firewalls.create("builders").firewall

        with refused("firewall_resource_not_found"):
            client.request(
                "POST",
                f"/firewalls/{firewall.id}/actions/apply_to_resources",
                json={"apply_to": [{"type": "server", "server": {"id": 4}}]},
            )

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"port": None}, "rules[0].port"),
            ({"port": "0"}, "rules[0].port"),
            ({"port": "90-80"}, "rules[0].port"),
            ({"port": "70000"}, "rules[0].port"),
            ({"protocol": "icmp"}, "rules[0].port"),
            ({"protocol": "sctp"}, "rules[0].protocol"),
            ({"source_ips": []}, "rules[0].source_ips"),
            ({"source_ips": ["10.0.0.1/8"]}, "rules[0].source_ips"),
            ({"source_ips": ["10.0.0.1"]}, "rules[0].source_ips"),
            ({"source_ips": [f"10.0.{number}.0/24" for number in range(101)]}, "rules[0].source_ips"),
            ({"destination_ips": ["10.0.0.0/8"]}, "rules[0].destination_ips"),
            ({"direction": "out"}, "rules[0].destination_ips"),
        ],
    )
    def test_bad_rules(self, client, change, field):
        """Refused with the rule's number and field."""
        rule = {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["10.0.0.0/8"]} | change

        with refused("invalid_input") as caught:
            client.request("POST", "/firewalls", json={"name": "f", "rules": [rule]})
        assert field in [each["name"] for each in caught.value.details["fields"]]

    def test_a_firewall_takes_500_networks(self, client):
        """Each network of each rule is a rule in effect."""
        rules = [
            {"direction": "in", "protocol": "icmp", "source_ips": [f"10.{rule}.{number}.0/24" for number in range(100)]}
            for rule in range(6)
        ]

        client.request("POST", "/firewalls", json={"name": "f", "rules": rules[:5]})
        with refused("resource_limit_exceeded", "firewall limit exceeded"):
            client.request("POST", "/firewalls", json={"name": "g", "rules": rules})


class TestNetworks:
    """/networks and servers in them."""

    def test_round_trip(self, client):
        """Subnets, routes, a larger range, protection."""
        network = client.networks.create("inner", "10.0.0.0/16", labels={"a": "b"})

        finish(network.add_subnet(NetworkSubnet(type="cloud", network_zone="eu-central", ip_range="10.0.1.0/24")))
        finish(network.add_route(NetworkRoute(destination="10.100.1.0/24", gateway="10.0.1.1")))
        network.reload()
        assert [(each.ip_range, each.gateway) for each in network.subnets] == [("10.0.1.0/24", "10.0.0.1")]
        assert [each.destination for each in network.routes] == ["10.100.1.0/24"]
        finish(network.delete_route(NetworkRoute(destination="10.100.1.0/24", gateway="10.0.1.1")))
        finish(network.delete_subnet(NetworkSubnet(ip_range="10.0.1.0/24")))
        finish(network.change_ip_range("10.0.0.0/8"))
        finish(network.change_protection(delete=True))
        with refused("protected"):
            network.delete()
        finish(network.change_protection(delete=False))
        network = network.update(name="outer", labels={})
        assert (network.name, network.ip_range, network.subnets, network.routes) == ("outer", "10.0.0.0/8", [], [])
        network.delete()
        assert client.networks.get_all() == []

    def test_subnets_that_are_made_together(self, client):
        """A network in change answers with a conflict, which every client repeats."""
        client._client._retry_interval_func = lambda _: 0.02
        network = client.networks.create("n", "10.0.0.0/16")

        actions = [
            client.networks.add_subnet(network, NetworkSubnet(f"10.0.{part}.0/24", "cloud", "eu-central"))
            for part in (1, 2, 3)
        ]

        finish(*actions)
        network.reload()
        assert [subnet.ip_range for subnet in network.subnets] == ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]

    def test_servers_in_a_network(self, client):
        """Attached at an address or the next free one, alias addresses, detached; each place is taken once."""
        subnet = NetworkSubnet(type="cloud", network_zone="eu-central", ip_range="10.0.1.0/24")
        network = client.networks.create("inner", "10.0.0.0/16", subnets=[subnet])
        one, two, three = order(client, "one"), order(client, "two"), order(client, "three", networks=[network])

        finish(one.attach_to_network(network, ip="10.0.1.7", alias_ips=["10.0.1.8"]))
        finish(two.attach_to_network(network))
        for server, address in ((one, "10.0.1.7"), (two, "10.0.1.2"), (three, "10.0.1.1")):
            server.reload()
            assert server.private_net_for(network).ip == address
        assert len({server.private_net[0].mac_address for server in (one, two, three)}) == 3
        network.reload()
        assert [server.id for server in network.servers] == [one.id, two.id, three.id]
        with refused("server_already_attached"):
            one.attach_to_network(network)
        with refused("ip_not_available"):
            two.change_alias_ips(network, ["10.0.1.8"])
        finish(one.change_alias_ips(network, ["10.0.1.9"]))
        with refused("resource_in_use"):
            network.delete_subnet(subnet)
        finish(two.detach_from_network(network))
        one.reload()
        assert one.private_net[0].alias_ips == ["10.0.1.9"]
        network.delete()
        finish(*(action for action in one.get_actions(status=["running"])))
        one.reload()
        assert one.private_net == []

    def test_no_subnet_no_place(self, client):
        """Its own code, which clients retry on."""
        network = client.networks.create("inner", "10.0.0.0/16")
        server = order(client)

        with refused("no_subnet_available"):
            server.attach_to_network(network)

    def test_overlapping_networks(self, client):
        """A server cannot be in two that overlap."""
        subnet = NetworkSubnet(type="cloud", network_zone="eu-central", ip_range="10.0.1.0/24")
        one = client.networks.create("one", "10.0.0.0/16", subnets=[subnet])
        two = client.networks.create("two", "10.0.0.0/8", subnets=[subnet])
        server = order(client, networks=[one])

        with refused("networks_overlap"):
            server.attach_to_network(two)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"ip_range": "8.8.0.0/16"}, "ip_range"),
            ({"ip_range": "10.0.0.1/16"}, "ip_range"),
            ({"ip_range": "10.0.0.0/30"}, "ip_range"),
            ({"subnets": [{"type": "cloud", "network_zone": "mars"}]}, "network_zone"),
            ({"subnets": [{"type": "cloud", "network_zone": "us-east", "ip_range": "10.1.0.0/24"}]}, "ip_range"),
            ({"subnets": [{"type": "vswitch", "network_zone": "eu-central"}]}, "vswitch_id"),
            ({"subnets": [{"type": "cloud", "network_zone": "us-east", "ip_range": "10.0.0.0/24"}] * 2}, "ip_range"),
        ],
    )
    def test_bad_input(self, client, body, field):
        """Refused with the field's name."""
        with refused("invalid_input") as caught:
            client.request("POST", "/networks", json={"name": "n", "ip_range": "10.0.0.0/16"} | body)
        assert caught.value.details["fields"][0]["name"] == field


class TestPrimaryIps:
    """/primary_ips."""

    def test_an_address_outlives_its_server(self, client):
        """Kept when the server goes, and given to the next one."""
        ip = client.primary_ips.create("ipv4", "kept", location=FSN1, labels={"a": "b"}).primary_ip
        net = ServerCreatePublicNetwork(ipv4=ip, enable_ipv6=False)
        server = order(client, public_net=net)

        assert (server.public_net.ipv4.ip, server.public_net.ipv6) == (ip.ip, None)
        ip.reload()
        assert (ip.assignee_id, ip.assignee_type) == (server.id, "server")
        with refused("primary_ip_assigned"):
            order(client, "two", public_net=net)
        finish(server.delete())
        ip.reload()
        assert (ip.assignee_id, ip.assignee_type) == (None, "unassigned")
        assert order(client, "two", public_net=net).public_net.ipv4.ip == ip.ip

    def test_auto_delete(self, client):
        """It goes with its server."""
        ip = client.primary_ips.create("ipv6", "temporary", location=FSN1, auto_delete=True).primary_ip
        server = order(client, public_net=ServerCreatePublicNetwork(ipv6=ip))

        finish(server.delete())
        assert client.primary_ips.get_all() == []

    def test_assign_and_unassign(self, client):
        """Only while the server is off; an assigned address is never deleted, whatever the server does meanwhile."""
        server = order(client, public_net=ServerCreatePublicNetwork(enable_ipv4=False))
        ip = client.primary_ips.create("ipv4", "kept", location=FSN1).primary_ip

        with refused("server_not_stopped"):
            ip.assign(server.id, "server")
        finish(server.power_off())
        finish(ip.assign(server.id, "server"))
        finish(server.power_on())
        server.reload()
        assert server.public_net.ipv4.ip == ip.ip
        with refused("server_not_stopped"):
            ip.unassign()
        with refused("must_be_unassigned"):
            ip.delete()
        finish(server.power_off())
        with refused("must_be_unassigned"):
            ip.delete()
        finish(ip.unassign())
        ip = ip.update(name="other", labels={"a": "c"}, auto_delete=True)
        assert (ip.name, ip.labels, ip.auto_delete) == ("other", {"a": "c"}, True)
        finish(ip.change_protection(delete=True))
        with refused("protected"):
            ip.delete()
        finish(ip.change_protection(delete=False))
        ip.delete()
        assert client.primary_ips.get_by_name("other") is None

    def test_created_for_a_server(self, client):
        """Assigned by an action; the server must be off and without one."""
        server = order(client, start_after_create=False, public_net=ServerCreatePublicNetwork(enable_ipv4=False))
        response = client.primary_ips.create("ipv4", "kept", assignee_id=server.id, assignee_type="server")
        finish(response.action)

        server.reload()
        assert server.public_net.ipv4.ip == response.primary_ip.ip
        with refused("server_has_ipv4"):
            client.primary_ips.create("ipv4", "second", assignee_id=server.id, assignee_type="server")

    def test_what_does_not_fit(self, client):
        """The wrong version, the wrong location, no location at all."""
        ipv6 = client.primary_ips.create("ipv6", "six", location=FSN1).primary_ip
        far = client.primary_ips.create("ipv4", "far", location=NBG1).primary_ip

        with refused("primary_ip_version_mismatch"):
            order(client, public_net=ServerCreatePublicNetwork(ipv4=PrimaryIP(id=ipv6.id)))
        with refused("primary_ip_datacenter_mismatch"):
            order(client, public_net=ServerCreatePublicNetwork(ipv4=PrimaryIP(id=far.id)))
        with refused("invalid_input", "'location'"):
            client.primary_ips.create("ipv4", "nowhere")


class TestVolumes:
    """/volumes."""

    def test_round_trip(self, client):
        """Made, attached, detached, enlarged, protected, deleted."""
        server = order(client)
        response = client.volumes.create(10, "cache", location=FSN1, format="ext4", labels={"a": "b"})
        finish(response.action)
        volume = client.volumes.get_by_name("cache")

        assert (volume.size, volume.status, volume.format, volume.server) == (10, "available", "ext4", None)
        finish(volume.attach(server, automount=True))
        server.reload()
        assert [each.id for each in server.volumes] == [volume.id]
        with refused("volume_already_attached"):
            volume.attach(server)
        with refused("resource_in_use"):
            volume.delete()
        finish(volume.detach())
        with refused("invalid_input", "'size'"):
            volume.resize(10)
        finish(volume.resize(20))
        volume = volume.update(name="other", labels={})
        assert (volume.name, volume.size, volume.labels) == ("other", 20, {})
        finish(volume.change_protection(delete=True))
        with refused("protected"):
            volume.delete()
        finish(volume.change_protection(delete=False))
        volume.delete()
        assert client.volumes.get_all() == []

    def test_two_orders_do_not_get_the_same_volume(self, localcloud, client):
        """It is locked from the first order on, not only once it is attached."""
        response = client.volumes.create(10, "cache", location=FSN1)
        finish(response.action)
        httpx.put(f"{localcloud.control}/speed", json={"action_factor": 1}).raise_for_status()

        order(client, "one", volumes=[response.volume], wait=False)

        with refused("locked"):
            order(client, "two", volumes=[response.volume])

    def test_made_where_a_server_is(self, client):
        """Attached by a further action; it stays when the server goes."""
        server = order(client)
        response = client.volumes.create(10, "cache", server=server)
        finish(response.action, *response.next_actions)

        assert [action.command for action in response.next_actions] == ["attach_volume"]
        finish(server.delete())
        assert client.volumes.get_by_name("cache").server is None

    def test_at_creation_of_a_server(self, client):
        """It must be at the same location."""
        near = client.volumes.create(10, "near", location=FSN1)
        far = client.volumes.create(10, "far", location=NBG1)
        finish(near.action, far.action)

        server = order(client, volumes=[near.volume])
        assert client.servers.get_by_id(server.id).volumes[0].id == near.volume.id
        with refused("invalid_input", "'server'"):
            order(client, "two", volumes=[far.volume])

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"size": 9}, "size"),
            ({"size": 10241}, "size"),
            ({"size": "10"}, "size"),
            ({"location": None}, "location"),
            ({"format": "btrfs"}, "format"),
        ],
    )
    def test_bad_input(self, client, change, field):
        """Refused with the field's name."""
        with refused("invalid_input") as caught:
            client.request("POST", "/volumes", json={"name": "v", "size": 10, "location": "fsn1"} | change)
        assert caught.value.details["fields"][0]["name"] == field


class TestPlacementGroups:
    """/placement_groups."""

    def test_round_trip(self, client):
        """Servers join at creation or while they are off; only an empty group can be deleted."""
        group = client.placement_groups.create("spread", "spread", labels={"a": "b"}).placement_group
        one, two = order(client, "one", placement_group=group), order(client, "two")

        with refused("server_not_stopped"):
            two.add_to_placement_group(group)
        finish(two.power_off())
        finish(two.add_to_placement_group(group))
        with refused("already_in_placement_group"):
            two.add_to_placement_group(group)
        group.reload()
        assert group.servers == [one.id, two.id]
        with refused("resource_in_use"):
            group.delete()
        finish(one.remove_from_placement_group(), two.remove_from_placement_group())
        group = client.placement_groups.update(group, name="other", labels={})
        assert (client.placement_groups.get_by_name("other").servers, group.labels) == ([], {})
        group.delete()
        with refused("invalid_input", "'type'"):
            client.placement_groups.create("near", "near")

    def test_a_group_takes_ten_servers(self, client):
        """The eleventh is a placement_error."""
        group = client.placement_groups.create("spread", "spread").placement_group
        for number in range(10):
            order(client, f"s{number}", placement_group=group, wait=False)

        with refused("placement_error"):
            order(client, "s10", placement_group=PlacementGroup(id=group.id))


class TestEveryCall:
    """What holds for all of the API."""

    @pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer wrong", "Basic " + "0" * 64])
    def test_a_wrong_token(self, localcloud, token):
        """401 unauthorized, wherever."""
        headers = {"Authorization": token} if token is not None else {}
        answer = httpx.get(f"{localcloud.endpoint}/servers", headers=headers)

        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["x-correlation-id"]

    def test_unknown_calls(self, localcloud):
        """404 and 405 in the API's own envelope."""
        for method, path, status, code in (
            ("GET", "/nothing", 404, "not_found"),
            ("GET", "/servers/4", 404, "not_found"),
            ("GET", "/servers/x", 404, "not_found"),
            ("POST", "/servers/4/explode", 404, "not_found"),
            ("PATCH", "/servers", 405, "method_not_allowed"),
            ("DELETE", "/pricing", 405, "method_not_allowed"),
        ):
            answer = raw(localcloud, method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path

    def test_broken_json(self, localcloud):
        """400 json_error; JSON of the wrong kind is invalid_input."""
        broken, wrong = (raw(localcloud, "POST", "/ssh_keys", content=body) for body in ("{", "[]"))

        assert (broken.status_code, broken.json()["error"]["code"]) == (400, "json_error")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "invalid_input")

    def test_pages(self, localcloud, client):
        """25 a page unless asked otherwise, 50 at most; the client collects them all."""
        for number in range(50):
            client.firewalls.create(f"f{number:02}")
            client.placement_groups.create(f"g{number:02}", "spread")

        first = raw(localcloud, "GET", "/firewalls", params={"sort": "name:desc"}).json()
        assert len(first["firewalls"]) == 25
        assert first["firewalls"][0]["name"] == "f49"
        assert first["meta"]["pagination"] == {
            "page": 1,
            "per_page": 25,
            "previous_page": None,
            "next_page": 2,
            "last_page": 2,
            "total_entries": 50,
        }
        assert len(client.placement_groups.get_list(page=3, per_page=20).placement_groups) == 10
        assert len(client.firewalls.get_all()) == 50

    @pytest.mark.parametrize(
        "query", ["page=0", "page=x", "per_page=-1", "sort=color", "label_selector=a%20b", "label_selector=in("]
    )
    def test_bad_queries(self, localcloud, query):
        """Refused with the parameter's name, never ignored."""
        answer = raw(localcloud, "GET", f"/servers?{query}")

        assert answer.json()["error"]["details"]["fields"][0]["name"] == query.partition("=")[0]

    def test_project_limits(self, localcloud, client):
        """403 resource_limit_exceeded, which no other location cures."""
        httpx.put(f"{localcloud.control}/limits", json={"servers": 1}).raise_for_status()
        order(client)

        with refused("resource_limit_exceeded"):
            order(client, "two")

    def test_by_id_or_by_name(self, client):
        """References in a body may be either."""
        client.ssh_keys.create("laptop", KEY)
        location, server_type = client.locations.get_by_name("hel1"), client.server_types.get_by_name("cx23")
        image = client.images.get_by_name_and_architecture("debian-12", "x86")

        by_id = client.servers.create("a", server_type, image, location=location, ssh_keys=[SSHKey(name="laptop")])
        assert by_id.server.location.name == "hel1"
