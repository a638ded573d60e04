"""What must hold before a node counts as ready; each wait has its own deadline and its own words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from builders.buildkit_config import BUILDCTL, BUILDKIT_UNIT, CURRENT
from builders.errors import NodeNotReady, RemoteCommandFailed
from builders.platforms import Platform, parse_platform

if TYPE_CHECKING:
    from builders.ssh import Connection

_CLOUD_INIT_DEADLINE_S = 600
_TEST_BUILD_DEADLINE_S = 180

# Its result is waited for as a file: its own command takes a fifth of a second of processor time, and looks no more often.
# Who has no result in a minute, or one with an error, is asked. Exit 2 means done with recoverable errors.
_CLOUD_INIT = """\
command -v cloud-init > /dev/null || exit 0
result=/run/cloud-init/result.json
for _ in $(seq 300); do [ ! -e "$result" ] || break; sleep 0.2; done
! grep -q '"errors": \\[\\]' "$result" 2> /dev/null || exit 0
cloud-init status --wait > /dev/null; status=$?
[ $status = 1 ] || exit 0
cloud-init status --long --format json || true
grep -m1 -E 'WARNING|ERROR|CRITICAL' /var/log/cloud-init.log >&2; exit 67
"""
# Of the static programs in the tarball the loopback plugin is the smallest; without an order it tells its version and ends well.
_TEST_BUILD = f"""\
set -e; context=$(mktemp -d); trap 'rm -rf "$context"' EXIT
cp {CURRENT}/bin/buildkit-cni-loopback "$context"
printf 'FROM scratch\\nRUN --mount=target=/context ["/context/buildkit-cni-loopback"]\\n' > "$context/Dockerfile"
{BUILDCTL} build --no-cache --progress=plain --frontend=dockerfile.v0 --local "context=$context" --local "dockerfile=$context" 2>&1
"""


def wait_for_cloud_init(connection: Connection) -> None:
    """Wait until the machine has set itself up; its own error is shown when it could not."""
    try:
        connection.run(_CLOUD_INIT, timeout_s=_CLOUD_INIT_DEADLINE_S)
    except RemoteCommandFailed as error:
        if error.exit_status != 67:
            raise
        raise NodeNotReady(
            f"node {connection.node}: cloud-init failed: {_cloud_init_error(error)}",
            hint="read /var/log/cloud-init-output.log on the node; then delete the server and run `slipway up`",
        ) from error


def _cloud_init_error(error: RemoteCommandFailed) -> str:
    try:
        record = json.loads(error.stdout)
    except ValueError:
        record = {}
    reasons = [*(record.get("errors") or ()), record.get("detail") or ""]
    log = error.stderr.strip()
    return "; ".join(part.strip() for part in (str(reasons[0]), log) if part.strip()) or "it does not say why"


def restart(connection: Connection, *, timeout_s: float) -> None:
    """Restart buildkitd, which lets running builds finish first, and wait until it says that it is ready."""
    # Whatever failed or was started too often before must not keep this start from being tried.
    command = f"systemctl reset-failed {BUILDKIT_UNIT} 2> /dev/null; systemctl restart {BUILDKIT_UNIT}"
    try:
        connection.run(command, timeout_s=timeout_s, alone=True)
    except RemoteCommandFailed as error:
        journal = connection.run(f"journalctl -u {BUILDKIT_UNIT} -n 200 -o cat --no-pager").splitlines()
        refused = [line for line in error.stderr.splitlines() if line.startswith("Failed to ")]  # by systemd itself
        told = [line for line in reversed(journal) if line.startswith("buildkitd: ")]
        reason = next(iter([*refused, *told, *reversed(journal)]), "")
        raise NodeNotReady(
            f"node {connection.node}: BuildKit does not start: {reason or 'its journal is empty'}",
            hint=f"read `journalctl -u {BUILDKIT_UNIT}` on the node",
        ) from error


def check_workers(connection: Connection, platform: Platform) -> str:
    """Make sure that the node builds its own platform only; return the snapshotter it uses."""
    workers = json.loads(connection.run(f"{BUILDCTL} debug workers --format '{{{{json .}}}}'", timeout_s=30))
    platforms = {
        parse_platform(f"{each['os']}/{each['architecture']}") for worker in workers for each in worker["platforms"]
    }
    if platforms != {platform}:
        listed = ", ".join(sorted(map(str, platforms))) or "none"
        raise NodeNotReady(f"node {connection.node}: BuildKit lists {listed} as its platforms, not {platform} alone")
    return str(workers[0]["labels"]["org.mobyproject.buildkit.worker.snapshotter"])


def check_build(connection: Connection) -> None:
    """Build something that really runs a command; it needs no registry."""
    try:
        connection.run(_TEST_BUILD, timeout_s=_TEST_BUILD_DEADLINE_S)
    except RemoteCommandFailed as error:
        lines = [line for line in error.stdout.splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if "error:" in line or "ERROR" in line), lines[-1] if lines else ""
        )
        raise NodeNotReady(
            f"node {connection.node}: the test build failed: {reason or error}",
            hint=f"read `journalctl -u {BUILDKIT_UNIT}` on the node",
        ) from error
