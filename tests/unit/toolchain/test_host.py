"""The language host's answers, without an engine."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from pulumi.runtime.proto import language_pb2

from scripts.toolchain.plugins.language_python.host import LanguageHost


class _Aborted(Exception):
    """What ended a call."""


class _Context:
    async def abort(self, code, details):
        raise _Aborted(code, details)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "pulumi-language-python-exec: not on PATH; run scripts/setup tools"),
        ({"virtualenv": "gone"}, "virtualenv: {root}/gone is not a virtual environment; run scripts/setup python"),
    ],
)
def test_what_a_program_needs_is_asked_for_in_a_line(monkeypatch, tmp_path, options, told):
    """The engine shows what is missing and the cure, and no traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))
    request = language_pb2.RunRequest()
    request.info.root_directory = str(tmp_path)
    request.info.options.update(options)

    with pytest.raises(_Aborted) as ended:
        asyncio.run(LanguageHost("", "3.0.0").Run(request, _Context()))

    code, details = ended.value.args
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details.endswith(told.format(root=tmp_path))
