"""The user_data of a builder (pure): what the machine must know before the first contact, and nothing secret but one key.

That key is the bootstrap host key. Whoever reads user_data later can do nothing with it, for it is retired at the
first contact (docs/architecture.md). Everything else reaches the machine over SSH.
"""

from __future__ import annotations

import json

LIMIT_BYTES = 32 * 1024  # of the API


def render(*, host_key: str, host_key_public: str) -> str:
    """Return cloud-config, with JSON for the values (JSON is YAML), so that a key's line ends survive."""
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key, "ed25519_public": host_key_public},
        "ssh_pwauth": False,
        "disable_root": False,
        "locale": "C.UTF-8",
    }
    return "#cloud-config\n" + json.dumps(config, indent=1, sort_keys=True) + "\n"
