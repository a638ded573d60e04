"""Run the plugin: `python -m scripts.toolchain.plugins.hcloud ENGINE`; the engine starts it so."""

from __future__ import annotations

import sys

from scripts.toolchain.plugins.hcloud.provider import HcloudProvider
from scripts.toolchain.plugins.serve import serve

VERSION = "1.43.3"
"""The SDK that it speaks to."""

if __name__ == "__main__":
    serve(sys.argv[1:], version=VERSION, provider=HcloudProvider())
