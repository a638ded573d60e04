"""A dynamic provider does not outlive its engine."""

import socket
import subprocess
import sys

from infra.resources import watchdog

WATCH = "import sys; from infra.resources.watchdog import watch; watch('127.0.0.1', int(sys.argv[1]))"


def test_the_provider_ends_when_the_engine_is_gone():
    """It lives while the engine listens, even one that hangs up on it, and ends when the port is closed."""
    with socket.create_server(("127.0.0.1", 0)) as engine:
        provider = subprocess.Popen([sys.executable, "-c", WATCH, str(engine.getsockname()[1])])
        for _ in range(2):
            connection, _ = engine.accept()
            assert provider.poll() is None
            connection.close()
        connection, _ = engine.accept()
    connection.close()

    assert provider.wait(timeout=5) == 1


def test_other_processes_are_left_alone(monkeypatch):
    """The program, and this test, import the same module and have no engine's address to watch."""
    monkeypatch.setattr(sys, "argv", ["program", "127.0.0.1:1"])

    watchdog.start()
