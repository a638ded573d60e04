"""The main job: `pulumi up`, one build on two architectures, and `pulumi destroy` that leaves nothing."""

import json
import re
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(900)]

DOCKERFILE = """\
FROM scratch AS build
ARG TARGETARCH
ADD base-$TARGETARCH.tar /
COPY hello.c .
RUN cc -O2 -static -o /hello hello.c && echo "compiled on $(uname -m)" && /hello
FROM scratch
COPY --from=build /hello /hello
"""
HELLO = """\
#include <stdio.h>
int main(void) { puts("hello"); return 0; }
"""


@pytest.fixture(scope="module")
def shown():
    """What the first `up` let others see: its display, and the arguments of every process meanwhile."""
    return {}


@pytest.fixture(scope="module")
def operator(make_operator, shown):
    """The operator, whose stack is up from the first test to the last."""
    machine = make_operator("dev")
    with _watching_arguments() as arguments:
        shown["display"] = machine.up().stdout
    shown["arguments"] = b"\n".join(arguments).decode(errors="replace")
    yield machine
    machine.run("pulumi", "state", "unprotect", "--all", "--yes", check=False)
    machine.destroy(check=False)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A real program, compiled in a RUN step, on a base made from the machines' own Debian."""
    from tests.e2e.conftest import CACHE

    folder = tmp_path_factory.mktemp("hello")
    for architecture in ("amd64", "arm64"):
        (folder / f"base-{architecture}.tar").hardlink_to(CACHE / "base" / f"{architecture}.tar")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "hello.c").write_text(HELLO)
    return folder


