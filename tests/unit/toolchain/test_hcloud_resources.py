"""What each resource sends: the calls of the facts, in their order."""

from __future__ import annotations

import asyncio

import pytest

from scripts.toolchain.plugins.errors import ProviderError
from scripts.toolchain.plugins.hcloud.errors import CloudError
from scripts.toolchain.plugins.hcloud.resources import RESOURCES

KINDS = {kind.schema.name: kind for kind in RESOURCES.values()}
TYPES = {"server_types": [{"id": 1, "name": "cax21", "architecture": "arm"}]}
IMAGES = {"images": [{"id": 7, "name": "debian-12"}]}
OK = {"action": {"id": 1, "command": "any", "status": "success", "error": None}}
MISSING = CloudError(code="not_found", message="not found")
IN_USE = CloudError(code="resource_in_use", message="in use")
LOCKED = CloudError(code="locked", message="locked")


def _run(coroutine):
    return asyncio.run(coroutine)


def _create(api, kind, /, **inputs):
    async def both():
        resource = KINDS[kind](api)
        made = await resource.create(inputs)
        await api.actions.wait(made.actions)
        await resource.finish(made.object_id, inputs)
        return made.object_id

    return _run(both())


def _delete(api, kind, object_id, /, **outputs):
    return _run(KINDS[kind](api).delete(object_id, outputs))


def _update(api, name, object_id, old, new):
    changed = frozenset(key for key in {*old, *new} if old.get(key) != new.get(key))
    return _run(KINDS[name](api).update(object_id, old=old, new=new, changed=changed))


@pytest.mark.parametrize(
    ("name", "object_id", "path"),
    [
        ("SshKey", "1", "/ssh_keys/1"),
        ("Network", "1", "/networks/1"),
        ("PlacementGroup", "1", "/placement_groups/1"),
        ("PrimaryIp", "1", "/primary_ips/1"),
    ],
)
def test_delete_of_a_missing_object_succeeds(api, script, name, object_id, path):
    """That an object is gone already is what a delete wants."""
    script.answers = {f"DELETE {path}": MISSING}

    _delete(api, name, object_id)

    assert script.requests() == [f"DELETE {path}"]


@pytest.mark.parametrize(
    ("name", "object_id", "path"),
    [("Firewall", "1", "/firewalls/1"), ("Volume", "1", "/volumes/1"), ("VolumeAttachment", "1", "/volumes/1")],
)
def test_delete_of_what_a_look_does_not_find_succeeds(api, script, name, object_id, path):
    """Firewalls and volumes are looked at first; there is nothing to do when they are gone."""
    script.answers = {f"GET {path}": MISSING}

    _delete(api, name, object_id)

    assert script.requests() == [f"GET {path}"]


def test_delete_of_a_missing_server_is_an_error(api, script):
    """A server removed by hand makes destroy fail unless the state is refreshed first."""
    script.answers = {"DELETE /servers/42": MISSING}

    with pytest.raises(CloudError, match=r"^not found \(not_found\)$"):
        _delete(api, "Server", "42")


@pytest.mark.parametrize(
    ("name", "object_id", "answers"),
    [
        ("SshKey", "1", {"GET /ssh_keys/1": MISSING}),
        ("Firewall", "1", {"GET /firewalls/1": MISSING}),
        ("FirewallAttachment", "1", {"GET /firewalls/1": MISSING}),
        ("Network", "1", {"GET /networks/1": MISSING, "GET /networks": {"networks": []}}),
        ("NetworkSubnet", "1-10.0.0.0/24", {"GET /networks/1": MISSING}),
        ("NetworkSubnet", "1-10.0.0.0/24", {"GET /networks/1": {"network": {"subnets": []}}}),
        ("PlacementGroup", "1", {"GET /placement_groups/1": MISSING}),
        ("PrimaryIp", "1", {"GET /primary_ips/1": MISSING}),
        ("Volume", "1", {"GET /volumes/1": MISSING}),
        ("VolumeAttachment", "1", {"GET /volumes/1": {"volume": {"server": None}}}),
        ("VolumeAttachment", "1", {"GET /volumes/1": {"volume": {"server": 2}}, "GET /servers/2": MISSING}),
        ("Server", "42", {"GET /servers/42": MISSING, "GET /servers": {"servers": []}}),
        ("ServerNetwork", "42-1", {"GET /servers/42": {"server": {"private_net": []}}}),
    ],
)
def test_read_of_a_missing_object_is_none(api, script, name, object_id, answers):
    """What is gone is dropped from the state."""
    script.answers = answers

    assert _run(KINDS[name](api).read(object_id, {})) is None
    assert script.requests() == list(answers)


