"""The registry's mode: what a collection tells a registry's entrypoint, and how that obeys.

registry:2 reads at its start whether it is read-only, so the mode is its environment: a ConfigMap on Kubernetes, a file
elsewhere. It has an expiry. Whoever asked for maintenance may die in it; the registry is writable again all the same.
"""

from __future__ import annotations

READ_ONLY = "REGISTRY_STORAGE_MAINTENANCE_READONLY"
"""The only form that works with and without a `maintenance` block in the configuration; …_READONLY_ENABLED does not."""

UNTIL = "SLIPWAY_READONLY_UNTIL"
"""When the mode ends, in seconds since the epoch, by the clock of the registry's own host."""

FILE = "SLIPWAY_MODE_FILE"
"""Where there is no Kubernetes: the file that the entrypoint reads its mode from."""

ENTRYPOINT = f"""\
if [ -r "${{{FILE}:-}}" ]; then set -a; . "${FILE}"; set +a; fi
if [ -n "${{{UNTIL}:-}}" ]; then
	if [ "$(date +%s)" -ge "${UNTIL}" ]; then
		unset {READ_ONLY} {UNTIL}
	else
		read -r self _ </proc/self/stat
		(
			while kill -0 "$self" 2>/dev/null && [ "$(date +%s)" -lt "${UNTIL}" ]; do sleep 1; done
			kill -TERM "$self" 2>/dev/null
		) &
	fi
fi
exec "$@"
"""
"""What the registry's container runs: `sh -c ENTRYPOINT slipway registry serve FILE`.

Kubernetes makes one dollar sign of two in a container's command, so the shell's own number is not asked for by its name.
At the expiry it ends the registry, with all that runs in its container; what restarts it finds the mode expired.
"""


def config_map(deployment: str) -> str:
    """Return the name of the ConfigMap that a Deployment's pods take their mode from, if it is there."""
    return f"{deployment}-mode"


def read_only(until: int) -> dict[str, str]:
    """Return the mode that takes no writes until then."""
    return {READ_ONLY: '{"enabled":true}', UNTIL: str(until)}