@contextmanager
def _watching_arguments():
    """Collect what `ps` shows to everybody on this host, the builders' own processes included."""
    arguments, done = set(), threading.Event()

    def watch():
        while not done.wait(0.02):
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    arguments.add(each.read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield arguments
    finally:
        done.set()
        thread.join()


def _on(operator, node, command):
    """Run a command on a node as the operator, its host key checked."""
    from builders import ssh

    found = next(each for each in operator.outputs()["nodes"] if each["name"] == node)
    with ssh.connect(
        node, found["address"], host_keys=[found["host_key"]], private_key=operator.outputs()["sshKey"]
    ) as connection:
        return connection.run(command)


def test_a_builder_of_the_users_own_is_seen_before_anything_is_rented(make_operator, cloud):
    """The registration comes last; by then there would be servers that nobody can build on."""
    machine = make_operator("taken")
    machine.run("buildx", "create", "--name", "slipway-taken", "--driver", "remote", "tcp://127.0.0.1:9")
    before = cloud.count()

    failed = machine.up(check=False)

    assert failed.returncode != 0
    assert "builder slipway-taken: buildx knows another builder of this name" in failed.stdout
    assert "remove or rename it: docker buildx rm slipway-taken" in failed.stdout
    assert cloud.writes(before)["writes"] == 0


def test_every_node_is_ready_and_told_in_the_outputs(operator):
    """Name, platform, address, host key, certificate's end and BuildKit version of each node."""
    nodes = {node["name"]: node for node in operator.outputs()["nodes"]}

    assert {name: node["platform"] for name, node in nodes.items()} == {
        "amd64-1": "linux/amd64",
        "arm64-1": "linux/arm64",
    }
    assert {node["buildkit_version"] for node in nodes.values()} == {"v0.32.2"}
    assert all(node["host_key"].startswith("ssh-ed25519 ") for node in nodes.values())


@pytest.mark.usefixtures("operator")
def test_the_engine_warns_of_nothing_but_the_stand_in_for_the_vendors_plugin(shown):
    """The language host lies where the engine looks for its own."""
    warnings = {line.partition("warning: ")[2] for line in shown["display"].splitlines() if "warning: " in line}

    assert all(each.startswith("using pulumi-resource-hcloud from $PATH") for each in warnings), warnings


def test_one_build_is_pushed_for_both_architectures_each_compiled_on_its_own(operator, context, registry):
    """The index has both platforms, the compiler ran on aarch64 and on x86_64."""
    said = operator.build(context, "hello:1").stdout

    assert set(re.findall(r"compiled on (\w+)", said)) == {"aarch64", "x86_64"}
    index = json.loads(
        operator.run(
            "buildx", "imagetools", "inspect", "--builder", "slipway-dev", "--raw", f"{registry.address}/hello:1"
        ).stdout
    )
    platforms = {f"{each['platform']['os']}/{each['platform']['architecture']}" for each in index["manifests"]}
    assert platforms - {"unknown/unknown"} == {"linux/amd64", "linux/arm64"}


@pytest.mark.parametrize(("node", "own", "other"), [("amd64-1", "amd64", "arm64"), ("arm64-1", "arm64", "amd64")])
def test_each_nodes_history_holds_builds_of_its_own_platform_only(operator, node, own, other):
    """What BuildKit itself recorded, not what we believe to have sent."""
    history = _on(
        operator,
        node,
        "buildctl --addr unix:///run/buildkit/buildkitd.sock debug histories --format json || buildctl --addr unix:///run/buildkit/buildkitd.sock debug histories",
    )

    assert f"linux/{own}" in history
    assert f"linux/{other}" not in history


def test_a_second_up_changes_nothing_and_writes_nothing(operator, cloud):
    """0 API writes, and no file of a node's system is newer than the run."""
    before = cloud.count()
    stamps = {node: _on(operator, node, "touch /run/before && date +%s") for node in ("amd64-1", "arm64-1")}

    said = operator.up().stdout

    assert "unchanged" in said
    assert not re.search(r"\d+ (created|updated|replaced|deleted)", said)
    assert cloud.writes(before)["writes"] == 0
    assert set(stamps) == {"amd64-1", "arm64-1"}
    for node in stamps:
        assert _on(operator, node, "find /etc /usr /root /opt -newer /run/before -type f") == ""


def test_a_preview_tells_what_a_setting_would_change_and_nothing_else(operator, tmp_path):
    """BuildKit on each node; the registration has their endpoints alone, and those stay."""
    kept = (operator.project / f"Pulumi.{operator.stack}.yaml").read_text()
    settings = tmp_path / "settings.yaml"
    settings.write_text(kept.replace("config:\n", "config:\n  slipway:cacheKeepDays: 30\n", 1))

    said = operator.run("pulumi", "preview", "--non-interactive", "--refresh=false", "--config-file", settings).stdout

    changes = set(re.findall(r"^ [~+-]+ +\S+:(\S+ \S+)", said, re.MULTILINE))
    assert changes == {"BuildKit amd64-1-buildkit", "BuildKit arm64-1-buildkit"}


def test_no_private_key_is_in_state_user_data_or_journal_but_the_retired_one(operator):
    """Neither PEM nor OpenSSH key is readable in the state; user_data holds one key, the bootstrap key, which no SSH serves."""
    raw = "".join(path.read_text() for path in operator.state.rglob("*.json"))

    assert "PRIVATE KEY" not in raw
    for node in ("amd64-1", "arm64-1"):
        user_data = _on(operator, node, "curl -fsS http://169.254.169.254/hetzner/v1/userdata")
        assert re.findall(r"BEGIN ([A-Z ]+) KEY", user_data) == ["OPENSSH PRIVATE"]
        assert _on(operator, node, "journalctl --no-pager -o cat | grep -c 'PRIVATE KEY' || true").strip() == "0"


def test_no_private_key_was_in_the_arguments_of_a_process_or_in_the_display(operator, shown):
    """Nobody who lists processes, or reads a CI log, gets a line of any key of the stack."""
    exported = operator.run("pulumi", "stack", "export", "--show-secrets").stdout
    keys = re.findall(r"BEGIN [A-Z ]*PRIVATE KEY-----(.+?)-----END", exported)
    lines = {line for key in keys for line in re.split(r"[\\n]+", key) if len(line) > 16}

    assert len(lines) > 10
    assert "buildkitd" in shown["arguments"]
    for place in ("arguments", "display"):
        assert [line for line in lines if line in shown[place]] == []
        assert "PRIVATE KEY" not in shown[place]


@pytest.mark.parametrize("node", ["amd64-1", "arm64-1"])
def test_a_machine_serves_its_final_host_key_alone(operator, node):
    """The bootstrap key, which user_data told, is gone from the machine's SSH."""
    found = next(each for each in operator.outputs()["nodes"] if each["name"] == node)

    scanned = subprocess.run(
        ["ssh-keyscan", "-T", "10", found["address"]], capture_output=True, text=True, check=True
    ).stdout

    keys = {" ".join(line.split()[1:3]) for line in scanned.splitlines() if not line.startswith("#")}
    assert keys == {" ".join(found["host_key"].split()[:2])}


def test_a_second_operators_up_registers_there_and_changes_nothing_else(operator, tmp_path, cloud):
    """State holds no path; what is missing is only this machine's registration."""
    second = operator.on_another(tmp_path / "second")
    before = cloud.count()

    said = second.up().stdout

    assert re.search(r"~ 1 updated", said), said
    assert cloud.writes(before)["writes"] == 0
    assert "slipway-dev" in second.run("buildx", "ls").stdout
    assert "unchanged" in operator.up().stdout


def test_a_server_deleted_by_hand_is_replaced(operator, cloud, context):
    """The address stays, so the next build works with the same registration."""
    [server] = [each for each in cloud.listing("servers", "dev") if each["name"] == "slipway-dev-amd64-1"]
    addresses = {node["name"]: node["address"] for node in operator.outputs()["nodes"]}
    cloud.remove_server(server["id"])

    operator.up()

    assert {node["name"]: node["address"] for node in operator.outputs()["nodes"]} == addresses
    operator.build(context, "hello:2")


def test_destroy_without_the_protected_leaves_what_is_kept_and_up_builds_again(operator, cloud, context):
    """Between releases only the addresses are left; the authority is kept, so the certificates go on."""
    operator.destroy("--exclude-protected")

    assert cloud.listing("servers", "dev") == []
    assert len(cloud.listing("primary_ips", "dev")) == 4
    assert "slipway-dev" not in operator.run("buildx", "ls").stdout

    operator.up()
    operator.build(context, "hello:3")


def test_destroy_works_though_a_server_is_gone_and_twice(operator, cloud):
    """Nothing of ours is left in the cloud or in buildx."""
    [server, *_] = cloud.listing("servers", "dev")
    cloud.remove_server(server["id"])
    operator.run("pulumi", "state", "unprotect", "--all", "--yes")

    operator.destroy()
    operator.destroy()

    for kind in ("servers", "primary_ips", "firewalls", "ssh_keys"):
        assert cloud.listing(kind, "dev") == []
    assert "slipway-dev" not in operator.run("buildx", "ls").stdout
