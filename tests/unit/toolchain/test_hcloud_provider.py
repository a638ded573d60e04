"""The provider as the engine sees it, without engine and without socket."""

from __future__ import annotations

import asyncio

import pytest
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import (
    CheckRequest,
    ConfigureRequest,
    CreateRequest,
    DeleteRequest,
    DiffRequest,
    InvokeRequest,
    PropertyDiffKind,
    ReadRequest,
    UpdateRequest,
)
from pulumi.runtime.rpc import UNKNOWN as WIRE_UNKNOWN

from scripts.toolchain.plugins.errors import InitializationFailed, InvalidConfiguration, ProviderError
from scripts.toolchain.plugins.hcloud.errors import ActionFailed, CloudError
from scripts.toolchain.plugins.hcloud.provider import HcloudProvider
from scripts.toolchain.plugins.values import from_properties, to_properties

TYPES = {"server_types": [{"id": 1, "name": "cax21", "architecture": "arm"}]}
IMAGES = {"images": [{"id": 7, "name": "debian-12"}]}
RUNNING = {"id": 8, "command": "create_server", "status": "running", "error": None}
FAILED = {**RUNNING, "status": "error", "error": {"code": "server_error", "message": "no boot"}}


def _urn(name):
    return f"urn:pulumi:dev::slipway::hcloud:index/{name[0].lower()}{name[1:]}:{name}::web"


@pytest.fixture(name="provider")
def _provider(api):
    provider = HcloudProvider()
    provider._api = api
    return provider


def _create(provider, kind, /, *, preview=False, timeout=0.0, **inputs):
    return provider.create(CreateRequest(_urn(kind), to_properties(inputs), timeout, preview))


SERVER = {"name": "builder", "serverType": "cax21", "image": "debian-12", "userData": "#cloud-config\n"}


def test_preview_makes_no_request_and_leaves_outputs_unknown(provider, script):
    """A dry run asks the API nothing; what it would fill in is unknown, what is not asked for is absent."""
    response = asyncio.run(_create(provider, "Server", preview=True, **SERVER))

    wire = {name: value.value for name, value in response.properties.items()}
    assert script.history == []
    assert response.resource_id is None
    assert wire["ipv4Address"] == wire["location"] == wire["firewallIds"] == WIRE_UNKNOWN
    assert wire["userData"] == "wK9leoEi2xH7hUH5D+q3hxwsPXE="
    assert "labels" not in wire


def test_unknown_inputs_stay_unknown_in_a_preview(provider):
    """The engine's marker is understood on the way in and written on the way out."""
    inputs = {"name": PropertyValue("a"), "assigneeId": PropertyValue(WIRE_UNKNOWN), "type": PropertyValue("ipv4")}

    response = asyncio.run(provider.create(CreateRequest(_urn("PrimaryIp"), inputs, 0, preview=True)))

    assert response.properties["assigneeId"].value == WIRE_UNKNOWN


def test_preview_of_an_update_makes_no_request(provider, script):
    """New inputs join the old outputs."""
    request = UpdateRequest(
        _urn("Server"),
        "42",
        to_properties({"serverType": "cax21", "status": "running", "location": "fsn1"}),
        to_properties({"serverType": "cax31", "__defaults": []}),
        0,
        [],
        preview=True,
    )

    response = asyncio.run(provider.update(request))

    assert from_properties(response.properties) == {"serverType": "cax31", "status": "running", "location": "fsn1"}
    assert script.history == []


def test_failed_action_keeps_the_server_in_the_state(provider, script, server):
    """A server that exists is reported with its id and outputs, and with the API's reason."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": {"server": server, "action": RUNNING},
        "GET /actions": {"actions": [FAILED]},
        "GET /servers/42": {"server": server},
    }

    with pytest.raises(
        InitializationFailed, match=r"^action create_server failed: no boot \(server_error, 8\)$"
    ) as told:
        asyncio.run(_create(provider, "Server", **SERVER))

    assert told.value.object_id == "42"
    assert told.value.inputs == SERVER
    assert told.value.outputs["ipv4Address"] == "198.51.100.17"
    assert told.value.outputs["userData"] == "wK9leoEi2xH7hUH5D+q3hxwsPXE="


def test_later_step_that_fails_keeps_the_server_in_the_state(provider, script, server):
    """So does a network that cannot be attached, and a read that fails as well."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": {"server": server, "action": None},
        "POST /servers/42/actions/attach_to_network": CloudError(code="ip_not_available", message="taken"),
        "GET /servers/42": CloudError(code="server_error", message="down"),
    }

    with pytest.raises(InitializationFailed, match=r"^taken \(ip_not_available\)$") as told:
        asyncio.run(_create(provider, "Server", **SERVER, networks=[{"networkId": 1}]))

    assert told.value.outputs["name"] == "builder"


