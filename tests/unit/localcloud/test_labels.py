"""Label selectors find what the vendor's grammar says."""

import pytest

from scripts.localcloud.labels import InvalidSelector, label_problems, parse_selector, selects

LABELS = {"env": "prod", "slipway/builder": "arm64", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("env", True),
        ("other", False),
        ("!env", False),
        ("!other", True),
        ("env=prod", True),
        ("env==prod", True),
        ("env == prod", True),
        ("env==test", False),
        ("env!=test", True),
        ("env!=prod", False),
        ("other!=prod", True),
        ("env in (test,prod)", True),
        ("env in (test, prod)", True),
        ("env in (test)", False),
        ("env notin (test)", True),
        ("env notin (prod,test)", False),
        ("other notin (prod)", True),
        ("empty=", True),
        ("slipway/builder=arm64,env in (prod,test),!other", True),
        ("slipway/builder=arm64,env in (x,y)", False),
    ],
)
def test_a_selector_finds_what_its_grammar_says(selector, found):
    """Equality, sets, existence and their opposites; a comma means that all parts hold."""
    assert selects(selector, LABELS) is found


@pytest.mark.parametrize(
    "selector", ["", "  ", "a b", "env in ()x", "env in prod", "=x", "env=a=b", "-env", "a,,b", "k=ä"]
)
def test_what_is_no_selector_is_refused(selector):
    """A typo never silently finds everything or nothing."""
    with pytest.raises(InvalidSelector):
        parse_selector(selector)


@pytest.mark.parametrize(
    ("labels", "sound"),
    [
        ({"a": "b", "prefix.example/name": "v", "A_b-c.d": ""}, True),
        ({"": "b"}, False),
        ({"-a": "b"}, False),
        ({"a": "-b"}, False),
        ({"a" * 63: "b" * 63}, True),
        ({"a" * 64: "b"}, False),
        ({"a": "b" * 64}, False),
        ({"p/" + "a" * 63: "b"}, True),
        ({"a" * 254 + "/n": "b"}, False),
        ({"hetzner.cloud/x": "b"}, False),
        ({"a": "b c"}, False),
    ],
)
def test_labels_have_a_syntax(labels, sound):
    """Keys up to 63 characters with a prefix up to 253, values up to 63, the vendor's own prefix reserved."""
    assert (label_problems(labels) == ()) is sound
