"""The gates before a sweep, and what is read of a registry's process, its metrics and its uploads."""

from __future__ import annotations

import pytest

from scripts.registry.collection import gate, quiet, server
from scripts.registry.collection.plan import Plan
from scripts.registry.collection.store import Blob, Store
from scripts.registry.errors import CollectionStopped, StoreUnreadable

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
NOW = 1_700_000_000


def _printed(*blobs, manifests=(), count=None):
    lines = ["app", "app: marking manifest x "]
    lines += [f"manifest eligible for deletion: {each}" for each in manifests]
    lines += [
        f"\n5 blobs marked, {len(blobs) if count is None else count} blobs and {len(manifests)} manifests eligible for deletion"
    ]
    return "\n".join([*lines, *(f"blob eligible for deletion: {each}" for each in blobs)])


def _check(printed, *, frees=(A,), live=(B,), written=NOW - 61):
    plan = Plan(
        unlink=(),
        untag={},
        frees=dict.fromkeys(frees, 1),
        held=frozenset(),
        live=frozenset(live),
        kept={},
        kept_tags={},
    )
    store = Store(now=NOW, blobs={each: Blob(1, written) for each in (A, B, C)})
    gate.check(gate.parse(printed), plan, store, grace_s=60)


def test_what_was_planned_may_go():
    """And less than that."""
    _check(_printed(A))
    _check(_printed())


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (_printed(A, B), f"delete what is in use: {B}"),
        (_printed(A, C), f"too young or unknown: {C}"),
        (_printed(A, manifests=(B,)), f"untag by itself: {B}"),
    ],
)
def test_nothing_else_may_go(printed, said):
    """A hit in what is in use, a blob that nobody planned, a manifest that the tool unlinks by itself."""
    with pytest.raises(CollectionStopped, match=said):
        _check(printed)


def test_a_planned_blob_that_is_young_may_not_go():
    """Plans are of what is old."""
    with pytest.raises(CollectionStopped, match="too young"):
        _check(_printed(A), written=NOW - 10)


@pytest.mark.parametrize("printed", ["", "Usage: registry", _printed(A, count=2)])
def test_what_does_not_say_how_much_it_takes_is_not_trusted(printed):
    """An output that broke off, or of another program."""
    with pytest.raises(CollectionStopped, match="did not say"):
        gate.parse(printed)


def test_a_share_above_the_limit_is_refused():
    """445 GB that become 4 GB are an accident."""
    gate.check_share(50, 100, largest=0.5)
    gate.check_share(0, 0, largest=0.5)
    with pytest.raises(CollectionStopped, match="51% of all blobs, more than 50%"):
        gate.check_share(51, 100, largest=0.5)


_TOLD = """\
=pid
1
=now
1700000000
=arguments
registry
serve
/etc/docker/registry/config.yml
=environment
PATH=/bin
REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/data
REGISTRY_STORAGE_MAINTENANCE_READONLY={"enabled":true}
SLIPWAY_READONLY_UNTIL=1700003600
REGISTRY_STORAGE_CACHE={blobdescriptor: inmemory}
=configuration
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  cache: {blobdescriptor: redis}
  delete: {enabled: true}
http: {debug: {addr: ":5001", prometheus: {enabled: true}}}
=end
"""


def test_settings_are_read_as_the_registry_reads_them():
    """The environment wins, also for a whole block."""
    found = server.parse(_TOLD)

    assert found.folder == "/data/docker/registry/v2"
    assert found.until == 1_700_003_600
    assert found.config_file == "/etc/docker/registry/config.yml"
    assert found.metrics == "127.0.0.1:5001"
    assert found.deletes
    found.check()


def test_what_is_not_set_has_the_registrys_own_default():
    """A variable without our mode's setting makes no mode, and a debug port without metrics counts nothing."""
    environment, configuration = _TOLD.index("PATH="), _TOLD.index("=configuration")
    text = _TOLD[:environment] + "SLIPWAY_READONLY_UNTIL=1700003600\nodd\n" + _TOLD[configuration:]

    found = server.parse(text.replace("{rootdirectory: /var/lib/registry}", "").replace("enabled: true", "x: y"))

    assert found.folder == "/var/lib/registry/docker/registry/v2"
    assert found.until == 0
    assert found.metrics == ""
    assert not found.deletes
    broken = server.parse(text.replace("storage:\n", "storage: [\n"))
    assert (broken.folder, broken.metrics, broken.deletes) == ("/var/lib/registry/docker/registry/v2", "", False)


@pytest.mark.parametrize(
    ("before", "instead", "said"),
    [
        ("PATH=/bin", "REGISTRY_STORAGE=s3", "stores in s3, not in files"),
        ("  delete:", "  s3: {bucket: b}\n  delete:", "stores in s3, not in files"),
        ("{blobdescriptor: inmemory}", "{blobdescriptor: redis}", "remembers blobs in Redis"),
        ("{blobdescriptor: inmemory}", "{layerinfo: redis}", "remembers blobs in Redis"),
        ("PATH=/bin", "REGISTRY_STORAGE=filesystem", ""),
        ("  delete:", "  tag: {concurrencylimit: 8}\n  redirect: {disable: true}\n  maintenance: {}\n  delete:", ""),
    ],
)
def test_a_storage_that_no_files_tell_of_is_refused(before, instead, said):
    """Wherever it is set; what else may be set of a storage is no driver."""
    found = server.parse(_TOLD.replace(before, instead))

    if not said:
        found.check()
        return
    with pytest.raises(CollectionStopped, match=said):
        found.check()


def test_what_is_told_of_a_process_must_be_whole():
    """A stream that broke off says nothing."""
    with pytest.raises(StoreUnreadable):
        server.parse(_TOLD.removesuffix("=end\n"))


def test_only_writes_count():
    """Pulls do not keep a registry from being quiet."""
    metrics = """\
# TYPE registry_http_requests_total counter
registry_http_requests_total{code="200",handler="manifest",method="get"} 90
registry_http_requests_total{code="201",handler="manifest",method="put"} 3
registry_http_requests_total{code="202",handler="blob_upload",method="post"} 4
"""

    assert quiet.writes(metrics) == 7
    assert quiet.busy_uploads("100\n95\n20\n", quiet_s=60) == 1
    assert quiet.busy_uploads("", quiet_s=60) == 0
