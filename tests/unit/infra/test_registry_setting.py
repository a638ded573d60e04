"""infra.registry_setting: what a user writes of the registry, and what they are told when it cannot be used."""

import json

import pytest

from builders.errors import InvalidSetting
from infra import parsing, registry_setting
from tests.unit.infra.conftest import BEHIND, LEAST, PEM


def _parse(**changes):
    return registry_setting.parse(json.dumps({**LEAST, **changes}))


def _problems(**changes):
    with pytest.raises(InvalidSetting) as caught:
        _parse(**changes)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("nothing", [None, "", "{}"])
def test_no_setting_is_no_registry(nothing):
    """It exists by being given."""
    assert registry_setting.parse(nothing) is None


def test_three_fields_are_enough():
    """The rest has defaults: the stack's authority, nightly collection, images by digest that are made for ARM64 too."""
    setting = _parse()

    assert (setting.namespace, setting.node_port, setting.ingress) == ("slipway-registry", 30500, None)
    assert (setting.tls.kind, setting.users, setting.storage_class) == ("authority", (), None)
    assert (setting.collection.schedule, setting.collection.time_zone, setting.collection.grace) == (
        "30 3 * * *",
        "Etc/UTC",
        "24h",
    )
    assert setting.registry_image.endswith("a3d8aaa63ed8681a604f1dea0aa03f100d5895b6a58ace528858a7b332415373")
    assert (setting.host_name, setting.names_an_address, setting.pod_ends_tls) == ("198.51.100.8", True, True)


def test_the_authority_can_be_said_in_words():
    """As it is by default."""
    assert _parse(tls="authority") == _parse()


def test_everything_can_be_said():
    """An Ingress, a certificate by its annotations, users, and what is kept."""
    setting = registry_setting.parse(
        json.dumps({
            **BEHIND,
            "kubeconfig": "~/.kube/prod",
            "context": "prod",
            "namespace": "images",
            "storage": {"size": "50Gi", "class": "hcloud-volumes"},
            "tls": {"annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"}},
            "users": ["ada", "ci"],
            "collection": {
                "schedule": "0 2 * * mon-fri", "timeZone": "Europe/Berlin", "grace": "2d",
                "keepLast": "10", "keepMatching": "^v[0-9]", "keepWithin": "90d",
            },
            "images": {"registry": "registry:3@sha256:" + "0" * 64},
        })
    )  # fmt: skip

    assert (setting.kubeconfig, setting.context, setting.namespace) == ("~/.kube/prod", "prod", "images")
    assert (setting.storage_size, setting.storage_class) == ("50Gi", "hcloud-volumes")
    assert setting.users == ("ada", "ci")
    assert setting.ingress.class_name == "nginx"
    assert setting.tls.annotations == {"cert-manager.io/cluster-issuer": "letsencrypt"}
    assert setting.collection == registry_setting.Collection(
        schedule="0 2 * * mon-fri", time_zone="Europe/Berlin", grace="2d",
        keep_last=10, keep_matching="^v[0-9]", keep_within="90d",
    )  # fmt: skip
    assert setting.registry_image == "registry:3@sha256:" + "0" * 64
    assert setting.pod_ends_tls is False


@pytest.mark.parametrize(
    ("host", "name", "is_address"),
    [
        ("r.example.com:65535", "r.example.com", False),
        ("registry:1", "registry", False),
        ("[2001:db8::8]:30500", "2001:db8::8", True),
    ],
)
def test_a_host_has_a_name_or_an_address(host, name, is_address):
    """With a port or without."""
    setting = _parse(host=host)

    assert (setting.host_name, setting.names_an_address) == (name, is_address)


@pytest.mark.parametrize(
    ("kubeconfig", "content"),
    [("/etc/kubeconfig", False), ("~/.kube/prod", False), ("apiVersion: v1\n", True), (' {"kind": "Config"}', True)],
)
def test_a_kubeconfig_is_a_path_or_its_content(kubeconfig, content):
    """As YAML or as JSON, which the job is then handed as it is."""
    setting = _parse(kubeconfig=kubeconfig)

    assert (setting.kubeconfig, setting.has_kubeconfig_content) == (kubeconfig, content)


def test_a_context_tells_the_cluster_alone():
    """In the user's own kubeconfig."""
    setting = _parse(kubeconfig=None, context="prod")

    assert (setting.context, setting.has_kubeconfig_content) == ("prod", False)