def test_server_is_looked_up_by_name_too(api, script, server):
    """An id that the API does not know is tried as a name."""
    script.answers = {"GET /servers/7": MISSING, "GET /servers": {"servers": [server | {"name": "7"}]}}

    outputs = _run(KINDS["Server"](api).read("7", {}))

    assert outputs["name"] == "7"
    assert script.bodies("GET /servers") == [{"name": "7"}]


def test_server_is_created_with_what_was_looked_up(api, script, server):
    """Type by name, image for the type's architecture, keys and group by id; then one POST."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "GET /ssh_keys/2": {"ssh_key": {"id": 2}},
        "GET /ssh_keys": {"ssh_keys": [{"id": 9}]},
        "GET /placement_groups/5": {"placement_group": {"id": 5}},
        "POST /servers": {"server": server, **OK, "next_actions": [OK["action"]]},
    }

    made = _create(
        api,
        "Server",
        name="builder",
        serverType="cax21",
        image="debian-12",
        location="fsn1",
        sshKeys=["2", "laptop"],
        userData="#cloud-config\n",
        labels={"a": "b"},
        firewallIds=[3],
        placementGroupId=5,
        publicNets=[{"ipv4Enabled": True, "ipv4": 11, "ipv6Enabled": False}],
    )

    assert made == "42"
    assert script.bodies("GET /images") == [
        {"architecture": "arm", "include_deprecated": "true", "name": "debian-12"},
    ]
    assert script.requests()[-1] == "POST /servers"
    assert script.bodies("POST /servers") == [
        {
            "name": "builder",
            "server_type": "cax21",
            "image": 7,
            "location": "fsn1",
            "ssh_keys": [2, 9],
            "user_data": "#cloud-config\n",
            "labels": {"a": "b"},
            "firewalls": [{"firewall": 3}],
            "placement_group": 5,
            "public_net": {"enable_ipv4": True, "ipv4": 11, "enable_ipv6": False},
        }
    ]


def test_server_is_created_first_and_attached_then(api, script, server):
    """Networks, backups and protection follow the creation, each with its own request."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": {"server": server, **OK},
        "POST /servers/42/actions/attach_to_network": OK,
        "POST /servers/42/actions/enable_backup": OK,
        "POST /servers/42/actions/change_protection": OK,
    }

    _create(
        api,
        "Server",
        name="builder",
        serverType="cax21",
        image="debian-12",
        networks=[{"networkId": 1, "aliasIps": []}],
        backups=True,
        deleteProtection=True,
        rebuildProtection=True,
    )

    assert script.requests()[2:] == [
        "POST /servers",
        "POST /servers/42/actions/attach_to_network",
        "POST /servers/42/actions/enable_backup",
        "POST /servers/42/actions/change_protection",
    ]
    assert script.bodies("POST /servers/42/actions/attach_to_network") == [{"network": 1, "alias_ips": []}]


