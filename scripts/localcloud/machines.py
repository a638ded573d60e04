"""The hypervisor over systemd-nspawn: every server is a machine on this host with its own systemd, sshd and addresses.

A machine is an overlay over the cached base image, a network namespace and a control group, all found again by the machine's
id: a restarted API server needs no record of what runs. The overlay is mounted in a mount namespace of the machine's own, so a
machine that ends leaves no mount. Its spec is kept beside its disk for the next boot.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from scripts.localcloud import cgroups, network, nspawn, private_networks
from scripts.localcloud.commands import CommandFailed
from scripts.localcloud.hypervisor import FirewallRule, MachineFailed, MachineSpec, PrivateAddress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHUTDOWN_DEADLINE_S = 30.0


@dataclass(slots=True)
class Machines:
    """Machines of one state folder; each operation runs in a thread, and those of one machine one after another."""

    state: Path
    images: Path
    _locks: defaultdict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _inits: dict[int, tuple[int, str | None]] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64, thread_name_prefix="machine"))

    async def start(self, spec: MachineSpec) -> None:
        """Boot, on a fresh disk if there is none; a machine that runs takes over the private addresses of `spec`."""
        await self._do(spec.id, lambda: self._start(spec))

    async def stop(self, machine_id: int, *, graceful: bool) -> None:
        """Switch off: ask and wait for `SHUTDOWN_DEADLINE_S`, or cut the power at once."""
        await self._do(machine_id, lambda: self._stop(machine_id, graceful=graceful))

    async def reset(self, machine_id: int) -> None:
        """Cut the power and boot the same disk again."""

        def reset() -> None:
            spec = self._load(machine_id)
            self._stop(machine_id, graceful=False)
            self._start(spec)

        await self._do(machine_id, reset)

    async def rebuild(self, spec: MachineSpec) -> None:
        """Boot on a fresh disk."""

        def rebuild() -> None:
            self._wipe(spec.id)
            self._start(spec)

        await self._do(spec.id, rebuild)

    async def delete(self, machine_id: int) -> None:
        """Remove the machine with its disk, its namespace and its rules."""

        def delete() -> None:
            self._wipe(machine_id)
            network.set_firewall(machine_id, None)

        await self._do(machine_id, delete)
        self._locks.pop(machine_id, None)
        self._inits.pop(machine_id, None)

    async def set_firewall(self, machine_id: int, rules: tuple[FirewallRule, ...] | None) -> None:
        """Replace the rules that the hub enforces for the machine."""
        await self._do(machine_id, lambda: network.set_firewall(machine_id, rules))

    async def running(self, machine_id: int) -> bool:
        """Tell whether the machine's PID 1 is alive."""
        pid, birth = self._inits.get(machine_id, (0, None))
        if birth and cgroups.birth(pid) == birth:  # the short way: this is asked often
            return True
        pid = cgroups.init_pid(machine_id) or 0
        self._inits[machine_id] = pid, cgroups.birth(pid)
        return pid > 0

    async def close(self) -> None:
        """Finish what is under way; the machines run on."""
        self._threads.shutdown(wait=True)

    async def _do(self, machine_id: int, operation: Callable[[], None]) -> None:
        async with self._locks[machine_id]:
            work = asyncio.get_running_loop().run_in_executor(self._threads, operation)
            try:
                await asyncio.shield(work)
            except (CommandFailed, OSError) as error:
                raise MachineFailed(f"machine {machine_id}: {error}") from error
            finally:
                # Whoever waited may have been cancelled; the thread was not, and has the machine until it ends.
                await asyncio.gather(work, return_exceptions=True)

    def _start(self, spec: MachineSpec) -> None:
        if cgroups.init_pid(spec.id):
            private_networks.sync(spec)
            self._save(spec)
            return
        image = self.images / nspawn.IMAGES[spec.architecture]
        nspawn.check_image(image)
        self._stop(spec.id, graceful=False)
        folder = self._folder(spec.id)
        if not (folder / "disk").exists():
            nspawn.make_disk(folder / "disk", spec)
        self._save(spec)
        network.attach(spec)
        private_networks.sync(spec)
        process = nspawn.launch(spec, image, folder)
        try:
            nspawn.wait_running(spec, process, folder / "console.log")
        except MachineFailed:
            self._stop(spec.id, graceful=False)
            raise

    def _stop(self, machine_id: int, *, graceful: bool) -> None:
        if graceful and (pid := cgroups.init_pid(machine_id)):
            nspawn.ask_to_power_off(pid)
            deadline = time.monotonic() + SHUTDOWN_DEADLINE_S
            while cgroups.init_pid(machine_id) and time.monotonic() < deadline:
                time.sleep(0.05)
        nspawn.power_off(machine_id)

    def _wipe(self, machine_id: int) -> None:
        self._stop(machine_id, graceful=False)
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder(machine_id))

    def _folder(self, machine_id: int) -> Path:
        return self.state / "machines" / str(machine_id)

    def _save(self, spec: MachineSpec) -> None:
        path = self._folder(spec.id) / "spec.json"
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)  # it holds the user's data
        fresh.write_text(json.dumps(asdict(spec)))
        fresh.replace(path)

    def _load(self, machine_id: int) -> MachineSpec:
        return load_spec(self._folder(machine_id))


def load_spec(folder: Path) -> MachineSpec:
    """Read the spec that a machine was started with last."""
    try:
        record = json.loads((folder / "spec.json").read_text())
    except FileNotFoundError:
        raise MachineFailed(f"machine {folder.name}: no such machine") from None
    record["ssh_keys"] = tuple(record["ssh_keys"])
    record["private_addresses"] = tuple(
        PrivateAddress(**{**one, "alias_ips": tuple(one["alias_ips"])}) for one in record["private_addresses"]
    )
    return MachineSpec(**record)