def test_server_that_the_api_removed_again_is_a_plain_failure(provider, script, server, not_found):
    """What does not exist is not put into the state."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": {"server": server, "action": FAILED},
        "GET /servers/42": not_found,
        "GET /servers": {"servers": []},
    }

    with pytest.raises(ProviderError, match="no boot") as told:
        asyncio.run(_create(provider, "Server", **SERVER))

    assert not isinstance(told.value, InitializationFailed)


def test_refused_creation_is_told_in_the_words_of_the_api(provider, script):
    """The code and correlation id are there for who has to ask."""
    refused = CloudError(code="resource_unavailable", message="error during placement", correlation_id="1a2b")
    script.answers = {"GET /server_types": TYPES, "GET /images": IMAGES, "POST /servers": refused}

    with pytest.raises(CloudError, match=r"^error during placement \(resource_unavailable, 1a2b\)$"):
        asyncio.run(_create(provider, "Server", **SERVER))


def test_cancel_reports_what_exists(provider, script, server):
    """Ctrl-C during the wait: the server is in the state, and no request follows."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": {"server": server, "action": RUNNING},
        "GET /actions": {"actions": [RUNNING]},
    }

    async def interrupted():
        creation = asyncio.create_task(_create(provider, "Server", **SERVER))
        while "POST /servers" not in script.requests():  # noqa: ASYNC110 - the script has no event
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        await provider.cancel()
        sent = len(script.history)
        with pytest.raises(InitializationFailed, match=r"^cancelled$") as told:
            await creation
        return told.value, len(script.history) - sent

    error, later = asyncio.run(interrupted())
    assert error.object_id == "42"
    assert later == 0


def test_custom_timeout_keeps_the_server_in_the_state(provider, script, server):
    """A creation that takes longer than the program allows is reported, not lost."""
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": {"server": server, "action": RUNNING},
        "GET /actions": {"actions": [RUNNING]},
        "GET /servers/42": {"server": server},
    }

    with pytest.raises(InitializationFailed, match=r"^timed out$"):
        asyncio.run(_create(provider, "Server", timeout=0.05, **SERVER))


def test_four_servers_are_created_side_by_side(provider, script, server):
    """While one creation waits for the API the others go on, and all are polled together."""
    actions = [{**RUNNING, "id": action_id} for action_id in (1, 2, 3, 4)]
    script.answers = {
        "GET /server_types": TYPES,
        "GET /images": IMAGES,
        "POST /servers": [{"server": {**server, "id": 40 + action["id"]}, "action": action} for action in actions],
        "GET /actions": [
            {"actions": actions},
            {"actions": actions},
            {"actions": [{**action, "status": "success"} for action in actions]},
        ],
        **{f"GET /servers/{40 + n}": {"server": server} for n in (1, 2, 3, 4)},
    }

    async def four():
        return await asyncio.gather(*(_create(provider, "Server", **SERVER) for _ in range(4)))

    made = asyncio.run(four())

    assert [response.resource_id for response in made] == ["41", "42", "43", "44"]
    assert [body["id"] for body in script.bodies("GET /actions")] == [[1, 2, 3, 4]] * 3


def test_read_of_a_missing_object_is_empty(provider, script, not_found):
    """An empty id drops the object from the state."""
    script.answers = {"GET /ssh_keys/2": not_found}

    response = asyncio.run(provider.read(ReadRequest(_urn("SshKey"), "2", {}, {})))

    assert (response.resource_id, response.properties) == (None, {})


