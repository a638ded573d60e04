"""The hcloud plugin under the real engine, with the vendor's SDK in the program and the local cloud as the API."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.timeout(180)]

USER_DATA = "#cloud-config\nhostname: builder\n"
SERVER = 'server_type="cax21", image="debian-12", location="fsn1"'
WHOLE = f"""
key = hcloud.SshKey("key", public_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl")
firewall = hcloud.Firewall("firewall", rules=[
    {{"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["198.51.100.0/24", "10.0.0.0/8"]}},
])
address = hcloud.PrimaryIp("address", type="ipv4", location="fsn1", assignee_type="server", auto_delete=False)
network = hcloud.Network("network", ip_range="10.0.0.0/8")
subnet = hcloud.NetworkSubnet(
    "subnet", network_id=network.id.apply(int), type="cloud", network_zone="eu-central", ip_range="10.0.1.0/24"
)
group = hcloud.PlacementGroup("group", type="spread")
volume = hcloud.Volume("volume", size=10, location="fsn1")
server = hcloud.Server(
    "server", {SERVER}, ssh_keys=[key.id], user_data=pulumi.Output.secret({USER_DATA!r}), labels={{"a": "b"}},
    placement_group_id=group.id.apply(int), firewall_ids=[firewall.id.apply(int)],
    public_nets=[{{"ipv4_enabled": True, "ipv4": address.id.apply(int), "ipv6_enabled": True}}],
)
hcloud.ServerNetwork("attached", server_id=server.id.apply(int), subnet_id=subnet.id)
hcloud.VolumeAttachment("mounted", server_id=server.id.apply(int), volume_id=volume.id.apply(int))
other = hcloud.Server("other", {SERVER})
second = hcloud.Firewall("second")
hcloud.FirewallAttachment("guarded", firewall_id=second.id.apply(int), server_ids=[other.id.apply(int)])
pulumi.export("server", server.ipv4_address)
pulumi.export("address", address.ip_address)
"""


def test_every_resource_comes_stays_and_goes(stack):
    """Everything is made; a second up changes nothing; drift is put right; destroy leaves nothing."""
    stack.write(WHOLE)

    stack.up()

    made = stack.resources()
    outputs = made["test-dev"]["outputs"]
    assert outputs["server"] == outputs["address"]
    server = made["server"]["outputs"]
    assert (server["status"], server["primaryDiskSize"]) == ("running", 80)
    assert server["ipv6Address"] in {"2001:db8:51:1::1", "2001:db8:51:2::1"}

    stack.forget()
    said = stack.run("up", "--yes", "--skip-preview", "--refresh", "--diff")
    assert "14 unchanged" in said
    assert {request["method"] for request in stack.requests()} == {"GET"}

    stack.api("PUT", f"/servers/{made['server']['id']}", labels={"by": "hand"})
    stack.run("up", "--yes", "--skip-preview", "--refresh")
    assert stack.api("GET", f"/servers/{made['server']['id']}")["server"]["labels"] == {"a": "b"}

    stack.destroy()
    for kind in ("servers", "firewalls", "networks", "primary_ips", "ssh_keys", "placement_groups", "volumes"):
        assert stack.api("GET", f"/{kind}")[kind] == [], kind


def test_state_holds_neither_token_nor_user_data(stack):
    """A secret input is encrypted, its output is a digest, and the token is encrypted too."""
    stack.write(f'hcloud.Server("server", {SERVER}, user_data=pulumi.Output.secret({USER_DATA!r}))')

    stack.up()

    (checkpoint,) = (stack.folder.parent / "state" / ".pulumi" / "stacks").rglob("dev.json")
    state = checkpoint.read_text()
    assert "hostname: builder" not in state
    assert stack.cloud.token not in state


def test_server_removed_by_hand(stack):
    """Destroy fails with the API's words unless the state is refreshed; up with a refresh makes it again."""
    stack.write(f'hcloud.Server("server", {SERVER})')
    stack.up()
    first = stack.resources()["server"]["id"]
    stack.api("DELETE", f"/servers/{first}")
    time.sleep(0.5)

    said = stack.destroy(fails=True)
    assert "(not_found, " in said

    stack.run("up", "--yes", "--skip-preview", "--refresh")
    assert stack.resources()["server"]["id"] != first
    stack.destroy()


def test_server_whose_action_failed_is_in_the_state(stack):
    """The reason is shown, the server is not lost, the next up goes on with it and destroy removes it."""
    stack.control("POST", "/faults", kind="action", command="attach_to_network", message="no room", times=1)
    stack.write(
        f"""
        network = hcloud.Network("network", ip_range="10.0.0.0/8")
        subnet = hcloud.NetworkSubnet(
            "subnet", network_id=network.id.apply(int), type="cloud", network_zone="eu-central", ip_range="10.0.1.0/24"
        )
        networks = [{{"network_id": subnet.network_id, "ip": "10.0.1.5"}}]
        hcloud.Server("server", {SERVER}, networks=networks)
        """
    )

    said = stack.up(fails=True)

    assert "action attach_to_network failed: no room (action_failed, " in said
    half_made = stack.resources()["server"]
    assert half_made["initErrors"]
    assert half_made["outputs"]["ipv4Address"] == "198.51.100.10"

    stack.run("up", "--yes", "--skip-preview", "--refresh")
    repaired = stack.resources()["server"]
    assert repaired["id"] == half_made["id"]
    assert [network["ip"] for network in repaired["outputs"]["networks"]] == ["10.0.1.5"]

    stack.destroy()
    assert stack.api("GET", "/servers")["servers"] == []


def test_refusal_is_told_in_the_words_of_the_api(stack):
    """Out of stock: message, code and correlation id, and nothing in the state."""
    stack.control("PUT", "/stock", server_type="cax21", location="fsn1", order="resource_unavailable")
    stack.write(f'hcloud.Server("server", {SERVER})')

    said = stack.up(fails=True)

    assert "error: error during placement (resource_unavailable, " in said
    assert "Traceback" not in said
    assert "server" not in stack.resources()


def test_four_servers_are_made_side_by_side(stack):
    """All four are ordered before the first is ready, and one request an interval asks about them all."""
    stack.control("PUT", "/speed", action_factor=0.1)
    stack.write(f'for number in range(4):\n    hcloud.Server(f"server-{{number}}", {SERVER})')

    stack.up()

    made = stack.resources()
    requests = stack.requests()
    ready = {f"/servers/{made[f'server-{number}']['id']}" for number in range(4)}
    first_ready = next(index for index, request in enumerate(requests) if request["path"] in ready)
    ordered = [
        index for index, request in enumerate(requests) if (request["method"], request["path"]) == ("POST", "/servers")
    ]
    assert len(ordered) == 4
    assert max(ordered) < first_ready
    polls = [request["query"].count("&id=") + 1 for request in requests if request["path"] == "/actions"]
    assert max(polls) >= 4


def test_replacement_is_made_before_the_old_one_goes(stack):
    """Other user data makes another server under another name; the old one is deleted last."""
    stack.write(f'hcloud.Server("server", {SERVER}, user_data="#cloud-config\\n")')
    stack.up()
    old = stack.resources()["server"]
    stack.forget()
    stack.write(f'hcloud.Server("server", {SERVER}, user_data="#cloud-config\\n\\n")')

    said = stack.run("up", "--yes", "--skip-preview", "--diff")

    new = stack.resources()["server"]
    assert "1 replaced" in said
    assert new["outputs"]["name"] != old["outputs"]["name"]
    writes = [(each["method"], each["path"]) for each in stack.requests() if each["method"] != "GET"]
    assert writes == [("POST", "/servers"), ("DELETE", f"/servers/{old['id']}")]


def test_rescaling_keeps_the_server(stack):
    """Another server type is poweroff and change_type, in place; the API starts it again."""
    stack.write('hcloud.Server("server", server_type="cax21", image="debian-12", location="fsn1")')
    stack.up()
    old = stack.resources()["server"]
    stack.forget()
    stack.write('hcloud.Server("server", server_type="cax31", image="debian-12", location="fsn1")')

    stack.up()

    assert stack.resources()["server"]["id"] == old["id"]
    writes = [request["path"].rpartition("/")[2] for request in stack.requests() if request["method"] != "GET"]
    assert writes == ["poweroff", "change_type"]
    assert stack.resources()["server"]["outputs"]["status"] == "running"


def test_preview_makes_no_request(stack):
    """A dry run of everything asks the API nothing."""
    stack.write(WHOLE)

    said = stack.run("preview", "--diff")

    assert "+ 14 to create" in said
    assert stack.requests() == []


def test_data_sources(stack):
    """The functions of the SDK get what the API tells."""
    stack.write(
        f"""
        server = hcloud.Server("server", {SERVER}, name="builder", labels={{"role": "builder"}})
        kind = hcloud.get_server_type(name="cax21")
        pulumi.export("kind", [kind.cores, kind.architecture, sorted(place.name for place in kind.locations)])
        pulumi.export("kinds", len(hcloud.get_server_types().names) > 10)
        pulumi.export("image", hcloud.get_image(name="debian-12", with_architecture="arm").architecture)
        pulumi.export("location", hcloud.get_location(name="fsn1").network_zone)
        pulumi.export("locations", "hel1" in hcloud.get_locations().names)
        pulumi.export("server", hcloud.get_server_output(name=server.name).ipv4_address)
        pulumi.export("servers", server.id.apply(
            lambda _: [found.name for found in hcloud.get_servers(with_selector="role=builder").servers]
        ))
        """
    )

    stack.up()

    outputs = stack.resources()["test-dev"]["outputs"]
    assert outputs["kind"][:2] == [4, "arm"]
    assert "fsn1" in outputs["kind"][2]
    assert (outputs["kinds"], outputs["image"], outputs["location"], outputs["locations"]) == (
        True,
        "arm",
        "eu-central",
        True,
    )
    assert (outputs["server"], outputs["servers"]) == ("198.51.100.10", ["builder"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "--secret", "hcloud:token", "short"), "entered token is invalid (must be exactly 64 characters long)"),
        (("rm", "hcloud:token"), "no Hetzner Cloud API token: run `pulumi config set --secret hcloud:token TOKEN`"),
        (("set", "hcloud:colour", "red"), "Invalid or unknown key"),
        (("set", "hcloud:endpoint", "http://127.0.0.1:9/v1"), "http://127.0.0.1:9/v1: no answer (connection refused)"),
    ],
)
def test_bad_configuration_is_one_clear_line(stack, arguments, message):
    """What is wrong is said without a traceback."""
    stack.run("config", *arguments)
    stack.write('hcloud.PlacementGroup("group", type="spread")')

    said = stack.up(fails=True)

    assert message in said
    assert "Traceback" not in said


def test_interrupt_leaves_the_server_in_the_state(stack):
    """Ctrl-C while a server boots: the engine ends soon, and what was ordered is known to the next destroy."""
    stack.control("PUT", "/speed", action_factor=1.5)
    stack.write(f'hcloud.Server("server", {SERVER})')
    engine = stack.start("up", "--yes", "--skip-preview", start_new_session=True)
    _wait_for(lambda: any(request["path"] == "/servers" for request in stack.requests()))

    os.killpg(engine.pid, signal.SIGINT)
    said, _ = engine.communicate(timeout=30)

    assert engine.returncode != 0
    assert "cancelled" in said
    server = stack.resources()["server"]["id"]
    # The API goes on with what it began, and deletes no server meanwhile.
    _wait_for(lambda: not stack.api("GET", f"/servers/{server}")["server"]["locked"])
    stack.destroy()
    assert stack.api("GET", "/servers")["servers"] == []


def test_plugin_does_not_outlive_a_killed_engine(stack):
    """SIGKILL gives the engine no chance to end its plugins, which run in process groups of their own."""
    stack.control("PUT", "/speed", action_factor=10)
    stack.write(f'hcloud.Server("server", {SERVER})')
    engine = stack.start("up", "--yes", "--skip-preview", start_new_session=True)
    _wait_for(lambda: any(request["path"] == "/servers" for request in stack.requests()))
    plugins = [int(child) for child in _children(engine.pid) if "plugins.hcloud" in _command(int(child))]
    assert plugins

    os.killpg(engine.pid, signal.SIGKILL)
    engine.communicate()

    _wait_for(lambda: not any(Path(f"/proc/{plugin}").exists() for plugin in plugins))


def _wait_for(fact, *, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def _children(pid):
    return [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def _command(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
