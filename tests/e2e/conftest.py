"""The main job's stage: a local cloud with real machines, a registry on a host of its own, and stacks on both."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
import yaml
from hcloud import Client
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

from builders import buildkit, certificates, ssh
from builders.platforms import parse_platform
from infra import cloudinit
from scripts.toolchain.gomodules import NO_DEBUG

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway"
REGISTRY = "198.51.100.2:5000"
PYTHON = str(Path(sys.executable))
AMD64 = [{"name": "amd64", "platform": "linux/amd64", "types": ["cx23"], "locations": ["fsn1"], "count": 1}]
PATH = f"{ROOT}/.venv/bin:{CACHE}/bin:{os.environ['PATH']}:{CACHE}/plugins"


def _missing():
    if sys.platform != "linux" or os.geteuid() != 0:
        return "Linux and root, for the machines' namespaces"
    tools = [
        tool for tool in ("pulumi", "buildx", "systemd-nspawn", "docker-registry") if not shutil.which(tool, path=PATH)
    ]
    if tools:
        return f"{', '.join(tools)} (run scripts/setup)"
    images = [name for name in ("amd64", "arm64") if not (CACHE / "machines" / name).is_dir()]
    return f"the machine images {', '.join(images)} (run scripts/setup)" if images else None


@pytest.fixture(scope="session", autouse=True)
def _able():
    if reason := _missing():
        pytest.skip(f"this host lacks {reason}")


@dataclass(frozen=True)
class Cloud:
    """The local cloud as a user has it."""

    state: Path
    endpoint: str = "http://127.0.0.1:8765/v1"
    control: str = "http://127.0.0.1:8766"
    token: str = "localcloud" + "0" * 54

    def writes(self, since):
        return httpx.get(f"{self.control}/history", params={"method": "!GET", "since": since}).json()

    def count(self):
        return httpx.get(f"{self.control}/history").json()["last"]

    @property
    def _headers(self):
        return {"Authorization": f"Bearer {self.token}"}

    def listing(self, kind, stack):
        """What a stack has; the session's other tests have their own."""
        ours = {"label_selector": f"slipway-stack={stack}"}
        return httpx.get(f"{self.endpoint}/{kind}", params=ours, headers=self._headers).json()[kind]

    def remove_server(self, number):
        """Delete a server by hand, and wait until it is gone."""
        server = f"{self.endpoint}/servers/{number}"
        httpx.delete(server, headers=self._headers).raise_for_status()
        while httpx.get(server, headers=self._headers).status_code != 404:
            time.sleep(0.1)

    def act(self, number, action):
        """Order an action on a server: "reset" is its power cord."""
        httpx.post(f"{self.endpoint}/servers/{number}/actions/{action}", headers=self._headers).raise_for_status()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory):
    """A local cloud of the session's own."""
    state = tmp_path_factory.mktemp("localcloud")
    command = [PYTHON, "-m", "scripts.localcloud"]
    subprocess.run([*command, "up", "--state", state], cwd=ROOT, check=True)
    yield Cloud(state=state)
    subprocess.run([*command, "down", "--state", state], cwd=ROOT, check=True)


@dataclass(kw_only=True)
class RegistryHost:
    """A registry:2 with TLS and a password on its own test host."""

    address: str
    home: Path
    ca: str
    trust: Path  # a folder with the CA's certificate
    login: str  # as Docker's config.json holds it
    process: Any = None

    def start(self, **environment):
        with (self.home / "log").open("a") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", "slipway-registry", "docker-registry", "serve", self.home / "config.yml"],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    def restart(self, **environment):
        """End it and start it with another environment; what it stores stays."""
        self.stop()
        self.start(**environment)