def test_read_keeps_inputs_that_hold_and_shows_drift(provider, script, server):
    """A label changed by hand shows in the inputs; user data stays as the program wrote it."""
    server["labels"] = {"by": "hand"}
    script.answers = {"GET /servers/42": {"server": server}}
    inputs = {**SERVER, "labels": {"a": "b"}, "__defaults": []}
    state = {**SERVER, "userData": "wK9leoEi2xH7hUH5D+q3hxwsPXE="}

    response = asyncio.run(
        provider.read(ReadRequest(_urn("Server"), "42", to_properties(state), to_properties(inputs)))
    )

    read = from_properties(response.inputs)
    assert read == {**SERVER, "labels": {"by": "hand"}, "__defaults": []}


def test_import_makes_inputs_of_what_is_there(provider, script, server):
    """Without old inputs, all that says something becomes an input, but for outputs and digests."""
    script.answers = {"GET /servers/42": {"server": server}}

    response = asyncio.run(provider.read(ReadRequest(_urn("Server"), "42", {}, {})))

    assert from_properties(response.inputs) == {
        "firewallIds": [3],
        "image": "debian-12",
        "location": "fsn1",
        "name": "builder",
        "serverType": "cax21",
    }


@pytest.mark.parametrize("kind", ["server", "network"])
def test_what_is_imported_by_name_is_known_by_its_id(provider, script, server, kind):
    """Every later request is about the id, so that is what goes into the state."""
    network = {"ip_range": "10.0.0.0/16", "expose_routes_to_vswitch": False}
    found = server | network | {"name": "web"}
    script.answers = {f"GET /{kind}s": {f"{kind}s": [found]}, f"GET /{kind}s/42": {kind: found}}

    response = asyncio.run(provider.read(ReadRequest(_urn(kind.capitalize()), "web", {}, {})))

    assert response.resource_id == "42"
    assert from_properties(response.properties)["name"] == "web"


def test_diff_names_replacements_and_kinds(provider):
    """The engine learns what changes, what replaces, and of which kind each is; nothing is deleted first."""
    request = DiffRequest(
        _urn("Server"),
        "42",
        to_properties({"serverType": "cax21", "image": "debian-12", "userData": "old", "status": "running"}),
        to_properties({"serverType": "cax31", "image": "debian-13", "labels": {"a": "b"}}),
        [],
    )

    response = asyncio.run(provider.diff(request))

    assert response.changes
    assert response.replaces == ["image", "userData"]
    assert response.delete_before_replace is False
    assert {name: (item.kind, item.input_diff) for name, item in response.detailed_diff.items()} == {
        "image": (PropertyDiffKind.UPDATE_REPLACE, False),
        "labels": (PropertyDiffKind.ADD, False),
        "serverType": (PropertyDiffKind.UPDATE, False),
        "userData": (PropertyDiffKind.DELETE_REPLACE, True),
    }


def test_update_sends_what_changed_and_reads_back(provider, script):
    """Only the changed field is sent; the outputs are read anew."""
    key = {"id": 2, "name": "new", "public_key": "k", "fingerprint": "aa", "labels": {}}
    script.answers = {"PUT /ssh_keys/2": {"ssh_key": key}, "GET /ssh_keys/2": {"ssh_key": key}}
    request = UpdateRequest(
        _urn("SshKey"),
        "2",
        to_properties({"name": "old", "publicKey": "k", "labels": {}}),
        to_properties({"name": "new", "publicKey": "k", "__defaults": []}),
        0,
        [],
        preview=False,
    )

    response = asyncio.run(provider.update(request))

    assert script.bodies("PUT /ssh_keys/2") == [{"name": "new"}]
    assert from_properties(response.properties)["name"] == "new"


def test_check_fills_in_the_name_of_the_resource(provider):
    """The logical name is the last part of the URN."""
    response = asyncio.run(provider.check(CheckRequest(_urn("SshKey"), {}, to_properties({"publicKey": "k"}), b"s")))

    assert response.inputs["name"].value.startswith("web-")
    assert response.failures == []


def test_checked_token_is_a_secret(provider):
    """The token comes back wrapped, so that the engine encrypts it in the state."""
    response = asyncio.run(provider.check_config(CheckRequest("", {}, to_properties({"token": "t" * 64}), b"")))

    assert response.inputs["token"].is_secret
    assert response.failures == []


