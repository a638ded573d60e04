"""Run the plugin: `python -m scripts.toolchain.plugins.kubernetes ENGINE`; the engine starts it so."""

from __future__ import annotations

import sys

from scripts.toolchain.plugins.kubernetes.provider import KubernetesProvider
from scripts.toolchain.plugins.serve import Engine, engine_address, serve

VERSION = "4.34.2"
"""The SDK that it speaks to."""

if __name__ == "__main__":
    engine = Engine(engine_address(sys.argv[1:]))
    serve(sys.argv[1:], version=VERSION, provider=KubernetesProvider(warn=engine.warn))
