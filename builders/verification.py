"""Verify tags from a node, as a machine that shares nothing with this one: the one-file program runs there, over SSH."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builders import ssh
from builders.errors import InvalidSetting, RemoteCommandFailed
from scripts.registry import archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builders.state import State
    from scripts.registry.credentials import Credentials

_FOLDER = "/run/slipway-verify"
_TIMEOUT_S = 1800.0
_DIAL_S = 20.0


def verify(
    state: State, name: str, words: Sequence[str], *, login: Credentials | None, ca: str
) -> tuple[int, str, str]:
    """Run `verify` with these words on a node; its exit code, stdout and stderr. The login's secret goes over stdin alone."""
    node = next((each for each in state.nodes() if each.name == name), None)
    if node is None:
        known = ", ".join(sorted(each.name for each in state.nodes()))
        raise InvalidSetting(f"--from {name}: the stack has no such node", hint=f"nodes: {known or 'none are up'}")
    program = _program()
    place = f"{_FOLDER}/{hashlib.sha256(program).hexdigest()[:16]}.pyz"
    command = ["python3", place, "verify", *words]
    if login:
        command += ["--username", login.username, "--password-stdin"]
    with ssh.connect(
        name, node.address, host_keys=[node.host_key], private_key=state.output("sshKey"), deadline_s=_DIAL_S
    ) as connection:
        connection.put(place, program)
        if ca:
            authority = Path(ca).read_bytes()
            there = f"{_FOLDER}/{hashlib.sha256(authority).hexdigest()[:16]}.pem"
            connection.put(there, authority)
            command += ["--ca", there]
        secret = f"{login.secret}\n".encode() if login else None
        try:
            return 0, connection.run(shlex.join(command), stdin=secret, timeout_s=_TIMEOUT_S), ""
        except RemoteCommandFailed as failed:
            if "python3" in failed.stderr and "not found" in failed.stderr:
                raise
            return failed.exit_status, failed.stdout, failed.stderr


def _program() -> bytes:
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        file = Path(folder) / "slipway-registry"
        archive.write(file)
        return file.read_bytes()