def test_server_without_public_address_boots_after_its_networks(api, script, server):
    """A server that has only private addresses is started when it has them."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": {"server": server, **OK},
        "POST /servers/42/actions/attach_to_network": OK,
        "POST /servers/42/actions/poweron": OK,
    }

    _create(
        api,
        "Server",
        name="builder",
        serverType="cax21",
        image="debian-12",
        networks=[{"networkId": 1}],
        publicNets=[{"ipv4Enabled": False, "ipv6Enabled": False}],
    )

    assert script.bodies("POST /servers")[0]["start_after_create"] is False
    assert script.requests()[-2:] == [
        "POST /servers/42/actions/attach_to_network",
        "POST /servers/42/actions/poweron",
    ]


@pytest.mark.parametrize(
    ("answers", "inputs", "message"),
    [
        ({"GET /server_types": {"server_types": []}}, {}, "server type cax21 not found"),
        (
            {"GET /server_types": TYPES, "GET /images": {"images": []}},
            {},
            "image debian-12 for architecture arm not found",
        ),
        ({"GET /server_types": TYPES}, {"image": None}, "image is required to create a server"),
        ({}, {"serverType": ""}, "server type  not found"),
        ({"GET /server_types": TYPES, "GET /images": IMAGES}, {"sshKeys": [""]}, "SSH key not found: "),
        (
            {"GET /server_types": TYPES, "GET /images": IMAGES, "GET /ssh_keys": {"ssh_keys": []}},
            {"sshKeys": ["gone"]},
            "SSH key not found: gone",
        ),
        (
            {"GET /server_types": TYPES, "GET /images": IMAGES, "GET /placement_groups/5": MISSING},
            {"placementGroupId": 5},
            "placement group not found: 5",
        ),
    ],
)
def test_what_is_not_found_is_named(api, script, answers, inputs, message):
    """No server is asked for when something that it needs is missing; an empty name is not the first of all objects."""
    script.answers = answers

    with pytest.raises(ProviderError, match=f"^{message}$"):
        _create(api, "Server", **{"name": "builder", "serverType": "cax21", "image": "debian-12", **inputs})

    assert "POST /servers" not in script.requests()


def test_server_type_that_can_no_longer_be_ordered_is_refused(api, script):
    """A type whose last day has passed is not asked for."""
    gone = {**TYPES["server_types"][0], "deprecation": {"unavailable_after": "2025-12-31T00:00:00+00:00"}}
    script.answers = {"GET /server_types": {"server_types": [gone]}}

    with pytest.raises(ProviderError, match="cax21 is deprecated and can no longer be ordered"):
        _create(api, "Server", name="builder", serverType="cax21", image="debian-12")


DEPRECATED = {**IMAGES["images"][0], "deprecation": {"announced": "2026-08-01", "unavailable_after": "2026-11-01"}}


def test_deprecated_image_is_refused_unless_it_is_allowed(api, script, server):
    """As with the vendor's: the error says until when there is the image, and what to set."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": {"images": [DEPRECATED]},
        "POST /servers": {"server": server, **OK},
    }
    wanted = {"name": "builder", "serverType": "cax21", "image": "debian-12"}

    with pytest.raises(ProviderError, match="debian-12 is deprecated, available until 2026-11-01; set allowDeprecated"):
        _create(api, "Server", **wanted)
    assert "POST /servers" not in script.requests()

    assert _create(api, "Server", **wanted, allowDeprecatedImages=True) == "42"


def test_id_without_its_second_half_is_told(api, script):
    """An import by half an id is a line that says what an id is, or finds nothing."""
    script.answers = {"GET /networks/1": {"network": {"subnets": [{"ip_range": "10.0.0.0/24"}]}}}

    with pytest.raises(ProviderError, match=r"^'42': expected the id <server>-<network>$"):
        _run(KINDS["ServerNetwork"](api).read("42", {}))
    assert _run(KINDS["NetworkSubnet"](api).read("1", {})) is None


def test_server_outputs(api, script, server):
    """Outputs are the API's, but for what only the program knows; IPv6 is the first address of the network."""
    script.answers = {"GET /servers/42": {"server": server}}

    outputs = _run(KINDS["Server"](api).read("42", {"userData": "digest", "sshKeys": ["2"], "image": "7"}))

    assert {name: value for name, value in outputs.items() if value not in (None, False, "", {})} == {
        "firewallIds": [3],
        "image": "7",
        "ipv4Address": "198.51.100.17",
        "ipv6Address": "2001:db8:51:7::1",
        "ipv6Network": "2001:db8:51:7::/64",
        "location": "fsn1",
        "name": "builder",
        "primaryDiskSize": 80,
        "serverType": "cax21",
        "sshKeys": ["2"],
        "status": "running",
        "userData": "digest",
    }


def test_image_is_told_by_name_unless_the_program_gave_the_id(api, script, server):
    """The same image by name and by id are different values."""
    script.answers = {"GET /servers/42": {"server": server}}

    assert _run(KINDS["Server"](api).read("42", {}))["image"] == "debian-12"


