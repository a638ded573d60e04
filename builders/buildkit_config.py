"""What is wanted on a node, and the files that say so there (pure)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from builders import guard
from builders.inventory import BUILDKIT_PORT
from builders.platforms import Platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARY = "/usr/local/lib/slipway"
CURRENT = f"{LIBRARY}/buildkit"  # a link to the folder of the version in use
CONFIG = "/etc/buildkit"
SOCKET = "/run/buildkit/buildkitd.sock"
BUILDCTL = f"{CURRENT}/bin/buildctl --addr unix://{SOCKET}"
GUARD_UNIT = "slipway-guard.service"
BUILDKIT_UNIT = "buildkit.service"
GUARD_FILES = frozenset(
    {"/etc/slipway/guard.nft", "/etc/sysctl.d/90-slipway.conf", f"/etc/systemd/system/{GUARD_UNIT}"}
)
STOP_TIMEOUT_MIN = 15  # how long a restart, and who takes the server away, waits for running builds


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A registry that needs more than the defaults."""

    host: str
    ca: str | None = None
    mirrors: tuple[str, ...] = ()
    http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildKit:
    """BuildKit as wanted on one node."""

    node: str
    platform: Platform
    version: str
    tarball: str  # a URL, or a path on the machine that installs
    sha256: str
    addresses: tuple[str, ...]  # the node's own; the first is the one it is contacted at
    neighbours: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    registries: tuple[Registry, ...] = ()
    snapshotter: str = "auto"
    cache_keep_days: int = 60
    cache_percent: int = 75
    max_parallelism: int | None = None
    certificate_days: int = 365

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; whole numbers may have become floats on the way."""
        values = {field.name: record[field.name] for field in fields(cls) if field.name in record}
        values["platform"] = parse_platform(values["platform"])
        for name in ("addresses", "neighbours", "allow"):
            values[name] = tuple(values.get(name) or ())
        values["registries"] = tuple(_registry(each) for each in values.get("registries") or ())
        for name in ("cache_keep_days", "cache_percent", "max_parallelism", "certificate_days"):
            if values.get(name) is not None:
                values[name] = int(values[name])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return plain values only."""
        return {**asdict(self), "platform": str(self.platform)}

    @property
    def folder(self) -> str:
        """Tell where this version lies on the node; the digest tells two tarballs of one version apart."""
        return f"{LIBRARY}/buildkit-{self.version}-{self.sha256[:12]}"


def _registry(record: Mapping[str, Any]) -> Registry:
    return Registry(
        host=record["host"],
        ca=record.get("ca"),
        mirrors=tuple(record.get("mirrors") or ()),
        http=bool(record.get("http")),
    )


def render(wanted: BuildKit, *, vcpus: int, authority_certificate: str) -> dict[str, str]:
    """Render every file that is ours on the node, by path; the node's own key and certificate are not among them."""
    ca_paths = {
        registry.host: f"{CONFIG}/registries/{position}.pem"
        for position, registry in enumerate(wanted.registries)
        if registry.ca
    }
    return {
        "/etc/slipway/guard.nft": guard.render(neighbours=wanted.neighbours, allow=wanted.allow),
        "/etc/sysctl.d/90-slipway.conf": "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n",
        "/etc/systemd/system/slipway-guard.service": _GUARD_UNIT,
        "/etc/systemd/system/buildkit.service": _BUILDKIT_UNIT,
        f"{CONFIG}/cni.conflist": render_cni(),
        f"{CONFIG}/tls/ca.pem": authority_certificate,
        f"{CONFIG}/buildkitd.toml": render_toml(wanted, vcpus=vcpus, ca_paths=ca_paths),
        **{ca_paths[registry.host]: registry.ca for registry in wanted.registries if registry.ca},
    }