@pytest.fixture(scope="session")
def registry(cloud, tmp_path_factory):
    """Debian's docker-registry, which is registry:2, in a namespace of its own."""
    home = tmp_path_factory.mktemp("registry")
    (home / "trust").mkdir()
    subprocess.run(
        [
            PYTHON,
            "-m",
            "scripts.localcloud",
            "host",
            "registry",
            REGISTRY.split(":", maxsplit=1)[0],
            "--state",
            cloud.state,
        ],
        cwd=ROOT,
        check=True,
    )
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=test registry", "-addext", f"subjectAltName=IP:{REGISTRY.split(':', maxsplit=1)[0]}",
         "-keyout", home / "key.pem", "-out", home / "trust" / "ca.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    hashed = bcrypt.hashpw(b"secret-of-the-test", bcrypt.gensalt(rounds=4)).decode()
    (home / "htpasswd").write_text(f"test:{hashed}\n")
    (home / "config.yml").write_text(
        f"""version: 0.1
storage: {{filesystem: {{rootdirectory: {home}/data}}}}
http: {{addr: "{REGISTRY}", tls: {{certificate: {home}/trust/ca.pem, key: {home}/key.pem}}}}
auth: {{htpasswd: {{realm: test, path: {home}/htpasswd}}}}
"""
    )
    host = RegistryHost(
        address=REGISTRY,
        home=home,
        ca=(home / "trust" / "ca.pem").read_text(),
        trust=home / "trust",
        login=base64.b64encode(b"test:secret-of-the-test").decode(),
    )
    host.start()
    yield host
    host.stop()


@dataclass(frozen=True)
class Machine:
    """A person's machine: their own buildx, Docker and slipway configuration."""

    home: Path
    registry: RegistryHost
    project: Path | None = None
    stack: str = ""
    state: Path | None = None
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        plugins = self.home / "docker" / "cli-plugins"
        if not plugins.exists():
            plugins.mkdir(parents=True)
            (plugins / "docker-buildx").symlink_to(shutil.which("buildx", path=PATH))
            auths = {"auths": {self.registry.address: {"auth": self.registry.login}}}
            (self.home / "docker" / "config.json").write_text(json.dumps(auths))

    @property
    def environment(self):
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PULUMI", "HCLOUD", "BUILDX"))},
            "PATH": PATH,
            "DOCKER_CONFIG": str(self.home / "docker"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "lagging"),
            "XDG_CACHE_HOME": str(CACHE.parent),
            "SSL_CERT_DIR": f"/etc/ssl/certs:{self.registry.trust}",  # buildx joins the platforms' pushes itself
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            **({"PULUMI_BACKEND_URL": f"file://{self.state}", "PULUMI_STACK": self.stack} if self.state else {}),
            **self.extra,
        }

    def run(self, *command, check=True, **kwargs):
        """Run a command in the project; a failure shows what it said."""
        done = subprocess.run(
            [str(each) for each in command], cwd=self.project or self.home, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=900, **kwargs,
        )  # fmt: skip
        if check and done.returncode:
            pytest.fail(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
        return done

    def up(self, *arguments, **kwargs):
        return self.run("pulumi", "up", "--yes", "--skip-preview", "--non-interactive", *arguments, **kwargs)

    def destroy(self, *arguments, **kwargs):
        return self.run("pulumi", "destroy", "--yes", "--skip-preview", "--non-interactive", *arguments, **kwargs)

    def outputs(self):
        return json.loads(self.run("pulumi", "stack", "output", "--json", "--show-secrets").stdout)

    def build(self, context, tag, *arguments, builder=None, **kwargs):
        return self.run(
            "buildx", "build", "--builder", builder or f"slipway-{self.stack}", "--progress", "plain",
            "--platform", "linux/amd64,linux/arm64", "--push", "-t", f"{self.registry.address}/{tag}", *arguments,
            context, **kwargs,
        )  # fmt: skip

    def on_another(self, home):
        """The same stack from a second machine."""
        home.mkdir()
        return replace(self, home=home)


@pytest.fixture(scope="session")
def make_operator(cloud, registry, tmp_path_factory):
    """Make a machine with a stack of its own: `make_operator("dev", address="ephemeral")`."""

    def make(stack, *, home=None, **settings):
        home = home or tmp_path_factory.mktemp(stack)
        project = home / "project"
        project.mkdir()
        (project / "infra").symlink_to(ROOT / "infra")
        (project / ".venv").symlink_to(ROOT / ".venv")
        shutil.copy(ROOT / "Pulumi.yaml", project)
        local = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())["config"]
        buildkit = local["slipway:buildkit"]
        for name, tarball in buildkit["tarballs"].items():
            tarball["source"] = str(CACHE / "buildkit" / f"buildkit-v0.32.2.{name.replace('/', '-')}.tar.gz")
        config = {
            "hcloud:endpoint": cloud.endpoint,
            "hcloud:token": cloud.token,
            "slipway:buildkit": buildkit,
            "slipway:registries": [{"host": registry.address, "ca": registry.ca}],
            **{f"slipway:{key}": value for key, value in settings.items()},
        }
        (project / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump({"config": config}))
        state = home / "state"
        state.mkdir()
        operator = Machine(home=home, registry=registry, project=project, stack=stack, state=state)
        operator.run("pulumi", "stack", "init", stack)
        return operator

    return make