def test_configure_without_token_makes_no_call(monkeypatch):
    """It fails in configure with the cure."""
    monkeypatch.delenv("HCLOUD_TOKEN", raising=False)
    with pytest.raises(InvalidConfiguration, match="no Hetzner Cloud API token"):
        asyncio.run(HcloudProvider().configure(ConfigureRequest({}, {}, accept_secrets=True, accept_resources=True)))


def test_other_resources_and_functions_are_refused(provider):
    """What the plugin does not cover is told with the place that says so."""
    with pytest.raises(
        ProviderError, match=r"not a resource of this provider; see scripts/toolchain/plugins/README\.md"
    ):
        asyncio.run(provider.delete(DeleteRequest(_urn("Zone"), "1", {}, 0)))
    with pytest.raises(ProviderError, match="not a function of this provider"):
        asyncio.run(provider.invoke(InvokeRequest("hcloud:index/getZone:getZone", {})))


def test_unknown_argument_of_a_function_fails(provider):
    """A data source is as strict as a resource."""
    request = InvokeRequest("hcloud:index/getServerType:getServerType", to_properties({"colour": "red"}))

    (failure,) = asyncio.run(provider.invoke(request)).failures

    assert (failure.property, failure.reason) == ("colour", "Invalid or unknown key")


def test_server_type_tells_where_it_can_be_had(provider, script):
    """Locations of a server type come with stock and recommendation."""
    kind = {
        "id": 1,
        "name": "cax21",
        "description": "CAX21",
        "cores": 4,
        "memory": 8.0,
        "disk": 80,
        "architecture": "arm",
        "cpu_type": "shared",
        "category": "cost_optimized",
        "storage_type": "local",
        "deprecation": None,
        "locations": [{"id": 2, "name": "nbg1", "available": False, "recommended": True, "deprecation": None}],
    }
    script.answers = {"GET /server_types": {"server_types": [kind]}}
    request = InvokeRequest("hcloud:index/getServerType:getServerType", to_properties({"name": "cax21"}))

    told = from_properties(asyncio.run(provider.invoke(request)).return_value)

    assert (told["id"], told["cores"], told["memory"], told["isDeprecated"]) == (1, 4, 8, False)
    assert told["locations"] == [
        {"id": 2, "name": "nbg1", "available": False, "recommended": True, "isDeprecated": False}
    ]


def test_image_tells_until_when_it_is_there(provider, script):
    """A deprecated image says so; the API has told it in `deprecation` alone since 2026-09-08."""
    image = {
        "id": 7,
        "name": "debian-11",
        "description": "Debian 11",
        "architecture": "x86",
        "created": "2025-08-01T00:00:00+00:00",
        "deprecation": {"announced": "2026-08-01T00:00:00+00:00", "unavailable_after": "2027-08-01T00:00:00+00:00"},
        "labels": {},
        "os_flavor": "debian",
        "type": "system",
    }
    script.answers = {"GET /images": {"images": [image]}}
    arguments = to_properties({"name": "debian-11", "includeDeprecated": True})

    answer = asyncio.run(provider.invoke(InvokeRequest("hcloud:index/getImage:getImage", arguments)))

    told = from_properties(answer.return_value)
    assert (told["isDeprecated"], told["deprecated"]) == (True, "2026-08-01T00:00:00+00:00")
    assert told["unavailableAfter"] == "2027-08-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("items", "message"), [([], "no ssh_key found for name 'a'"), ([1, 2], "more than one ssh_key found for name 'a'")]
)
def test_data_source_wants_exactly_one(provider, script, items, message):
    """None and many are told apart."""
    script.answers = {"GET /ssh_keys": {"ssh_keys": [{"id": item} for item in items]}}

    with pytest.raises(ProviderError, match=message):
        asyncio.run(provider.invoke(InvokeRequest("hcloud:index/getSshKey:getSshKey", to_properties({"name": "a"}))))


def test_action_error_is_one_line():
    """An action without a reason is told as such."""
    error = ActionFailed(command="create_server", code="unknown", message="the API gives no reason", action_id=8)

    assert str(error) == "action create_server failed: the API gives no reason (unknown, 8)"
