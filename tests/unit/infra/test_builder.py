"""infra.components.builder: which registries the builders trust."""

import json
from types import SimpleNamespace

import pytest

from infra import registry_setting
from infra.components.builder import _own_registry
from infra.settings import Registry
from tests.unit.infra.conftest import LEAST, PEM

NAMED = {**LEAST, "host": "r.example.com:30500"}
BEHIND = {**LEAST, "host": "r.example.com", "service": {"ingress": {}}, "tls": {"annotations": {"a": "b"}}}


def _trusted(setting, *registries):
    own = registry_setting.parse(json.dumps(setting)) if setting else None
    settings = SimpleNamespace(registry=own, registries=registries)
    return _own_registry(SimpleNamespace(settings=settings, authority=SimpleNamespace(certificate="AUTHORITY")))


@pytest.mark.parametrize(
    ("setting", "trusted"),
    [
        (None, []),
        (NAMED, [{"host": "r.example.com:30500", "ca": "AUTHORITY", "mirrors": [], "http": False}]),
        (
            {**NAMED, "tls": {"secret": "mine", "ca": PEM}},
            [{"host": "r.example.com:30500", "ca": PEM, "mirrors": [], "http": False}],
        ),
        ({**NAMED, "tls": {"secret": "mine"}}, []),
        (BEHIND, []),
    ],
)
def test_builders_trust_the_stacks_registry_by_whoever_signed_its_certificate(setting, trusted):
    """Where a public authority did there is nothing to tell them, nor where there is no registry."""
    assert _trusted(setting) == trusted


def test_what_the_user_says_of_the_registry_counts():
    """An entry of slipway:registries for the same host stands as it is."""
    said = Registry(host="r.example.com:30500", ca=None, mirrors=("m.example.com",), http=False)

    assert _trusted(NAMED, said) == []
