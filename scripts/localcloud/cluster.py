"""The local Kubernetes: one node, a machine like the servers, at an address of its own.

It lies in `cluster/` of the state folder: its disk, its console, and the kubeconfig that the user takes. Whether it runs
is asked of the kernel, by its control group, so a command that was killed at any moment is finished by the next.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from scripts.localcloud import authority, cgroups, kubernetes, network, nspawn
from scripts.localcloud.hypervisor import MachineFailed, MachineSpec
from scripts.localcloud.preflight import HostUnfit

if TYPE_CHECKING:
    from collections.abc import Callable

MACHINE = 8
"""The node's number among the machines; those of servers are far above."""
READY_DEADLINE_S = 90.0

RUNTIME = ("usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/ctr", "usr/sbin/runc")
"""What the node takes from Debian's packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where `scripts/setup` has put what a node is made of."""

    cache: Path

    @property
    def image(self) -> Path:
        """The machine image for this host's own architecture."""
        return self.cache / "machines" / nspawn.host_image()

    @property
    def shared(self) -> dict[str, Path]:
        """Path inside the node → file or folder of this host."""
        packages = self.cache / "packages"
        return {
            kubernetes.TOOLS: self.cache / "go/kubernetes",
            kubernetes.IMAGES: self.cache / "cluster",
            kubernetes.PLUGINS: packages / "usr/lib/cni",
            **{f"{kubernetes.RUNTIME}/{Path(path).name}": packages / path for path in RUNTIME},
        }

    def check(self) -> None:
        """Refuse when a part is missing."""
        nspawn.check_image(self.image)
        missing = [str(path) for path in self.shared.values() if not path.exists()]
        if missing:
            raise HostUnfit(f"no Kubernetes on this host, missing: {missing[0]} (run scripts/setup)")


def kubeconfig(state: Path) -> Path:
    """Name the file that kubectl and every other client reach the cluster with."""
    return state / "cluster/kubeconfig"


def running() -> bool:
    """Tell whether the node runs; its services may still be starting."""
    return cgroups.init_pid(MACHINE) is not None


def start(state: Path, parts: Parts) -> bool:
    """Boot the node, on a fresh disk if there is none; False when it runs already."""
    if running():
        return False
    parts.check()
    nspawn.power_off(MACHINE)  # what a killed command has left
    folder = state / "cluster"
    folder.mkdir(exist_ok=True)
    keys = _keys(folder / "keys.json")
    _write_private(
        kubeconfig(state), json.dumps(kubernetes.render_kubeconfig("admin", kubernetes.ADDRESS, keys), indent=2)
    )
    spec = _spec(parts.image)
    if not (folder / "disk").exists():
        nspawn.make_disk(folder / "disk", spec, kubernetes.DISKS)
    # At every start: a disk that an earlier version made gets what this one says.
    nspawn.furnish(folder / "disk", kubernetes.render_files(keys), kubernetes.render_links())
    network.attach(spec)
    process = nspawn.launch(spec, parts.image, folder, disks=kubernetes.DISKS, shared=parts.shared)
    try:
        nspawn.wait_running(spec, process, folder / "console.log")
    except MachineFailed:
        nspawn.power_off(MACHINE)
        raise
    return True


def wait_ready(state: Path) -> None:
    """Wait until a pod could start: API server, node with its images, names; raises MachineFailed with what is missing."""
    api = ApiServer(json.loads(kubeconfig(state).read_text()))
    deadline = time.monotonic() + READY_DEADLINE_S
    _wait("the API server is not ready", deadline, lambda: api.call("GET", "/readyz") == "ok")
    for path, thing in kubernetes.objects().items():  # a namespace may come a moment after the API server is ready
        apply = partial(api.call, "PATCH", f"{path}?fieldManager=localcloud&force=true", thing)
        _wait(f"{path} cannot be applied", deadline, apply)
    _wait(f"{kubernetes.NODE} is not ready", deadline, lambda: _is_ready(json.loads(api.call("GET", _NODE))))
    _wait("namespace default has no service account", deadline, partial(api.call, "GET", _ACCOUNT))
    _wait("CoreDNS is not ready", deadline, _names_are_known)


_NODE = f"/api/v1/nodes/{kubernetes.NODE}"
_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


class ApiServer:
    """The few calls that starting a cluster takes; raises OSError for what is no 2xx answer."""

    def __init__(self, config: dict[str, Any]) -> None:
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._address = cluster["server"].removeprefix("https://")
        self._tls = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
        with TemporaryDirectory(prefix="slipway-") as name:  # a context takes certificates from files alone
            pair = Path(name) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_text(_decode(user["client-certificate-data"]) + _decode(user["client-key-data"]))
            self._tls.load_cert_chain(pair)

    def call(self, method: str, path: str, body: object = None) -> str:
        """Make one call and return the answer's text; a body is applied on the server's side."""
        connection = http.client.HTTPSConnection(self._address, timeout=5, context=self._tls)
        with closing(connection):
            headers = {"Content-Type": "application/apply-patch+yaml"} if body else {}
            connection.request(method, path, body=json.dumps(body) if body else None, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status // 100 != 2:
                raise OSError(f"{method} {path}: {answer.status} {text[:200].strip()}")
        return text


def _keys(path: Path) -> dict[str, str]:
    """Read the cluster's keys; made once, as every object and volume of its disk hangs on them."""
    if not path.exists():
        _write_private(path, json.dumps(authority.make_keys(kubernetes.IDENTITIES)))
    keys: dict[str, str] = json.loads(path.read_text())
    return keys


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def _spec(image: Path) -> MachineSpec:
    return MachineSpec(
        id=MACHINE,
        name=kubernetes.NODE,
        architecture="x86" if image.name == "amd64" else "arm",
        cores=0,
        memory_gb=0,
        disk_gb=0,
        image=image.name,
        user_data="",
        ssh_keys=(),
        ipv4=kubernetes.ADDRESS,
        ipv6_network=None,
        metadata={},
    )


def _wait(problem: str, deadline: float, holds: Callable[[], object]) -> None:
    reason = "no answer"
    while True:
        try:
            if holds():
                return
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise MachineFailed(f"cluster: {problem} after {READY_DEADLINE_S:.0f} s ({reason})")
        if not running():
            raise MachineFailed(f"cluster: {kubernetes.NODE} has stopped while it started")
        time.sleep(0.05)


def _is_ready(node: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", []))


def _names_are_known() -> bool:
    connection = http.client.HTTPConnection(kubernetes.ADDRESS, kubernetes.READY_PORT, timeout=2)
    with closing(connection):
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()
