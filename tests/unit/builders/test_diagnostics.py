"""The engine's events as the lines that a user reads."""

import json

import pytest

from builders import diagnostics


def event(message, severity="error", urn="urn:pulumi:dev::slipway::pulumi:pulumi:Stack::slipway-dev"):
    """Return a line of the engine's log."""
    told = {"urn": urn, "message": message, "severity": severity}
    return json.dumps({"sequence": 1, "diagnosticEvent": told}) + "\n"


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        (
            "Exception calling application: node arm64-1: the disk is full; choose a larger type\n",
            ("node arm64-1: the disk is full; choose a larger type",),
        ),
        ("slipway:builders: not set\n  set it\n", ("slipway:builders: not set; set it",)),
        ("slipway:image: not set\nslipway:protect: not set\n", ("slipway:image: not set", "slipway:protect: not set")),
        (
            "Program failed with an unhandled exception:\nTraceback (most recent call last):\n"
            '  File "x.py", line 1, in <module>\n    1/0\nZeroDivisionError: division by zero\n\n',
            ("ZeroDivisionError: division by zero",),
        ),
        (
            "sdk-v2/provider2.go:572: sdk.helper_schema: server type not found: provider=hcloud@1.43.3\n",
            ("server type not found: provider=hcloud@1.43.3",),
        ),
        (
            "1 error occurred:\n\t* unable to authenticate (unauthorized)\n\n",
            ("unable to authenticate (unauthorized)",),
        ),
        ("<{%fg 1%}>error: <{%reset%}>token is missing\n", ("token is missing",)),
        ("update failed\n", ()),
        ("an unhandled error occurred: program exited with non-zero exit code: 1\n", ()),
    ],
)
def test_reduces_a_message_to_what_it_says(message, lines):
    """Wrappers, markup, tracebacks and the engine's own "see above" go; a hint stays on the line that it belongs to."""
    assert diagnostics.errors([event(message)]) == lines


def test_tells_each_error_once_and_in_order():
    """What two nodes fail with is told once; warnings and torn lines are no errors."""
    log = [event("second\n"), event("first\n"), event("second\n"), event("careful\n", "warning"), '{"torn']

    assert diagnostics.errors(log) == ("second", "first")


def test_names_the_resource_that_the_provider_could_not_make():
    """Its message alone tells neither node nor setting; a child's URN holds its parents' types."""
    parents = "urn:pulumi:dev::slipway::slipway:index:Fleet$slipway:index:Builder"

    assert diagnostics.errors(
        [
            event("image debian-99 not found\n", urn=f"{parents}$hcloud:index/server:Server::arm64-1"),
            event("node arm64-1: the disk is full\n", urn=f"{parents}$pulumi-python:dynamic/slipway:BuildKit::arm64-1-buildkit"),
        ]
    ) == ("Server arm64-1: image debian-99 not found", "node arm64-1: the disk is full")  # fmt: skip
