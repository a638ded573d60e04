"""What of scripts.registry runs on a cluster: the one-file program, and the entrypoint and mode of a registry's container."""

from __future__ import annotations

from builders.errors import ProgramTooLarge
from scripts.registry import archive, mode

ENTRYPOINT = mode.ENTRYPOINT
NAME = "slipway-registry.pyz"
LIMIT_BYTES = 1024 * 1024  # of a ConfigMap: the API server takes no larger one


def pack() -> bytes:
    """Return the program as one file; raise ProgramTooLarge where no ConfigMap could hold it."""
    program = archive.pack()
    if len(program) >= LIMIT_BYTES:
        raise ProgramTooLarge(
            f"{NAME}: {len(program)} bytes, and a ConfigMap holds less than {LIMIT_BYTES}",
            hint="remove what does not belong from scripts/registry",
        )
    return program


def mode_config_map(deployment: str) -> str:
    """Return the name of the ConfigMap that a Deployment's pods take their mode from."""
    return mode.config_map(deployment)
