"""Start the language host: `python -m scripts.toolchain.plugins.language_python [ENGINE]`."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import signal
import sys
from typing import TYPE_CHECKING

os.environ.setdefault(
    "GRPC_ENABLE_FORK_SUPPORT", "0"
)  # the program is another process image; nothing of gRPC goes along

from scripts.toolchain.plugins.language_python.host import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

ENGINE_POLL_S = 1.0


async def run(engine: str) -> None:
    """Serve until a signal arrives or the engine is gone, whichever way it went."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    watcher = asyncio.create_task(_stop_without_parent(stop))
    await serve(engine, importlib.metadata.version("pulumi"), stop)
    watcher.cancel()


async def _stop_without_parent(stop: asyncio.Event) -> None:
    # A killed engine says no goodbye; a host that outlived it would keep the program running against nothing.
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel sets no event
        await asyncio.sleep(ENGINE_POLL_S)
    stop.set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the language host as the engine starts it; flags of the vendor's host are accepted and ignored."""
    parser = argparse.ArgumentParser(prog="pulumi-language-python", description="Pulumi language host for Python.")
    parser.add_argument("engine", nargs="?", default="", help="address of the engine")
    options, _ = parser.parse_known_args(argv)
    asyncio.run(run(options.engine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