def test_networks_of_others_are_not_taken_over(api, script, server):
    """What ServerNetwork attached does not turn up in a server that has no networks of its own."""
    server["private_net"] = [{"network": 1, "ip": "10.0.0.2", "alias_ips": [], "mac_address": "86:00:00:00:00:01"}]
    script.answers = {"GET /servers/42": {"server": server}}

    assert _run(KINDS["Server"](api).read("42", {}))["networks"] is None
    assert _run(KINDS["Server"](api).read("42", {"networks": [{"networkId": 1}]}))["networks"] == [
        {
            "networkId": 1,
            "ip": "10.0.0.2",
            "aliasIps": [],
            "macAddress": "86:00:00:00:00:01",
            "subnetId": None,
        }
    ]


def test_change_of_type_powers_off_and_does_not_power_on(api, script, server):
    """Rescaling needs the server off, upgrades the disk unless it is to be kept, and leaves its start to the API."""
    script.answers = {
        "GET /servers/42": {"server": server},
        "POST /servers/42/actions/poweroff": OK,
        "POST /servers/42/actions/change_type": OK,
    }

    _update(api, "Server", "42", {"serverType": "cax21"}, {"serverType": "cax31"})

    assert script.requests() == list(script.answers)
    assert script.bodies("POST /servers/42/actions/change_type") == [{"server_type": "cax31", "upgrade_disk": True}]


def test_kept_disk_is_not_upgraded(api, script, server):
    """keepDisk allows scaling down later; a server that is off is not powered off again."""
    server["status"] = "off"
    script.answers = {"GET /servers/42": {"server": server}, "POST /servers/42/actions/change_type": OK}

    _update(api, "Server", "42", {"serverType": "cax21", "keepDisk": True}, {"serverType": "cax31", "keepDisk": True})

    assert script.bodies("POST /servers/42/actions/change_type") == [{"server_type": "cax31", "upgrade_disk": False}]


def test_name_and_labels_are_put_separately(api, script, server):
    """Each has its own PUT; labels that are left out are emptied."""
    script.answers = {"GET /servers/42": {"server": server}, "PUT /servers/42": {"server": server}}

    _update(api, "Server", "42", {"name": "old", "labels": {"a": "b"}}, {"name": "new"})

    assert script.bodies("PUT /servers/42") == [{"name": "new"}, {"labels": {}}]


def test_firewalls_are_removed_and_applied(api, script, server):
    """The difference to what the server has now is what is sent."""
    script.answers = {
        "GET /servers/42": {"server": server},
        "POST /firewalls/3/actions/remove_from_resources": {"actions": [OK["action"]]},
        "POST /firewalls/4/actions/apply_to_resources": {"actions": [OK["action"]]},
    }

    _update(api, "Server", "42", {"firewallIds": [3]}, {"firewallIds": [4]})

    target = [{"type": "server", "server": {"id": 42}}]
    assert script.bodies("POST /firewalls/3/actions/remove_from_resources") == [{"remove_from": target}]
    assert script.bodies("POST /firewalls/4/actions/apply_to_resources") == [{"apply_to": target}]


def test_networks_of_a_server_are_moved(api, script, server):
    """Detached, attached anew for another address, given alias addresses, attached: by what differs."""
    server["private_net"] = [
        {"network": 1, "ip": "10.1.0.2", "alias_ips": []},
        {"network": 2, "ip": "10.2.0.2", "alias_ips": []},
        {"network": 3, "ip": "10.3.0.2", "alias_ips": []},
        {"network": 4, "ip": "10.4.0.2", "alias_ips": []},
    ]
    script.answers = {
        "GET /servers/42": {"server": server},
        "POST /servers/42/actions/detach_from_network": OK,
        "POST /servers/42/actions/attach_to_network": OK,
        "POST /servers/42/actions/change_alias_ips": OK,
    }
    wanted = [
        {"networkId": 2, "ip": "10.2.0.9"},
        {"networkId": 3, "aliasIps": ["10.3.0.9"]},
        {"networkId": 4, "ip": "10.4.0.2"},
        {"networkId": 5},
    ]

    _update(api, "Server", "42", {"networks": []}, {"networks": wanted})

    assert script.bodies("POST /servers/42/actions/detach_from_network") == [{"network": 1}, {"network": 2}]
    assert [body["network"] for body in script.bodies("POST /servers/42/actions/attach_to_network")] == [2, 5]
    assert script.bodies("POST /servers/42/actions/change_alias_ips") == [{"network": 3, "alias_ips": ["10.3.0.9"]}]


