"""One machine with systemd-nspawn: its disk, its start, its first moments and its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.localcloud import cgroups, guest, network
from scripts.localcloud.commands import CommandFailed, run
from scripts.localcloud.hypervisor import MachineFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.localcloud.hypervisor import MachineSpec

DISKS = ("var/lib/buildkit", "var/lib/containerd")
"""Folders that are bind mounts of the host's file system: no overlay can lie on the overlay that a machine's root is."""
BOOT_DEADLINE_S = 20.0
SETTLE_S = 0.5
"""A machine that breaks at once does so within this time after PID 1 has started."""

IMAGES = {"x86": "amd64", "arm": "arm64"}
"""The name of each architecture's image, which is Debian's name of it, by the API's."""

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


def check_image(image: Path) -> None:
    """Fail unless the base image is there and this host can run its programs."""
    if not (image / "usr/bin/true").exists():
        raise MachineFailed(f"machine image {image} is missing: run scripts/setup")
    try:
        run("chroot", str(image), "/usr/bin/true")
    except CommandFailed:
        raise MachineFailed(f"this host cannot run {image.name} programs: run scripts/setup") from None


def is_emulated(spec: MachineSpec) -> bool:
    """Tell whether the machine's programs are of another architecture than the host's."""
    return IMAGES[spec.architecture] != host_image()


def host_image() -> str:
    """Return the name of the image of the host's own architecture."""
    kernel = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(kernel, kernel)


def make_disk(disk: Path, spec: MachineSpec, disks: tuple[str, ...] = ()) -> None:
    """Make a fresh disk, with `disks` beside `DISKS`; it appears under its name only when it is whole."""
    fresh = disk.with_suffix(".new")
    with suppress(FileNotFoundError):
        shutil.rmtree(fresh)
    for name in ("upper", "work", "root", *DISKS, *disks):
        (fresh / name).mkdir(parents=True)
    furnish(fresh, guest.render_files(spec, emulated=is_emulated(spec)), guest.render_links())
    (fresh / "upper/var/lib/cloud/seed/nocloud/user-data").chmod(0o600)
    if is_emulated(spec):
        (fresh / "upper" / guest.CLOUD_INIT).chmod(0o755)
    fresh.rename(disk)


def furnish(disk: Path, files: Mapping[str, str], links: Mapping[str, str]) -> None:
    """Put files and symbolic links on the disk of a machine that is off, in place of what is there by their names."""
    for name, text in files.items():
        path = disk / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, target in links.items():
        path = disk / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def launch(
    spec: MachineSpec,
    image: Path,
    folder: Path,
    *,
    disks: tuple[str, ...] = (),
    shared: Mapping[str, Path] | None = None,
) -> subprocess.Popen[bytes]:
    """Start systemd-nspawn in a session and a mount namespace of its own, inside the machine's control group.

    `disks` are those that `make_disk` was told; `shared` are files and folders of this host, by their path inside, read-only.
    """
    disk = folder / "disk"
    inside = dict(shared or {})
    if is_emulated(spec):
        inside[guest.NATIVE] = image.with_name(host_image()) / "usr"
    nspawn = [
        *("--quiet", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
        *("--capability=all", "--system-call-filter=@mount @keyring bpf", "--console=read-only"),
        f"--network-namespace-path={network.NAMESPACES / network.namespace_of(spec.id)}",
        *(f"--bind={disk / path}:/{path}" for path in (*DISKS, *disks)),
        *(f"--bind-ro={path}:{place}" for place, path in inside.items()),
        *(
            "-M",
            f"{network.PREFIX}{spec.id}",
            f"--hostname={guest.hostname(spec.name)}",
            "-D",
            str(disk / "root"),
            "-b",
        ),
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
