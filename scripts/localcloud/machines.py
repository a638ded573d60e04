"""The hypervisor over systemd-nspawn: every server is a machine on this host with its own systemd, sshd and addresses.

A machine is an overlay over the cached base image, a network namespace and a control group, all found again by the machine's
id: a restarted API server needs no record of what runs. The overlay is mounted in a mount namespace of the machine's own, so a
machine that ends leaves no mount. Its spec is kept beside its disk for the next boot.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.localcloud import cgroups, guest, network
from scripts.localcloud.commands import CommandFailed, run
from scripts.localcloud.hypervisor import FirewallRule, MachineFailed, MachineSpec, PrivateAddress

if TYPE_CHECKING:
    from collections.abc import Callable

DEBIAN_ARCHITECTURE = {"x86": "amd64", "arm": "arm64"}
DISKS = ("var/lib/buildkit", "var/lib/containerd")
"""Folders that are bind mounts of the host's file system: no overlay can lie on the overlay that a machine's root is."""
BOOT_DEADLINE_S = 20.0
SETTLE_S = 0.5
"""A machine that breaks at once does so within this time after PID 1 has started."""
SHUTDOWN_DEADLINE_S = 30.0

_LAUNCH = """\
set -e
image=$1 disk=$2; shift 2
while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift
mount -t overlay overlay -o "lowerdir=$image,upperdir=$disk/upper,workdir=$disk/work" "$disk/root"
code=133
while [ "$code" = 133 ]; do  # the machine has asked for a reboot
  code=0
  systemd-nspawn "$@" || code=$?
done
exit "$code"
"""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
    "SYSTEMD_NSPAWN_LOCK": "0",
}
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


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
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, operation)
            except (CommandFailed, OSError) as error:
                raise MachineFailed(f"machine {machine_id}: {error}") from error

    def _start(self, spec: MachineSpec) -> None:
        if cgroups.init_pid(spec.id):
            network.sync_private(spec)
            self._save(spec)
            return
        image = self.images / DEBIAN_ARCHITECTURE[spec.architecture]
        check_image(image)
        self._stop(spec.id, graceful=False)
        folder = self._folder(spec.id)
        if not (folder / "disk").exists():
            make_disk(folder / "disk", spec)
        self._save(spec)
        network.attach(spec)
        process = launch(spec, image, folder)
        try:
            wait_running(spec, process, folder / "console.log")
        except MachineFailed:
            self._stop(spec.id, graceful=False)
            raise

    def _stop(self, machine_id: int, *, graceful: bool) -> None:
        if graceful and (pid := cgroups.init_pid(machine_id)):
            ask_to_power_off(pid)
            deadline = time.monotonic() + SHUTDOWN_DEADLINE_S
            while cgroups.init_pid(machine_id) and time.monotonic() < deadline:
                time.sleep(0.05)
        power_off(machine_id)

    def _wipe(self, machine_id: int) -> None:
        self._stop(machine_id, graceful=False)
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder(machine_id))

    def _folder(self, machine_id: int) -> Path:
        return self.state / "machines" / str(machine_id)

    def _save(self, spec: MachineSpec) -> None:
        path = self._folder(spec.id) / "spec.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(spec)))
        fresh.chmod(0o600)  # it holds the user's data
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
        PrivateAddress(ip=one["ip"], network=one["network"], alias_ips=tuple(one["alias_ips"]))
        for one in record["private_addresses"]
    )
    return MachineSpec(**record)


def check_image(image: Path) -> None:
    """Fail unless the base image is there and this host can run its programs."""
    if not (image / "usr/bin/true").exists():
        raise MachineFailed(f"machine image {image} is missing: run scripts/setup")
    try:
        run("chroot", str(image), "/usr/bin/true")
    except CommandFailed:
        raise MachineFailed(f"this host cannot run {image.name} programs: run scripts/setup") from None


def make_disk(disk: Path, spec: MachineSpec) -> None:
    """Make a fresh disk; it appears under its name only when it is whole."""
    fresh = disk.with_suffix(".new")
    with suppress(FileNotFoundError):
        shutil.rmtree(fresh)
    for name in ("upper", "work", "root", *DISKS):
        (fresh / name).mkdir(parents=True)
    for name, text in guest.render_files(spec).items():
        path = fresh / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (fresh / "upper/var/lib/cloud/seed/nocloud/user-data").chmod(0o600)
    for name, target in guest.render_links().items():
        path = fresh / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    fresh.rename(disk)


def launch(spec: MachineSpec, image: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start systemd-nspawn in a session and a mount namespace of its own, inside the machine's control group."""
    disk = folder / "disk"
    nspawn = [
        *("--quiet", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
        *("--capability=all", "--system-call-filter=@mount @keyring bpf", "--console=read-only"),
        f"--network-namespace-path={network.NAMESPACES / network.namespace_of(spec.id)}",
        *(f"--bind={disk / path}:/{path}" for path in DISKS),
        *("-M", f"{network.PREFIX}{spec.id}", f"--hostname={spec.name}", "-D", str(disk / "root"), "-b"),
    ]
    joins = [str(path) for path in cgroups.create(spec.id)]
    with (folder / "console.log").open("ab") as console:
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "slave"),
                *("sh", "-c", _LAUNCH, "launch", str(image), str(disk), *joins, "--", *nspawn),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env=_ENVIRONMENT,
            start_new_session=True,
            cwd="/",
        )
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie
    return process


def wait_running(spec: MachineSpec, process: subprocess.Popen[bytes], console: Path) -> None:
    """Wait until PID 1 runs and has outlived its first moments; raise with the console's last words if it does not."""
    deadline = time.monotonic() + BOOT_DEADLINE_S
    settled = None
    while settled is None or time.monotonic() < settled:
        if process.returncode is not None:
            raise MachineFailed(f"machine {spec.name}: stopped while it booted: {last_words(console)}")
        if settled is None and cgroups.init_pid(spec.id):
            settled = time.monotonic() + SETTLE_S
        if settled is None and time.monotonic() > deadline:
            raise MachineFailed(f"machine {spec.name}: no PID 1 after {BOOT_DEADLINE_S:.0f} s: {last_words(console)}")
        time.sleep(0.02)


def last_words(console: Path, lines: int = 3) -> str:
    """Return the last lines of a console log as one line."""
    text = _ESCAPES.sub("", console.read_text(errors="replace")[-4096:])
    words = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(words[-lines:]) or "(nothing on its console)"


def ask_to_power_off(pid: int) -> None:
    """Send a machine's systemd the signal for a clean power off (SIGRTMIN+4)."""
    with suppress(OSError):
        emulated = Path(f"/proc/{pid}/exe").readlink().name.startswith("qemu-")
        # User-mode emulation keeps two real-time signals for itself and hands the others down by two.
        os.kill(pid, signal.SIGRTMIN + (6 if emulated else 4))


def power_off(machine_id: int) -> None:
    """Cut a machine's power and take down its namespace; nothing happens when it is off."""
    cgroups.kill(machine_id)
    cgroups.remove(machine_id)
    network.detach(machine_id)
    with suppress(OSError):
        Path(f"/run/systemd/nspawn/propagate/{network.PREFIX}{machine_id}").rmdir()