def test_leaving_a_placement_group_needs_the_server_off(api, script, server):
    """The provider refuses to do it to a running server."""
    server["placement_group"] = {"id": 5}
    script.answers = {"GET /servers/42": {"server": server}}

    with pytest.raises(ProviderError, match="must be powered off first"):
        _update(api, "Server", "42", {"placementGroupId": 5}, {})


def test_kept_address_takes_the_place_of_a_made_one(api, script, server):
    """The server is off meanwhile; an address that was made for it is deleted, a kept one is only unassigned."""
    script.answers = {
        "GET /servers/42": {"server": server},
        "POST /servers/42/actions/poweroff": OK,
        "POST /primary_ips/5/actions/unassign": OK,
        "DELETE /primary_ips/5": {},
        "POST /primary_ips/11/actions/assign": OK,
        "POST /servers/42/actions/poweron": OK,
    }

    _update(api, "Server", "42", {}, {"publicNets": [{"ipv4Enabled": True, "ipv4": 11, "ipv6Enabled": True}]})

    assert script.requests() == list(script.answers)
    assert script.bodies("POST /primary_ips/11/actions/assign") == [{"assignee_id": 42, "assignee_type": "server"}]


def test_server_is_powered_on_again_when_an_address_cannot_be_swapped(api, script, server):
    """A refusal half-way leaves no server off."""
    script.answers = {
        "GET /servers/42": {"server": server},
        "POST /servers/42/actions/poweroff": OK,
        "POST /primary_ips/5/actions/unassign": CloudError(code="protected", message="protected"),
        "POST /servers/42/actions/poweron": OK,
    }

    with pytest.raises(CloudError, match="protected"):
        _update(api, "Server", "42", {}, {"publicNets": [{"ipv4Enabled": False, "ipv6Enabled": True}]})

    assert script.requests()[-1] == "POST /servers/42/actions/poweron"


def test_server_is_shut_down_before_its_deletion_if_asked(api, script, server):
    """The shutdown is waited for by looking at the server."""
    script.answers = {
        "POST /servers/42/actions/shutdown": OK,
        "GET /servers/42": {"server": {**server, "status": "off"}},
        "DELETE /servers/42": OK,
    }

    _delete(api, "Server", "42", shutdownBeforeDeletion=True)

    assert script.requests() == list(script.answers)


def test_ssh_key_keeps_the_spelling_of_the_program(api, script):
    """The API drops a trailing newline, which would otherwise replace the key on every run."""
    key = {"id": 2, "name": "k", "public_key": "ssh-ed25519 AAAA", "fingerprint": "aa", "labels": {}}
    script.answers = {"GET /ssh_keys/2": {"ssh_key": key}}

    read = KINDS["SshKey"](api).read
    assert _run(read("2", {"publicKey": "ssh-ed25519 AAAA\n"}))["publicKey"] == "ssh-ed25519 AAAA\n"
    assert _run(read("2", {"publicKey": "ssh-ed25519 BBBB"}))["publicKey"] == "ssh-ed25519 AAAA"


@pytest.mark.usefixtures("no_pauses")
def test_firewall_is_taken_from_everything_then_deleted(api, script):
    """What the API still sees in use is tried again."""
    firewall = {
        "name": "f",
        "labels": {},
        "rules": [],
        "applied_to": [
            {"type": "server", "server": {"id": 42}},
            {"type": "label_selector", "label_selector": {"selector": "a=b"}, "applied_to_resources": []},
        ],
    }
    script.answers = {
        "GET /firewalls/3": {"firewall": firewall},
        "POST /firewalls/3/actions/remove_from_resources": {"actions": []},
        "DELETE /firewalls/3": [IN_USE, IN_USE, {}],
    }

    _delete(api, "Firewall", "3")

    assert script.bodies("POST /firewalls/3/actions/remove_from_resources") == [
        {
            "remove_from": [
                {"type": "server", "server": {"id": 42}},
                {"type": "label_selector", "label_selector": {"selector": "a=b"}},
            ]
        }
    ]
    assert script.requests().count("DELETE /firewalls/3") == 3


