"""The kubernetes provider as the engine sees it, over a small API server that keeps objects and field managers."""

from __future__ import annotations

import asyncio
import copy
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.provider import (
    CheckRequest,
    CreateRequest,
    DeleteRequest,
    DiffRequest,
    PropertyDiffKind,
    ReadRequest,
    UpdateRequest,
)
from pulumi.runtime.rpc import UNKNOWN as WIRE_UNKNOWN

from scripts.toolchain.plugins.errors import Cancelled, InitializationFailed, ProviderError
from scripts.toolchain.plugins.kubernetes import waiting
from scripts.toolchain.plugins.kubernetes.api import Api
from scripts.toolchain.plugins.kubernetes.configuration import Configuration
from scripts.toolchain.plugins.kubernetes.errors import ClusterUnreachable, FieldConflict, Refused
from scripts.toolchain.plugins.kubernetes.provider import KubernetesProvider
from scripts.toolchain.plugins.values import from_properties, to_properties

KNOWN_FIELDS = {"apiVersion", "kind", "metadata", "spec", "data", "stringData", "type", "status", "immutable", "rules"}


class Server(Api):
    """The real door with the wire cut: behind it objects by path, whose fields belong to managers."""

    def __init__(self, **configuration):
        self.objects = {}
        self.managers = {}
        self.requests = []
        self.is_down = False
        self.holds = 0  # how many looks a deleted object outlives
        self.kinds_missing = ()
        super().__init__(Configuration(**configuration))

    def _connect(self):
        return None, "from-context"

    def _send(self, _client, method, path, body):
        parts = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.requests.append((method, parts.path, query, copy.deepcopy(body)))
        if self.is_down:
            raise ClusterUnreachable("https://cluster: no answer from the cluster (connection refused)")
        if any(f"/{plural}" in parts.path for plural in self.kinds_missing):
            return 404, b"404 page not found\n"
        if method == "PATCH":
            return self._patch(parts.path, query, copy.deepcopy(body))
        found = self.objects.get(parts.path)
        if method == "GET" and _is_list(parts.path):
            prefix = f"{parts.path}/"
            return 200, json.dumps({"items": [o for p, o in self.objects.items() if p.startswith(prefix)]}).encode()
        if found is None:
            return self._error(404, "NotFound", "not found", name=parts.path.rpartition("/")[2])
        if method == "DELETE":
            found["metadata"]["deletionTimestamp"] = "now"
            if not self.holds:
                del self.objects[parts.path]
        elif "deletionTimestamp" in found["metadata"]:
            self.holds -= 1
            if self.holds <= 0:
                del self.objects[parts.path]
        return 200, json.dumps(found).encode()

    def _patch(self, path, query, body):
        unknown = sorted(set(body) - KNOWN_FIELDS)
        if unknown and query["fieldValidation"] == "Strict":
            return self._error(400, "BadRequest", f'strict decoding error: unknown field "{unknown[0]}"', name="x")
        manager, old = query["fieldManager"], self.objects.get(path)
        fields = self.managers.get(path, {})
        for key, value in body.get("data", {}).items():
            others = [name for name, owned in fields.items() if name != manager and owned.get(key, value) != value]
            if others and query["force"] != "true":
                causes = [{"reason": "FieldManagerConflict"}]
                return self._error(
                    409, "Conflict", f'conflict with "{others[0]}": .data.{key}', name="x", causes=causes
                )
        new = copy.deepcopy(old) if old else {"status": {}}
        mine = fields.get(manager, {})
        kept = {key: value for key, value in new.get("data", {}).items() if key not in mine}
        new |= {key: value for key, value in body.items() if key != "metadata"}
        new["metadata"] = {**body["metadata"], "uid": "u1", "resourceVersion": "1", "managedFields": [{}]}
        if "data" in body:
            new["data"] = {**kept, **body["data"]}
        if new["kind"] == "Service":
            new["spec"] = {"clusterIP": "10.0.0.7", **new["spec"]}
        if query.get("dryRun") != "All":
            self.objects[path] = new
            self.managers.setdefault(path, {})[manager] = body.get("data", {})
        return 200, json.dumps(new).encode()

    @staticmethod
    def _error(code, reason, message, **details):
        return code, json.dumps({"message": message, "reason": reason, "details": details}).encode()

    def applied(self):
        return [(path, query) for method, path, query, _ in self.requests if method == "PATCH"]


def _is_list(path):
    """Tell a collection's path: after root, group and version come pairs of plural and name, and it has a plural more."""
    parts = path.strip("/").split("/")
    return len(parts[2 if parts[0] == "api" else 3 :]) % 2 == 1


