"""End a dynamic provider together with its engine.

A killed engine leaves its providers running. One that went on installing would meet the next run's installation on the
same machine, so it ends as soon as the engine's port is closed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

_PROVIDER = "pulumi.dynamic.__main__"


def start() -> None:
    """Watch the engine if this process is a dynamic provider; do nothing in any other, such as the program itself."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is not None and main.name == _PROVIDER and len(sys.argv) > 1:
        host, _, port = sys.argv[1].rpartition(":")
        threading.Thread(target=watch, args=(host, int(port)), daemon=True).start()


def watch(host: str, port: int) -> None:
    """End this process once nothing listens there."""
    while True:
        try:
            with socket.create_connection((host, port)) as engine:
                # A living engine hangs up on a caller that stays silent for two minutes; a dead one at once.
                while engine.recv(4096):
                    pass
        except ConnectionRefusedError:
            os._exit(1)
        except OSError:
            time.sleep(1)