def test_behind_an_ingress_a_secret_may_be_for_an_address():
    """The collection speaks to the pod, whose certificate that is not."""
    setting = registry_setting.parse(json.dumps({**BEHIND, "host": "198.51.100.8", "tls": {"secret": "mine"}}))

    assert (setting.pod_ends_tls, setting.names_an_address, setting.tls.secret) == (False, True, "mine")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"hots": "x"}, "hots: unknown field, did you mean 'host'?"),
        ({"host": None}, "host: missing, give a host name with an optional port"),
        ({"host": "https://x"}, "host: 'https://x' is not a host name with an optional port"),
        ({"host": "r.example.com:65536"}, "host: 'r.example.com:65536' is not a host name with an optional port"),
        ({"host": "r.example.com:0"}, "host: 'r.example.com:0' is not a host name with an optional port"),
        ({"host": "r..com:30500"}, "host: 'r..com:30500' is not a host name with an optional port"),
        ({"host": "registry"}, "host: 'registry' has no dot and no port: clients take it for a folder at docker.io"),
        ({"kubeconfig": None}, "context: missing, and no kubeconfig either: give what `kubectl config current-context` says, "
                               "or whoever has another context selected makes another registry there"),
        ({"storage": {"size": "50 GB"}}, "storage: size: '50 GB' is not a size, for example 50Gi"),
        ({"storage": {}}, "storage: size: missing, give a size, for example 50Gi"),
        ({"storage": {"size": "0Gi"}}, "storage: size: '0Gi' is not a size, for example 50Gi"),
        ({"context": ["prod"]}, "context: ['prod'] is no text"),
        ({"kubeconfig": {"apiVersion": "v1"}}, "kubeconfig: {'apiVersion': 'v1'} is no text"),
        ({"kubeconfig": "prod"}, "kubeconfig: 'prod' is relative, and it is read from several folders: begin it with / or ~/"),
        ({"service": {}}, "service: give either nodePort, 30000 to 32767, or ingress"),
        ({"service": {"nodePort": 80}}, "service: nodePort: 80 is not a whole number from 30000 to 32767"),
        ({"service": {"nodePort": 30500, "ingress": {}}}, "service: give either nodePort, 30000 to 32767, or ingress"),
        ({"service": "x"}, "service: 'x' is not an object, for example {\"nodePort\": 30500} or {\"ingress\": {\"class\": \"nginx\"}}"),
        ({"namespace": "My"}, "namespace: 'My' is not a namespace"),
        ({"tls": {"secret": "a"}}, "tls: with a secret of yours, host has to be a name: the collection checks the certificate by it"),
        ({"tls": {"annotations": {}}}, "tls: annotations are read from an Ingress: give service: {ingress: {}}, or a secret"),
        ({"tls": {"secret": "a", "ca": "no"}}, "tls: ca: not a PEM certificate"),
        ({"tls": "self-signed"}, "tls: 'self-signed' is not an object, for example \"authority\", "
                                 '{"secret": "registry-certificate"} or {"annotations": {…}}'),
        ({"users": ["a", "a"]}, "users: a is given twice"),
        ({"users": ["slipway-gc"]}, "users: slipway-gc is the collection's own user"),
        ({"users": ["http"]}, "users: http is the name of the registry's own secret, choose another"),
        ({"users": ["a:b"]}, "users: 'a:b' is not a user's name"),
        ({"collection": {"grace": "1 day"}}, "collection: grace: '1 day' is not a duration, for example 24h or 90d"),
        ({"collection": {"schedule": "30 3 * * 7"}}, "collection: schedule: '30 3 * * 7' is not a schedule: minute, hour, day, "
                                                     "month and weekday, for example 30 3 * * *"),
        ({"collection": {"keepMatching": "["}}, "collection: keepMatching: '[' is not a regular expression: "
                                                "unterminated character set at position 0"),
        ({"collection": {"timeZone": "+2"}}, "collection: timeZone: '+2' is not a time zone"),
        ({"images": {"registry": "registry:2"}},
         "images: registry: 'registry:2' is not an image by its digest, for example registry:2@sha256:…"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used_is_named_with_what_to_do(changes, line):
    """The line names the field, the value and what would do."""
    assert line in _problems(**changes)


def test_every_problem_is_told_at_once():
    """Also those of objects inside."""
    assert set(_problems(host="a b", storage={"size": "x", "klass": "y"})) == {
        "storage: size: 'x' is not a size, for example 50Gi",
        "storage: klass: unknown field, did you mean 'class'?",
        "host: 'a b' is not a host name with an optional port",
    }


_KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHQkR3l0bG9uZ3NlY3JldHRoYXRtdXN0bm90YmVzaG93bg==\n"


@pytest.mark.parametrize(
    "key", [_KEY, _KEY.replace("\n", "\\n"), {"token": _KEY}, [_KEY], "ab" * 32, {"token": "ab" * 32}]
)
@pytest.mark.parametrize("field", ["host", "service", "storage", "tls", "users", "collection", "images"])
def test_a_key_in_the_wrong_field_is_not_shown(field, key):
    """What is long or has lines is told by its size alone."""
    told = "\n".join(_problems(**{field: key}))

    assert told.startswith(field)
    assert not any(part in told for part in ("MC4C", "BEGIN", "abab"))


def test_what_is_no_json_is_not_shown_and_its_mistake_is():
    """A kubeconfig as content is in the setting too."""
    with pytest.raises(parsing.Problem) as caught:
        parsing.decoded(json.dumps({**LEAST, "kubeconfig": _KEY}, indent=1).replace('",\n', '"\n', 1), dict, "{}")

    assert "MC4C" not in str(caught.value)
    assert "Expecting ',' delimiter at line 3, letter 2" in str(caught.value)


@pytest.mark.parametrize(
    "schedule",
    ["30 3 * * *", "*/15 0-6 1,15 jan-mar sun", "@daily", "0 0 31 12 6", "5/10 * ? * *", "0 22 * * 1-5/2"],
)
def test_a_schedule_is_what_a_cron_job_takes(schedule):
    """Numbers, spans, lists, steps and names."""
    assert _parse(collection={"schedule": schedule}).collection.schedule == schedule


@pytest.mark.parametrize(
    "schedule",
    ["", "3 o'clock", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *",
     "* * * *", "* * * * * *", "@nightly", "1-2-3 * * * *", 5],
)  # fmt: skip
def test_a_schedule_that_no_cron_job_takes_is_refused(schedule):
    """Before anything is made, rather than at the API server."""
    assert _problems(collection={"schedule": schedule}) == [
        f"collection: schedule: {schedule!r} is not a schedule: minute, hour, day, month and weekday, for example 30 3 * * *"
    ]


def test_a_secret_of_ones_own_may_have_an_authority_of_its_own():
    """Builders and the job trust it then."""
    setting = registry_setting.parse(
        json.dumps({**LEAST, "host": "r.example.com", "tls": {"secret": "mine", "ca": PEM}})
    )

    assert (setting.tls.kind, setting.tls.secret, setting.tls.ca) == ("secret", "mine", PEM)
