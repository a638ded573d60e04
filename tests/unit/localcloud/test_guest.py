"""What a machine's disk gets before its first boot."""

from __future__ import annotations

import json
from dataclasses import replace

from scripts.localcloud.guest import MASKED, render_files, render_links
from scripts.localcloud.hypervisor import MachineSpec

SPEC = MachineSpec(
    id=17,
    name="web-1",
    architecture="x86",
    cores=2,
    memory_gb=4,
    disk_gb=40,
    image="debian-12",
    user_data="#cloud-config\n# ümlaut\n",
    ssh_keys=("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"),
    ipv4="198.51.100.17",
    ipv6_network=None,
    metadata={},
)


def test_user_data_is_handed_on_untouched():
    """Not a byte of the user's data changes on its way to cloud-init."""
    assert render_files(SPEC, emulated=False)["var/lib/cloud/seed/nocloud/user-data"] == "#cloud-config\n# ümlaut\n"


def test_meta_data_carries_identity_and_keys():
    """cloud-init learns the instance, its name and the keys for root."""
    meta_data = json.loads(render_files(SPEC, emulated=False)["var/lib/cloud/seed/nocloud/meta-data"])

    assert meta_data == {
        "instance-id": "17",
        "local-hostname": "web-1",
        "public-keys": ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"],
    }


def test_a_name_that_linux_has_no_room_for_is_cut_at_its_first_dot():
    """Such a server boots, as at Hetzner, and cloud-init is told the whole name."""
    long = f"{'web' * 20}.example.com"

    files = render_files(replace(SPEC, name=long), emulated=False)

    assert files["etc/hostname"] == f"{'web' * 20}\n"
    assert json.loads(files["var/lib/cloud/seed/nocloud/meta-data"])["local-hostname"] == long
    assert render_files(replace(SPEC, name="web.example.com"), emulated=False)["etc/hostname"] == "web.example.com\n"


def test_machines_have_machine_ids_of_their_own():
    """Two machines of one image differ in their machine id, which has 32 hexadecimal digits."""
    first = render_files(SPEC, emulated=False)["etc/machine-id"]
    other = MachineSpec(**{name: getattr(SPEC, name) for name in SPEC.__slots__} | {"id": 18})

    assert len(first.strip()) == 32
    assert first != render_files(other, emulated=False)["etc/machine-id"]


def test_units_that_touch_the_host_are_masked():
    """Nothing in a machine registers binary formats, loads modules, triggers devices or sets the clock."""
    assert {
        "systemd-binfmt.service",
        "systemd-modules-load.service",
        "systemd-udevd.service",
        "systemd-timesyncd.service",
    } <= set(MASKED)
    assert render_links()["etc/systemd/system/systemd-binfmt.service"] == "/dev/null"


def test_what_emulation_makes_slow_or_hang_is_left_out_of_it():
    """A unit and a login both see how Go is to run, cloud-init is native, and on its own architecture a machine is left as it is."""
    plain, emulated = (render_files(SPEC, emulated=emulated) for emulated in (False, True))

    added = {name: emulated[name] for name in emulated.keys() - plain.keys()}
    assert '"$native/bin/cloud-init" "$@"' in added.pop("usr/bin/cloud-init")
    assert added == {
        "etc/systemd/system.conf.d/localcloud.conf": "[Manager]\nDefaultEnvironment=GODEBUG=asyncpreemptoff=1,cpu.aes=off GOMAXPROCS=1\n",
        "etc/environment": "GODEBUG=asyncpreemptoff=1,cpu.aes=off\nGOMAXPROCS=1\n",
    }