def test_firewall_is_created_with_rules_and_targets(api, script):
    """Rules and targets are part of the first request."""
    script.answers = {"POST /firewalls": {"firewall": {"id": 3}, "actions": [OK["action"]]}}

    _create(
        api,
        "Firewall",
        name="f",
        rules=[{"direction": "in", "protocol": "tcp", "port": "22", "sourceIps": ["198.51.100.0/24"]}],
        applyTos=[{"server": 42}, {"labelSelector": "a=b"}],
    )

    (body,) = script.bodies("POST /firewalls")
    assert body["rules"] == [
        {
            "direction": "in",
            "protocol": "tcp",
            "port": "22",
            "source_ips": ["198.51.100.0/24"],
            "destination_ips": [],
        }
    ]
    assert body["apply_to"] == [
        {"type": "server", "server": {"id": 42}},
        {"type": "label_selector", "label_selector": {"selector": "a=b"}},
    ]


def test_firewall_attachment_that_is_there_already_is_success(api, script):
    """Applying twice ends in the same state."""
    applied = CloudError(code="firewall_already_applied", message="already applied")
    script.answers = {"POST /firewalls/3/actions/apply_to_resources": applied}

    assert _create(api, "FirewallAttachment", firewallId=3, serverIds=[42]) == "3"


def test_firewall_attachment_to_nothing_is_refused(api):
    """An attachment names servers or selectors."""
    with pytest.raises(ProviderError, match="no resources referenced"):
        _create(api, "FirewallAttachment", firewallId=3)


@pytest.mark.usefixtures("no_pauses")
def test_subnet_is_tried_again_while_the_network_is_busy(api, script):
    """A conflict on add_subnet passes; the id is the network and the range."""
    conflict = CloudError(code="conflict", message="busy")
    script.answers = {"POST /networks/1/actions/add_subnet": [conflict, conflict, OK]}

    made = _create(api, "NetworkSubnet", networkId=1, ipRange="10.0.1.0/24", networkZone="eu-central", type="cloud")

    assert made == "1-10.0.1.0/24"
    assert script.bodies("POST /networks/1/actions/add_subnet")[-1] == {
        "type": "cloud",
        "ip_range": "10.0.1.0/24",
        "network_zone": "eu-central",
    }


def test_other_errors_are_not_tried_again(api, script):
    """Only the codes that pass by themselves are worth another try."""
    script.answers = {"POST /networks/1/actions/add_subnet": LOCKED}

    with pytest.raises(CloudError, match="locked"):
        _create(api, "NetworkSubnet", networkId=1, ipRange="10.0.1.0/24", networkZone="eu-central", type="cloud")

    assert len(script.history) == 1


def test_primary_ip_is_created_where_asked(api, script):
    """What the program leaves out is left to the API."""
    script.answers = {"POST /primary_ips": {"primary_ip": {"id": 5}, "action": None}}

    assert _create(api, "PrimaryIp", name="a", type="ipv4", location="fsn1", autoDelete=False) == "5"
    assert script.bodies("POST /primary_ips") == [
        {"name": "a", "type": "ipv4", "location": "fsn1", "auto_delete": False}
    ]


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [(0, 42, ["assign"]), (41, 42, ["unassign", "assign"]), (42, 0, ["unassign"])],
)
def test_primary_ip_leaves_a_server_before_it_goes_to_another(api, script, before, after, asked):
    """The API assigns none that is assigned already."""
    script.answers = {f"POST /primary_ips/5/actions/{action}": OK for action in asked}

    _update(api, "PrimaryIp", "5", {"assigneeId": before}, {"assigneeId": after})

    assert script.requests() == list(script.answers)


@pytest.mark.parametrize(
    ("kind", "ip", "told"),
    [
        ("ipv4", "198.51.100.17", ("198.51.100.17", None)),
        ("ipv6", "2001:db8::/64", ("2001:db8::", "2001:db8::/64")),
    ],
)
def test_primary_ip_outputs(api, script, kind, ip, told):
    """An IPv6 address is a network, whose base is the address."""
    payload = {
        "id": 5,
        "name": "a",
        "type": kind,
        "ip": ip,
        "assignee_id": None,
        "assignee_type": "unassigned",
        "auto_delete": False,
        "labels": {},
        "location": {"name": "fsn1"},
        "protection": {"delete": False},
    }
    script.answers = {"GET /primary_ips/5": {"primary_ip": payload}}

    outputs = _run(KINDS["PrimaryIp"](api).read("5", {}))

    assert (outputs["ipAddress"], outputs["ipNetwork"]) == told
    assert (outputs["assigneeId"], outputs["location"], outputs["datacenter"]) == (0, "fsn1", None)