@pytest.fixture(name="server")
def _server(monkeypatch):
    monkeypatch.setattr(waiting, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(waiting, "_LONGEST_PAUSE_S", 0.001)
    return Server()


@pytest.fixture(name="warnings")
def _warnings():
    return []


@pytest.fixture(name="provider")
def _provider(server, warnings):
    async def warn(urn, message):
        warnings.append((urn.rpartition("::")[2], message))

    provider = KubernetesProvider(warn=warn)
    provider._api = server
    return provider


def _urn(kind):
    groups = {"Deployment": "apps/v1", "Ingress": "networking.k8s.io/v1", "Role": "rbac.authorization.k8s.io/v1"}
    return f"urn:pulumi:dev::slipway::kubernetes:{groups.get(kind, 'core/v1')}:{kind}::thing"


def _check(provider, kind, inputs, old=None, seed=b"seed"):
    request = CheckRequest(_urn(kind), to_properties(old or {}), to_properties(inputs), seed)
    return asyncio.run(provider.check(request))


def _create(provider, kind, inputs, *, preview=False, timeout=0.0):
    checked = _check(provider, kind, inputs)
    assert not checked.failures
    return asyncio.run(provider.create(CreateRequest(_urn(kind), checked.inputs, timeout, preview)))


def _diff(provider, kind, made, inputs):
    old = from_properties(made.properties)
    checked = _check(provider, kind, inputs, old=old["__inputs"])
    return asyncio.run(provider.diff(DiffRequest(_urn(kind), made.resource_id, made.properties, checked.inputs, [])))


def _update(provider, kind, made, inputs, *, preview=False):
    checked = _check(provider, kind, inputs, old=from_properties(made.properties)["__inputs"])
    request = UpdateRequest(_urn(kind), made.resource_id, made.properties, checked.inputs, 0, [], preview=preview)
    return asyncio.run(provider.update(request))


def _read(provider, kind, made):
    outputs = made.properties
    inputs = outputs["__inputs"].value
    return asyncio.run(provider.read(ReadRequest(_urn(kind), made.resource_id, outputs, dict(inputs))))


NAMED = {"metadata": {"name": "a", "namespace": "n"}, "data": {"k": "v"}}
PATH = "/api/v1/namespaces/n/configmaps/a"


def test_an_object_is_applied_on_the_server_and_recorded_with_inputs_and_field_manager(provider, server):
    """Its id is namespace/name; its outputs are the live object, without the server's book-keeping of fields."""
    made = _create(provider, "ConfigMap", NAMED)

    outputs = from_properties(made.properties)
    ((path, query),) = server.applied()
    assert made.resource_id == "n/a"
    assert path == PATH
    assert query["fieldValidation"] == "Strict"
    assert query["fieldManager"].startswith("pulumi-kubernetes-")
    assert outputs["__fieldManager"] == query["fieldManager"]
    assert outputs["__inputs"] == {**NAMED, "apiVersion": "v1", "kind": "ConfigMap"}
    assert outputs["__initialApiVersion"] == "v1"
    assert outputs["metadata"] == {**NAMED["metadata"], "uid": "u1", "resourceVersion": "1"}


def test_what_has_no_namespace_is_known_by_its_name(provider):
    """A Namespace's id is its name."""
    assert _create(provider, "Namespace", {"metadata": {"name": "n"}}).resource_id == "n"


@pytest.mark.parametrize(("configured", "expected"), [("", "from-context"), ("configured", "configured")])
def test_a_namespace_left_out_is_the_providers_or_the_contexts(configured, expected):
    """And default where neither says one."""
    provider = KubernetesProvider(warn=None)
    provider._api = Server(namespace=configured)

    assert from_properties(_check(provider, "ConfigMap", {}).inputs)["metadata"]["namespace"] == expected


def test_a_name_left_out_is_the_logical_one_with_eight_digits(provider):
    """The same from the same seed, so that up makes what preview showed."""
    first, second = (from_properties(_check(provider, "ConfigMap", {}, seed=b"s").inputs) for _ in range(2))

    assert first == second
    name = first["metadata"]["name"]
    assert name.startswith("thing-")
    assert len(name) == len("thing-") + 8


def test_the_field_manager_stays_the_same_over_updates(provider, server):
    """So a field that the program leaves out is removed, as it was the program's."""
    made = _create(provider, "ConfigMap", {**NAMED, "data": {"k": "v", "gone": "v"}})

    updated = _update(provider, "ConfigMap", made, NAMED)

    managers = {query["fieldManager"] for _, query in server.applied()}
    assert len(managers) == 1
    assert from_properties(updated.properties)["data"] == {"k": "v"}


def test_a_field_manager_that_the_object_names_is_used(provider, server):
    """The annotation patchFieldManager wins."""
    _create(provider, "ConfigMap", {"metadata": {"name": "a", "annotations": {"pulumi.com/patchFieldManager": "me"}}})

    assert server.applied()[0][1]["fieldManager"] == "me"


def test_fields_of_other_managers_are_left_alone(provider, server):
    """They are in the object afterwards, and no difference."""
    made = _create(provider, "ConfigMap", NAMED)
    server.objects[PATH]["data"]["theirs"] = "x"
    server.managers[PATH]["somebody"] = {"theirs": "x"}

    assert _diff(provider, "ConfigMap", made, NAMED).changes is False
    assert from_properties(_update(provider, "ConfigMap", made, NAMED).properties)["data"] == {"k": "v", "theirs": "x"}


def test_a_field_that_another_manager_holds_is_a_conflict_unless_forced(provider, server):
    """The server names the manager, the provider what to do."""
    made = _create(provider, "ConfigMap", NAMED)
    server.managers[PATH] = {"somebody": {"k": "theirs"}}

    with pytest.raises(
        FieldConflict, match=r'^ConfigMap a: conflict with "somebody": \.data\.k; annotate .*patchForce'
    ):
        _update(provider, "ConfigMap", made, NAMED)
    forced = {"metadata": {**NAMED["metadata"], "annotations": {"pulumi.com/patchForce": "true"}}, "data": {"k": "v"}}
    assert from_properties(_update(provider, "ConfigMap", made, forced).properties)["data"] == {"k": "v"}


def test_a_change_that_the_server_takes_for_the_same_is_none(provider, server):
    """What it fills in by itself may be written down or left out."""
    service = {"metadata": {"name": "a", "namespace": "n", "annotations": {"pulumi.com/skipAwait": "true"}}, "spec": {}}
    made = _create(provider, "Service", service)

    assert _diff(provider, "Service", made, {**service, "spec": {"clusterIP": None}}).changes is False
    assert server.requests[-1][2]["dryRun"] == "All"


def test_a_change_is_told_by_path_and_data_of_a_config_map_needs_another_one(provider):
    """By name given, the old one has to go first."""
    made = _create(provider, "ConfigMap", NAMED)

    told = _diff(provider, "ConfigMap", made, {**NAMED, "data": {"k": "w"}})

    assert told.replaces == ["data.k"]
    assert told.delete_before_replace is True
    assert told.detailed_diff["data.k"].kind is PropertyDiffKind.UPDATE_REPLACE


def test_an_auto_named_object_is_made_before_the_old_one_goes(provider):
    """A replacement has another name, since the engine checks it without the old inputs."""
    inputs = {"metadata": {"namespace": "n"}, "data": {"k": "v"}}
    made = _create(provider, "ConfigMap", inputs)
    told = _diff(provider, "ConfigMap", made, {**inputs, "data": {"k": "w"}})

    assert told.replaces == ["data.k"]
    assert told.delete_before_replace is False


@pytest.mark.parametrize(
    ("configured", "immutable", "replaces"),
    [
        ({}, False, ["data.k"]),
        ({"config_map_mutable": True}, False, []),
        ({"secret_mutable": True}, False, ["data.k"]),
        ({"config_map_mutable": True}, True, ["data.k"]),
    ],
)
def test_data_of_a_config_map_changes_in_place_where_the_provider_may(configured, immutable, replaces):
    """Never that of an immutable one."""
    provider = KubernetesProvider(warn=None)
    provider._api = Server(**configured)
    inputs = {**NAMED, "immutable": immutable}
    made = _create(provider, "ConfigMap", inputs)

    assert _diff(provider, "ConfigMap", made, {**inputs, "data": {"k": "w"}}).replaces == replaces


def test_an_object_that_is_there_already_is_refused_unless_adopted(provider, server):
    """The provider's upsertExistingObjects adopts it."""
    _create(provider, "ConfigMap", NAMED)

    with pytest.raises(ProviderError, match=r"^ConfigMap a: there is one already; import it, or set"):
        _create(provider, "ConfigMap", NAMED)
    server.configuration = Configuration(upsert=True)
    assert _create(provider, "ConfigMap", NAMED).resource_id == "n/a"


def test_a_preview_asks_the_server_and_writes_nothing(provider, server):
    """What it will fill in is unknown; an unknown field is told before anything is made."""
    made = _create(provider, "Service", {"metadata": {"name": "a", "namespace": "n"}, "spec": {}}, preview=True)

    assert made.properties["spec"].value["clusterIP"].value == made.properties["status"].value == WIRE_UNKNOWN
    assert made.resource_id is None
    assert server.objects == {}
    with pytest.raises(Refused, match=r'^strict decoding error: unknown field "dta" \(BadRequest\)$'):
        _create(provider, "ConfigMap", {"metadata": NAMED["metadata"], "dta": {}}, preview=True)


def test_a_preview_of_a_change_keeps_what_the_server_filled_in(provider):
    """Others are previewed with it: a Service has its address, whatever else of it changes."""
    metadata = {"name": "a", "namespace": "n", "annotations": {"pulumi.com/skipAwait": "true"}}
    made = _create(provider, "Service", {"metadata": metadata, "spec": {"type": "NodePort"}})

    planned = _update(provider, "Service", made, {"metadata": metadata, "spec": {"type": "ClusterIP"}}, preview=True)

    assert from_properties(planned.properties)["spec"] == {"type": "ClusterIP", "clusterIP": "10.0.0.7"}


def test_what_is_not_known_yet_stays_so_in_check_and_preview(provider, server):
    """Another resource's output, deep inside; the server is not asked about half an object."""
    inputs = {
        **to_properties({"metadata": {"name": "s"}}),
        "stringData": PropertyValue({"password": PropertyValue(WIRE_UNKNOWN)}),
    }
    checked = asyncio.run(provider.check(CheckRequest(_urn("Secret"), {}, inputs, b"")))
    made = asyncio.run(provider.create(CreateRequest(_urn("Secret"), checked.inputs, 0, preview=True)))

    for properties in (checked.inputs, made.properties):
        assert properties["stringData"].value["password"].value == WIRE_UNKNOWN
        assert properties["stringData"].is_secret
    assert server.requests == []


def test_a_kind_that_the_server_does_not_know_is_told_with_group_and_version(provider, server):
    """Whatever the server itself says, which is not much."""
    server.kinds_missing = ("roles",)

    with pytest.raises(
        Refused, match=r"^the cluster has no Role in version rbac\.authorization\.k8s\.io/v1 \(NotFound\)$"
    ):
        _create(provider, "Role", {"metadata": {"name": "a"}, "rules": []})


def test_a_cluster_that_does_not_answer_is_a_warning_in_previews_and_an_error_after(provider, server, warnings):
    """A preview shows what it can; nothing else goes on."""
    made = _create(provider, "ConfigMap", NAMED)
    server.is_down = True

    assert _diff(provider, "ConfigMap", made, {**NAMED, "data": {"k": "v", "more": "w"}}).replaces == ["data.more"]
    _create(provider, "ConfigMap", {"metadata": {"name": "b"}}, preview=True)
    assert [name for name, _ in warnings] == ["thing"]
    with pytest.raises(ClusterUnreachable, match="no answer from the cluster"):
        _create(provider, "ConfigMap", {"metadata": {"name": "b"}})
    with pytest.raises(ClusterUnreachable, match="no answer from the cluster"):
        _read(provider, "ConfigMap", made)


@pytest.mark.parametrize("propagation", ["", "background", "orphan"])
def test_a_delete_is_in_the_foreground_and_waits_until_the_object_is_gone(provider, server, propagation):
    """Or as the annotation says."""
    annotations = {"pulumi.com/deletionPropagationPolicy": propagation} if propagation else {}
    made = _create(provider, "ConfigMap", {"metadata": {**NAMED["metadata"], "annotations": annotations}})
    server.holds = 3

    asyncio.run(provider.delete(DeleteRequest(_urn("ConfigMap"), "n/a", made.properties, 0)))

    (options,) = [body for method, _, _, body in server.requests if method == "DELETE"]
    assert options["propagationPolicy"] == (propagation or "foreground").capitalize()
    assert server.objects == {}
    assert server.holds == 0


def test_an_object_that_does_not_go_is_told_with_what_holds_it(provider, server):
    """Its finalizers."""
    made = _create(provider, "Namespace", {"metadata": {"name": "n", "finalizers": ["kubernetes"]}})
    server.holds = 10_000

    with pytest.raises(ProviderError, match=r"^Namespace n: still there after 0 s, held by kubernetes$"):
        asyncio.run(provider.delete(DeleteRequest(_urn("Namespace"), "n", made.properties, 0.01)))


def test_a_missing_object_counts_as_deleted_and_an_unreachable_one_does_not(provider, server):
    """Unless deleteUnreachable says so."""
    made = _create(provider, "ConfigMap", NAMED)
    request = DeleteRequest(_urn("ConfigMap"), "n/a", made.properties, 0)
    server.objects.clear()
    asyncio.run(provider.delete(request))
    server.is_down = True

    with pytest.raises(ClusterUnreachable, match=r"PULUMI_K8S_DELETE_UNREACHABLE=true$"):
        asyncio.run(provider.delete(request))
    server.configuration = Configuration(delete_unreachable=True)
    asyncio.run(provider.delete(request))


DEPLOYMENT = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}