def render_toml(wanted: BuildKit, *, vcpus: int, ca_paths: Mapping[str, str]) -> str:
    """Render buildkitd.toml; JSON strings and lists are TOML ones."""
    text = json.dumps
    parallelism = wanted.max_parallelism or max(2, vcpus)
    return f"""\
root = "/var/lib/buildkit"

[grpc]
address = ["unix://{SOCKET}", "tcp://:{BUILDKIT_PORT}"]

# Without ca any client would be let in.
[grpc.tls]
cert = "{CONFIG}/tls/cert.pem"
key = "{CONFIG}/tls/key.pem"
ca = "{CONFIG}/tls/ca.pem"

[worker.containerd]
enabled = false

[worker.oci]
enabled = true
platforms = [{text(str(wanted.platform))}]
snapshotter = {text(wanted.snapshotter)}
binary = "{CURRENT}/bin/buildkit-runc"
max-parallelism = {parallelism}
networkMode = "cni"
cniConfigPath = "{CONFIG}/cni.conflist"
cniBinaryPath = "{CURRENT}/bin"
gc = true
{_render_gc(wanted)}{_render_registries(wanted.registries, ca_paths)}"""


def _render_gc(wanted: BuildKit) -> str:
    """Layers go first, by last use; cache mounts go after weeks unused, or when nothing else is left to make room."""
    limits = f'reservedSpace = "10%"\nmaxUsedSpace = "{wanted.cache_percent}%"\nminFreeSpace = "10%"\n'
    policies = (
        'filters = ["type==source.local", "type==source.git.checkout"]\nkeepDuration = "48h"\nmaxUsedSpace = "512MB"\n',
        f'filters = ["type==exec.cachemount"]\nkeepDuration = "{wanted.cache_keep_days * 24}h"\n',
        f'filters = ["type!=exec.cachemount"]\n{limits}',
        f"all = true\n{limits}",
    )
    return "".join(f"\n[[worker.oci.gcpolicy]]\n{policy}" for policy in policies)


def _render_registries(registries: tuple[Registry, ...], ca_paths: Mapping[str, str]) -> str:
    sections = []
    for registry in registries:
        lines = [f"\n[registry.{json.dumps(registry.host)}]"]
        if registry.http:
            lines.append("http = true")
        if registry.host in ca_paths:
            lines.append(f"ca = {json.dumps([ca_paths[registry.host]])}")
        if registry.mirrors:
            lines.append(f"mirrors = {json.dumps(registry.mirrors)}")
        sections.append("\n".join(lines) + "\n")
    return "".join(sections)


def render_cni() -> str:
    """Render the bridge of RUN steps; its ports are isolated, so that two builds do not see each other."""
    bridge = {
        "type": "buildkit-cni-bridge",
        "bridge": guard.BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": False,  # the guard's table does that, for both families
        "hairpinMode": False,
        "portIsolation": True,
        "ipam": {
            "type": "buildkit-cni-host-local",
            "dataDir": "/run/buildkit/cni",
            "ranges": [[{"subnet": guard.SUBNET_V4}], [{"subnet": guard.SUBNET_V6}]],
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "slipway", "plugins": [bridge]}, indent=2) + "\n"


_GUARD_UNIT = """\
[Unit]
Description=What RUN steps of builds may reach
After=nftables.service
Before=buildkit.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/90-slipway.conf
ExecStart=/usr/sbin/nft -f /etc/slipway/guard.nft
ExecReload=/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/90-slipway.conf
ExecReload=/usr/sbin/nft -f /etc/slipway/guard.nft

[Install]
WantedBy=multi-user.target
"""

# A stop lets running builds finish: SIGTERM reaches buildkitd alone. What runs in a build may be out of memory without
# taking the daemon along. buildkitd lists platforms that the kernel can emulate beside those that are pinned, and finds
# them by running files in /tmp: there it may not. Seccomp and no_new_privs settings are absent, for runc passes them on to every RUN step.
_BUILDKIT_UNIT = f"""\
[Unit]
Description=BuildKit
Requires=slipway-guard.service
After=slipway-guard.service network-online.target
Wants=network-online.target

[Service]
Type=notify
ExecStart={CURRENT}/bin/buildkitd --config {CONFIG}/buildkitd.toml
StateDirectory=buildkit
StateDirectoryMode=0711
RuntimeDirectory=buildkit
KillMode=mixed
TimeoutStartSec=60
TimeoutStopSec={STOP_TIMEOUT_MIN}min
Restart=on-failure
RestartSec=2
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
OOMPolicy=continue
UMask=0022
PrivateTmp=yes
NoExecPaths=/tmp
ProtectHome=yes
ProtectSystem=full
CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_MODULE CAP_SYS_TIME

[Install]
WantedBy=multi-user.target
"""