@dataclass(frozen=True)
class Node:
    """A server without Pulumi, as the functions under infra/ meet it: its keys and its addresses."""

    name: str
    platform: str
    server: Any
    private_key: str
    bootstrap_key: str
    addresses: tuple[str, ...]
    authority: Any

    @property
    def architecture(self):
        return self.platform.removeprefix("linux/")

    def connect(self, host_key=None, **options):
        """Connect with the key from user_data, unless another is on record."""
        keys = [host_key or self.bootstrap_key]
        return ssh.connect(self.name, self.addresses[0], host_keys=keys, private_key=self.private_key, **options)

    def wanted(self, **changes):
        """BuildKit as every test wants it, but for the changes."""
        tarball = CACHE / "buildkit" / f"buildkit-v0.32.2.linux-{self.architecture}.tar.gz"
        source, sha256 = buildkit.resolve(str(tarball), "")
        wanted = buildkit.BuildKit(
            node=self.name,
            platform=parse_platform(self.platform),
            version="v0.32.2",
            tarball=source,
            sha256=sha256,
            addresses=self.addresses,
        )
        return replace(wanted, **changes)


@pytest.fixture(scope="session")
def make_node(cloud):
    """Rent a machine through the API and nothing more: `make_node("amd64", user_data=…)`; it is deleted at the end."""
    client = Client(token=cloud.token, api_endpoint=cloud.endpoint, poll_interval=0.1, poll_max_retries=1_000)
    authority = certificates.create_authority("test", now=datetime.now(UTC))
    made = []

    def make(architecture="amd64", *, user_data=None):
        name = f"node-{architecture}-{len(made) + 1}"
        private_key, public_key = certificates.create_ssh_key(name)
        host_key, host_key_public = certificates.create_ssh_key("bootstrap")
        key = client.ssh_keys.create(name=name, public_key=public_key)
        made.append(key)
        ordered = client.servers.create(
            name=name,
            server_type=ServerType(name={"amd64": "cx23", "arm64": "cax11"}[architecture]),
            image=Image(name="debian-12"),
            location=Location(name="fsn1"),
            ssh_keys=[key],
            user_data=(user_data or cloudinit.render)(host_key=host_key, host_key_public=host_key_public),
        )
        made.append(ordered.server)
        ordered.action.wait_until_finished()
        public = client.servers.get_by_id(ordered.server.id).public_net
        return Node(
            name=name,
            platform=f"linux/{architecture}",
            server=ordered.server,
            private_key=private_key,
            bootstrap_key=host_key_public,
            addresses=(public.ipv4.ip, public.ipv6.ip.replace("::/64", "::1")),
            authority=authority,
        )

    yield make
    for each in reversed(made):
        each.delete()


@pytest.fixture(scope="session")
def make_probe(tmp_path_factory):
    """Compile the probe of RUN steps for an architecture (tests/e2e/probe)."""

    def make(architecture):
        binary = tmp_path_factory.mktemp("probe") / architecture
        environment = {**os.environ, "CGO_ENABLED": "0", "GOARCH": architecture}
        # As scripts/setup compiles, so that Go's own packages are there.
        command = ["go", "build", "-trimpath", NO_DEBUG, "-ldflags=-s -w", "-o", binary, "."]
        subprocess.run(command, check=True, cwd=ROOT / "tests/e2e/probe", env=environment)
        return binary.read_bytes()

    return make