def test_a_failed_wait_leaves_the_object_in_the_state_with_what_its_pods_say(provider, server):
    """The engine tries again with the next update, and a refresh tells the same."""
    server.objects["/api/v1/namespaces/n/pods/p"] = {
        "metadata": {"name": "p"},
        "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
    }

    with pytest.raises(InitializationFailed) as told:
        _create(provider, "Deployment", DEPLOYMENT, timeout=0.05)

    assert str(told.value) == (
        "Deployment a: not ready after 0 s, waits for the controller to see the change; "
        "pod p, container c: ErrImagePull"
    )
    assert told.value.object_id == "n/a"
    assert from_properties(told.value.outputs)["__inputs"]["spec"] == DEPLOYMENT["spec"]
    made = type("Made", (), {"properties": dict(told.value.outputs), "resource_id": "n/a"})
    with pytest.raises(InitializationFailed, match=r"^Deployment a: not ready, waits for"):
        _read(provider, "Deployment", made)


@pytest.mark.parametrize(
    ("annotations", "waits_s"),
    [({"pulumi.com/timeoutSeconds": "1"}, 1.0), ({}, waiting.DEFAULT_TIMEOUT_S)],
)
def test_a_wait_ends_after_ten_minutes_or_as_the_object_says(annotations, waits_s):
    """A program's customTimeouts win over both."""
    inputs = {"metadata": {"annotations": annotations}}

    assert waiting.timeout_s(inputs, 0.0) == waits_s
    assert waiting.timeout_s(inputs, 7.0) == 7.0


