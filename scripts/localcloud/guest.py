"""What a machine's disk gets before its first boot, on top of the base image; pure.

The seed is what a cloud image finds at Hetzner: the user's data untouched, the keys for root. The rest makes a Debian fit for
life in a container: units that would touch the host's kernel are masked, and control groups become writable for runc.
Where the machine's programs are emulated, cloud-init is not: the interpreter that reads it is the host's.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.localcloud.hypervisor import MachineSpec

_UNITS = "etc/systemd/system"

MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "kmod-static-nodes.service",
    "man-db.timer",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
)
"""Units that would act on the host's kernel, clock or devices, wait for what is not here, or cost a boot its time."""

_CONTAINERS_UNIT = """\
[Unit]
Description=Let this machine run containers
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for group in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$group" || true; done; [ -e /dev/kmsg ] || ln -s null /dev/kmsg'
"""

_WITHOUT_CREDENTIALS = ("sysctl", "sysusers", "tmpfiles-clean", "tmpfiles-setup", "tmpfiles-setup-dev")
"""Services of systemd that fail under user-mode emulation, which cannot set up the credentials that nobody passes."""

_CLOUD_CONFIG = {
    "datasource_list": ["NoCloud", "None"],
    "network": {"config": "disabled"},  # addresses are set from outside, as the machine's namespace is made
    "users": [],
    "disable_root": False,
    "locale": "C.UTF-8",
    "growpart": {"mode": "off"},
    "grub_dpkg": {"enabled": False},  # no boot loader
    "resize_rootfs": False,
    "apt_preserve_sources_list": True,
}


_GO_UNDER_EMULATION = ("GODEBUG=asyncpreemptoff=1,cpu.aes=off", "GOMAXPROCS=1")
"""Go programs of many threads hang now and then under user-mode emulation (golang/go#70329): buildkitd did in 2 of 20 starts.
AES instructions are emulated one by one: without them Go's TLS agrees on ChaCha20, at two and a half times the speed.
"""

CLOUD_INIT = "usr/bin/cloud-init"
NATIVE = "/usr/lib/localcloud/native"
"""Where an emulated machine has `/usr` of the host's architecture, with the same packages as its own."""

_CLOUD_INIT_UNDER_EMULATION = f"""\
#!/bin/sh
# Python that is emulated takes 5 seconds for each of cloud-init's four stages, two thirds of the whole boot.
# The host's is told what the machine is, for user data that asks.
native={NATIVE}
loader=$(echo "$native"/lib/*-linux-gnu/ld-linux-*.so.*)
exec "$loader" --library-path "${{loader%/*}}" "$native/bin/python3" -P -c '
import os, runpy, sys
machine, sys.argv = sys.argv[1], sys.argv[2:]
uname = os.uname_result((*os.uname()[:4], machine))
os.uname = lambda: uname
runpy.run_path(sys.argv[0], run_name="__main__")
' "$(uname -m)" "$native/bin/cloud-init" "$@"
"""


def hostname(name: str) -> str:
    """Give the name that a server's kernel is told: Linux takes 64 characters, the API as many as names in DNS have."""
    return name if len(name) <= 64 else name.partition(".")[0]


def render_files(spec: MachineSpec, *, emulated: bool) -> Mapping[str, str]:
    """Render the files of a fresh disk: path below the root → text."""
    emulation = {
        CLOUD_INIT: _CLOUD_INIT_UNDER_EMULATION,
        "etc/systemd/system.conf.d/localcloud.conf": f"[Manager]\nDefaultEnvironment={' '.join(_GO_UNDER_EMULATION)}\n",
        "etc/environment": "".join(f"{variable}\n" for variable in _GO_UNDER_EMULATION),
    }
    seed = "var/lib/cloud/seed/nocloud"
    meta_data = {"instance-id": str(spec.id), "local-hostname": spec.name, "public-keys": list(spec.ssh_keys)}
    return {
        f"{seed}/user-data": spec.user_data,
        f"{seed}/meta-data": json.dumps(meta_data),
        "etc/cloud/cloud.cfg.d/90-localcloud.cfg": json.dumps(_CLOUD_CONFIG),
        "etc/hostname": f"{hostname(spec.name)}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {spec.name}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/machine-id": hashlib.sha256(f"localcloud {spec.id}".encode()).hexdigest()[:32] + "\n",
        "etc/resolv.conf": "# There is no name server in the local cloud.\n",
        f"{_UNITS}/localcloud-containers.service": _CONTAINERS_UNIT,
        # The distribution's own values are for the whole kernel, which is the host's.
        "etc/sysctl.d/50-default.conf": "",
        "etc/sysctl.d/50-pid-max.conf": "",
        **{
            f"{_UNITS}/systemd-{name}.service.d/localcloud.conf": "[Service]\nLoadCredential=\n"
            for name in _WITHOUT_CREDENTIALS
        },
        **(emulation if emulated else {}),
    }


def render_links() -> Mapping[str, str]:
    """Render the symbolic links of a fresh disk: path below the root → target."""
    return {
        f"{_UNITS}/sysinit.target.wants/localcloud-containers.service": "../localcloud-containers.service",
        **{f"{_UNITS}/{unit}": "/dev/null" for unit in MASKED},
    }