def test_assigned_primary_ip_is_released_first(api, script, server):
    """Its server is off while it is unassigned."""
    script.answers = {
        "GET /servers/42": {"server": server},
        "POST /servers/42/actions/poweroff": OK,
        "POST /primary_ips/5/actions/unassign": OK,
        "POST /servers/42/actions/poweron": OK,
        "DELETE /primary_ips/5": {},
    }

    _delete(api, "PrimaryIp", "5", assigneeId=42)

    assert script.requests() == list(script.answers)


@pytest.mark.parametrize("answer", [MISSING, {"server": {"public_net": {"ipv4": None, "ipv6": None}}}])
def test_primary_ip_that_its_server_let_go_is_just_deleted(api, script, answer):
    """A server that is gone, or has it no more, is not touched."""
    script.answers = {"GET /servers/42": answer, "DELETE /primary_ips/5": {}}

    _delete(api, "PrimaryIp", "5", assigneeId=42)

    assert script.requests() == ["GET /servers/42", "DELETE /primary_ips/5"]


@pytest.mark.usefixtures("no_pauses")
def test_volume_is_detached_and_deleted(api, script):
    """A volume on a server is taken off it, again while the server is locked."""
    script.answers = {
        "GET /volumes/9": {"volume": {"server": 42}},
        "POST /volumes/9/actions/detach": [LOCKED, OK],
        "DELETE /volumes/9": {},
    }

    _delete(api, "Volume", "9")

    assert script.requests()[-1] == "DELETE /volumes/9"


def test_volume_moves_and_grows(api, script):
    """Another server is detach and attach; another size is resize."""
    script.answers = {
        "POST /volumes/9/actions/detach": OK,
        "POST /volumes/9/actions/attach": OK,
        "POST /volumes/9/actions/resize": OK,
    }

    _update(api, "Volume", "9", {"serverId": 42, "size": 10}, {"serverId": 43, "size": 20})

    assert script.requests() == list(script.answers)
    assert script.bodies("POST /volumes/9/actions/attach") == [{"server": 43}]


@pytest.mark.usefixtures("no_pauses")
def test_volume_attachment_is_tried_again_while_the_server_is_locked(api, script):
    """Its id is the volume's."""
    script.answers = {"POST /volumes/9/actions/attach": [LOCKED, OK]}

    assert _create(api, "VolumeAttachment", volumeId=9, serverId=42, automount=True) == "9"


@pytest.mark.parametrize("code", ["conflict", "locked", "service_error", "no_subnet_available"])
@pytest.mark.usefixtures("no_pauses")
def test_server_network_is_tried_again(api, script, code):
    """A busy server and a network whose subnet is not there yet pass."""
    busy = CloudError(code=code, message="busy")
    script.answers = {"POST /servers/42/actions/attach_to_network": [busy, OK]}

    made = _create(api, "ServerNetwork", serverId=42, subnetId="1-10.0.1.0/24", ip="10.0.1.5")

    assert made == "42-1"
    assert script.bodies("POST /servers/42/actions/attach_to_network")[0] == {
        "network": 1,
        "ip_range": "10.0.1.0/24",
        "ip": "10.0.1.5",
    }


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "give networkId or subnetId"),
        ({"subnetId": "net"}, "expected <network>-<range>"),
        ({"subnetId": "1-10.0.0.0/24", "networkId": 2}, "are of different networks"),
    ],
)
def test_server_network_without_a_network_is_refused(api, inputs, message):
    """It is told which network, once, and without contradiction."""
    with pytest.raises(ProviderError, match=message):
        _create(api, "ServerNetwork", serverId=42, **inputs)


def test_placement_group_may_be_answered_without_action(api, script):
    """The API's action may be null."""
    script.answers = {"POST /placement_groups": {"placement_group": {"id": 5}, "action": None}}

    assert _create(api, "PlacementGroup", name="p", type="spread") == "5"