def test_an_object_that_says_so_is_not_waited_for(provider):
    """pulumi.com/skipAwait."""
    inputs = {**DEPLOYMENT, "metadata": {**DEPLOYMENT["metadata"], "annotations": {"pulumi.com/skipAwait": "true"}}}

    assert _create(provider, "Deployment", inputs).resource_id == "n/a"


def test_a_wait_ends_when_the_engine_cancels(provider, server):
    """The object is in the state all the same."""

    async def run():
        checked = await provider.check(CheckRequest(_urn("Deployment"), {}, to_properties(DEPLOYMENT), b""))
        creation = asyncio.create_task(provider.create(CreateRequest(_urn("Deployment"), checked.inputs, 0, False)))
        await asyncio.sleep(0.05)
        await provider.cancel()
        await creation

    with pytest.raises(InitializationFailed) as told:
        asyncio.run(run())

    assert isinstance(told.value.__cause__, Cancelled)
    assert "/apis/apps/v1/namespaces/n/deployments/a" in server.objects


def test_a_missing_object_is_dropped_from_the_state(provider, server):
    """A read answers with nothing."""
    made = _create(provider, "ConfigMap", NAMED)
    server.objects.clear()

    assert not _read(provider, "ConfigMap", made).resource_id


def test_an_imported_object_gets_inputs_that_would_make_it(provider):
    """What the server put there is not among them."""
    _create(provider, "ConfigMap", NAMED)
    request = ReadRequest(_urn("ConfigMap"), "n/a", {}, {})

    found = asyncio.run(provider.read(request))

    assert from_properties(found.inputs) == {**NAMED, "apiVersion": "v1", "kind": "ConfigMap"}


def test_data_of_a_secret_is_secret_wherever_the_state_has_it(provider):
    """As data, as text, and in the inputs beside the outputs; so is a property that holds a secret of the program."""
    made = _create(provider, "Secret", {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    inputs = {
        **to_properties({"metadata": {"name": "c", "namespace": "n"}}),
        "data": PropertyValue({"k": PropertyValue("v", is_secret=True)}),
    }
    other = asyncio.run(provider.create(CreateRequest(_urn("ConfigMap"), inputs, 0, False)))

    assert made.properties["data"].is_secret
    assert made.properties["__inputs"].value["stringData"].is_secret
    assert other.properties["data"].is_secret
    assert other.properties["__inputs"].value["data"].is_secret
    assert not other.properties["metadata"].is_secret


def test_another_resource_is_refused_with_the_page_that_tells_why(provider):
    """Kinds that the program does not declare are not covered."""
    with pytest.raises(ProviderError, match=r"^kubernetes:core/v1:Pod: not a resource of this provider; see scripts"):
        _check(provider, "Pod", {})
