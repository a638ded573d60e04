"""The one local cloud of a state folder: its server process, and all that it leaves on the host.

The server is written down before it does anything, and machines and networks are found by their names, so `stop` and
`sweep` work whatever was killed and whenever.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.localcloud import cgroups, network, nspawn
from scripts.localcloud.preflight import LOCK, RECORDS, HostUnfit

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = Path("/run/slipway/localcloud")
"""Names the state folder whose machines and networks are on this host; there is one at a time."""
ANSWER_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A server process as it wrote itself down."""

    pid: int
    birth: str | None
    port: int
    control_port: int
    api_only: bool

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.birth is not None and cgroups.birth(self.pid) == self.birth

    @property
    def endpoint(self) -> str:
        """The API's base URL."""
        return f"http://127.0.0.1:{self.port}/v1"


def load(state: Path) -> Instance | None:
    """Read who serves a state folder, if its process is alive."""
    with suppress(OSError, ValueError, TypeError):
        instance = Instance(**json.loads((state / "server.json").read_text()))
        if instance.alive:
            return instance
    return None


def record(state: Path, *, port: int, control_port: int, api_only: bool) -> None:
    """Write down that this process serves the state folder, before it becomes the server."""
    pid = os.getpid()
    mine = Instance(pid=pid, birth=cgroups.birth(pid), port=port, control_port=control_port, api_only=api_only)
    fresh = state / "server.json.new"
    fresh.write_text(json.dumps(asdict(mine)))
    fresh.replace(state / "server.json")
    if not api_only:
        OWNER.parent.mkdir(exist_ok=True)
        OWNER.write_text(str(state))


def owner() -> Path | None:
    """Name the state folder of the local cloud that has machines or networks on this host."""
    with suppress(FileNotFoundError):
        if name := OWNER.read_text():
            return Path(name)
    return None


def other_owner(state: Path) -> Path | None:
    """Name that of another local cloud than this one's."""
    found = owner()
    with suppress(PermissionError):  # another user's, so it is there
        if found is None or found == state or not found.exists():
            return None
    return found


def is_ours(state: Path) -> bool:
    """Tell whether a folder is one that the local cloud keeps its state in."""
    return (state / LOCK).exists() or (state / RECORDS).exists()


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Let one command at a time work on a state folder, which is ours from then on."""
    with (state / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def launch(state: Path, *, port: int, control_port: int, api_only: bool) -> Instance:
    """Start the server in the background and wait until it answers; raise with its last words when it ends instead.

    The child writes itself down between fork and exec, while it still holds our lock on the state folder: whenever this
    process is killed, the next command finds either no server or its record.
    """
    log = state / "server.log"
    ports = ("--port", str(port), "--control-port", str(control_port))
    only = ("--api-only",) if api_only else ()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "scripts.localcloud", "serve", "--state", str(state), *ports, *only],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: record(state, port=port, control_port=control_port, api_only=api_only),  # noqa: PLW1509
                cwd=Path(__file__).parents[2],
            )
    except subprocess.SubprocessError as error:  # what went wrong between fork and exec, which does not come through
        raise HostUnfit(
            f"the API server cannot be written down in {state} or {OWNER.parent}: is there room?"
        ) from error
    deadline = time.monotonic() + ANSWER_DEADLINE_S
    while time.monotonic() < deadline:
        instance = load(state)
        if instance and instance.pid == process.pid and answers(instance):
            return instance
        if process.poll() is not None:
            raise HostUnfit(f"the API server ended: {nspawn.last_words(log, 1)} (more in {log})")
        time.sleep(0.05)
    raise HostUnfit(f"the API server does not answer after {ANSWER_DEADLINE_S:.0f} s (see {log})")


def answers(instance: Instance) -> bool:
    """Ask the API anything; any HTTP answer will do."""
    try:
        urllib.request.urlopen(instance.endpoint, timeout=2)  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def stop(state: Path) -> None:
    """End the server process; done when it is gone."""
    instance = load(state)
    for signal_number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if not instance or not instance.alive:
            break
        with suppress(ProcessLookupError):
            os.kill(instance.pid, signal_number)
        deadline = time.monotonic() + patience_s
        while instance.alive and time.monotonic() < deadline:
            time.sleep(0.02)
    if is_ours(state):
        (state / "server.json").unlink(missing_ok=True)


def sweep(state: Path) -> None:
    """Cut the power of every machine and remove every namespace, link and control group of ours."""
    if other_owner(state):
        return
    while ids := cgroups.machine_ids():  # a launcher that was on its way may join its group late
        with ThreadPoolExecutor() as pool:
            list(pool.map(nspawn.power_off, ids))
    network.remove()
    shutil.rmtree(OWNER.parent, ignore_errors=True)


def erase(state: Path) -> None:
    """Empty the state folder of what the local cloud keeps there; no disk is half there at any moment."""
    gone = state / "gone"
    shutil.rmtree(gone, ignore_errors=True)
    gone.mkdir()
    for path in (state / "machines", state / "cluster", *state.glob(f"{RECORDS}*")):
        with suppress(FileNotFoundError):
            path.rename(gone / path.name)
    shutil.rmtree(gone, ignore_errors=True)
