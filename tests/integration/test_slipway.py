"""`slipway up` and `down` with the real engine and provider, on a local cloud without machines."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from builders.locks import Lock, is_dead
from scripts.localcloud.hypervisor import NoMachines
from scripts.localcloud.server import background
from scripts.localcloud.settings import Settings

pytestmark = [pytest.mark.tools, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slipway"
# What slipway relies on in the real program: labels with the stack's id, a record of refusals, outputs.
PROGRAM = """\
import os, sys, time
from datetime import UTC, datetime
import pulumi, pulumi_hcloud as hcloud
from builders import refusals
labels = {"managed-by": "slipway", "slipway-stack": "dev", "slipway-id": "a1b2c3"}
def on_error(args):
    if "resource_unavailable" in args.errors[0]:
        refusals.record(server_type, "fsn1", "resource_unavailable", now=datetime.now(UTC))
    return False
refused = {each.server_type for each in refusals.load(datetime.now(UTC))}
server_type = next(each for each in ("cx23", "cx33") if each not in refused)
if os.environ.get("WRONG"):
    raise pulumi.RunError("slipway:image: not set\\n  set it")
if os.environ.get("UNUSABLE_KEY"):
    from infra.resources.hostkey import BootstrapKeyRetirement
    BootstrapKeyRetirement("amd64-1", node="amd64-1", server_id="1", address="127.0.0.1", bootstrap_key="ssh-ed25519 AAAA",
        host_key="ssh-ed25519 BBBB", private_key="none", opts=None)
time.sleep(float(os.environ.get("SLEEP", "0")))
ip = hcloud.PrimaryIp("amd64-1-ipv4", name="slipway-dev-amd64-1-ipv4", type="ipv4", location="fsn1",
    assignee_type="server", auto_delete=False, labels=labels, opts=pulumi.ResourceOptions(protect=True))
server = hcloud.Server("amd64-1", name="slipway-dev-amd64-1", server_type=server_type, location="fsn1",
    image="debian-12", labels=labels, public_nets=[{"ipv4_enabled": True, "ipv4": ip.id.apply(int), "ipv6_enabled": False}],
    opts=pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook("refused", on_error)])))
pulumi.export("id", "a1b2c3")
pulumi.export("authorityKey", pulumi.Output.secret("the key of the authority"))
pulumi.export("builders", {})
pulumi.export("nodes", [{"name": "amd64-1", "platform": "linux/amd64", "address": ip.ip_address,
    "endpoint": ip.ip_address.apply(lambda address: f"tcp://{address}:1234"), "host_key": "", "certificate_expires": "",
    "buildkit_version": "v0.32.2", "server_type": server.server_type, "location": server.location}])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project with one stack, and the cloud that it is about."""

    folder: Path
    environment: dict[str, str]
    cloud: Any

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [sys.executable, "-m", "builders.cli", *arguments], cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**self.environment, **environment},
        )  # fmt: skip

    def slipway(self, *arguments, code=0, **environment):
        """Run the command; return its stdout and stderr."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        return out, err

    def listing(self, kind):
        answer = httpx.get(f"{self.cloud.endpoint}/{kind}", headers={"Authorization": f"Bearer {self.cloud.token}"})
        return answer.json()[kind]

    def names(self):
        return sorted(each["name"] for kind in ("servers", "primary_ips") for each in self.listing(kind))

    def locks(self):
        return list((self.folder.parent / "state").rglob("locks/**/*.json"))

    def until(self, call):
        """Wait until the cloud has seen a call."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            query = {"method": "POST", "path": call}
            if httpx.get(f"{self.cloud.control}/history", params=query).json()["count"]:
                return
            time.sleep(0.02)
        pytest.fail(f"nobody called {call}")


@pytest.fixture
def project(tmp_path, localcloud):
    """A stack that was never brought up."""
    path = f"{Path(sys.executable).parent}:{CACHE}/bin:{os.environ['PATH']}:{CACHE}/plugins"
    missing = [each for each in ("pulumi", "pulumi-resource-hcloud") if not shutil.which(each, path=path)]
    if missing:
        pytest.skip(f"this host lacks {', '.join(missing)} (run scripts/setup)")
    for folder in ("project", "state", "temporary"):
        (tmp_path / folder).mkdir()
    (tmp_path / "project" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "project" / "Pulumi.yaml").write_text(
        textwrap.dedent(f"""\
            name: slipway
            runtime: {{name: python, options: {{toolchain: uv, virtualenv: {Path(sys.executable).parents[1]}}}}}
            options: {{refresh: always}}
        """)
    )
    (tmp_path / "project" / "Pulumi.dev.yaml").write_text(
        json.dumps({"config": {"hcloud:endpoint": localcloud.endpoint, "hcloud:token": localcloud.token}})
    )
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PULUMI", "HCLOUD", "XDG"))},
        "PATH": path, "PYTHONPATH": str(ROOT), "PULUMI_SKIP_UPDATE_CHECK": "1", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        "PULUMI_HOME": f"{tmp_path}/pulumi", "PULUMI_BACKEND_URL": f"file://{tmp_path}/state",
        "PULUMI_CONFIG_PASSPHRASE": "test", "XDG_CACHE_HOME": f"{tmp_path}/cache", "XDG_CONFIG_HOME": f"{tmp_path}/config",
        "XDG_STATE_HOME": f"{tmp_path}/lagging",
        "TMPDIR": f"{tmp_path}/temporary",
    }  # fmt: skip
    made = Project(folder=tmp_path / "project", environment=environment, cloud=localcloud)
    subprocess.run(
        ["pulumi", "stack", "init", "dev"], cwd=made.folder, env=environment, check=True, capture_output=True
    )
    yield made
    _end_session_leftovers(tmp_path)


def _end_session_leftovers(folder):
    """End the plugins that outlive a killed engine: they are ours if they run in this test's folder."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"PULUMI_BACKEND_URL=file://{folder}/state".encode() in (each / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours:
            os.kill(int(each.name), signal.SIGKILL)


def kill(process):
    """End the whole process group at once, as no handler can prevent."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()


def test_up_down_and_both_again(project):
    """stdout is the result alone; `down` keeps what is protected and says its price; a second `down` has nothing to do."""
    out, err = project.slipway("up")
    assert [line.split() for line in out.splitlines()] == [
        ["NODE", "PLATFORM", "ENDPOINT", "SERVER", "BUILDKIT"],
        ["amd64-1", "linux/amd64", "tcp://198.51.100.10:1234", "cx23", "in", "fsn1", "v0.32.2"],
    ]
    assert "Updating (dev)" in err

    out, err = project.slipway("down", "--yes")
    assert out == "nothing is left but what is kept: slipway-dev-amd64-1-ipv4 (0.50 a month in all)\n"
    assert "- server slipway-dev-amd64-1\n" in err
    assert "  primary IP slipway-dev-amd64-1-ipv4: kept (198.51.100.10), protected, 0.50 a month\n" in err
    assert project.names() == ["slipway-dev-amd64-1-ipv4"]

    out, err = project.slipway("down", "--yes", "--format", "json")
    assert json.loads(out) == {
        "removed": [],
        "kept": [{"kind": "primary_ip", "name": "slipway-dev-amd64-1-ipv4", "price_monthly_net": "0.5000"}],
        "registry": None,
        "nodes": {},
    }
    assert project.slipway("status")[1] == "slipway: no builders are up; bring them up with: slipway up\n"

    out, _ = project.slipway("up", "--format", "json")
    assert [node["address"] for node in json.loads(out)] == ["198.51.100.10"]


def test_down_asks_and_does_nothing_where_nobody_can_answer(project):
    """`--dry-run` shows the plan and ends there; as JSON it is the result."""
    project.slipway("up")

    out, err = project.slipway("down", code=2)
    assert (out, err.splitlines()[-2:]) == (
        "", ["error: nobody is at the terminal to confirm this", "hint: add --yes"],
    )  # fmt: skip
    assert project.slipway("down", "--dry-run")[0] == ""
    out, _ = project.slipway("down", "--dry-run", "--format", "json")
    assert json.loads(out)["removed"] == [{"kind": "server", "name": "slipway-dev-amd64-1"}]
    assert project.names() == ["slipway-dev-amd64-1", "slipway-dev-amd64-1-ipv4"]


@pytest.mark.skipif(not shutil.which("script"), reason="this host lacks script(1), which makes a terminal")
def test_who_answers_no_is_told_that_nothing_was_removed(project):
    """Nothing was begun, so nothing was interrupted."""
    project.slipway("up")
    terminal = subprocess.run(
        ["script", "-qefc", f"{sys.executable} -m builders.cli down", "/dev/null"], cwd=project.folder,
        env={**project.environment, "TERM": "xterm"}, input=b"n\n", capture_output=True, check=False, timeout=60,
    )  # fmt: skip

    assert (terminal.returncode, terminal.stdout.endswith(b"slipway: nothing was removed\r\n")) == (1, True)
    assert project.names() == ["slipway-dev-amd64-1", "slipway-dev-amd64-1-ipv4"]


def under_way(project, *arguments):
    """Start `slipway with` on a command that works until the file that is returned too is there."""
    told = project.folder / f"told-{len(list(project.folder.glob('told-*')))}"
    done = told.with_name(f"{told.name}.done")
    work = f"touch {told}; while [ ! -e {done} ]; do sleep 0.05; done"
    process = project.start(*arguments, "with", "--", "sh", "-c", work)
    deadline = time.monotonic() + 60
    while not told.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, done


def test_with_has_the_builders_up_for_one_command(project):
    """stdout and exit code are the command's; what was up before stays up, also where a killed `with` brought it up."""
    out, err = project.slipway("-s", "dev", "with", "--", "sh", "-c", "echo built; exit 7", code=7)
    assert (out, err.splitlines()[-1]) == ("built\n", "slipway: the builders are down")
    assert "slipway: the builders are up; running sh\n" in err
    assert project.names() == ["slipway-dev-amd64-1-ipv4"]

    killed, _ = under_way(project)
    kill(killed)
    _, err = project.slipway("with", "true")
    assert err.endswith("slipway: the builders stay up: they were before, or `slipway up` was run since\n")
    assert project.names() == ["slipway-dev-amd64-1", "slipway-dev-amd64-1-ipv4"]


def test_of_several_with_on_one_machine_the_last_takes_the_builders_down(project):
    """None of them loses the builders under its command, whoever brought them up, to a `slipway down` neither."""
    first, first_done = under_way(project)
    second, second_done = under_way(project, "-s", "dev")

    first_done.touch()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0
    assert err.endswith("slipway: another `slipway with` still uses the builders, and takes them down\n")
    _, err = project.slipway("down", "--yes", code=1)
    assert "error: a `slipway with` on this machine uses the builders\n" in err
    assert project.names() == ["slipway-dev-amd64-1", "slipway-dev-amd64-1-ipv4"]

    second_done.touch()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert project.names() == ["slipway-dev-amd64-1-ipv4"]


def test_an_up_during_a_with_keeps_the_builders_up(project):
    """Whoever types it wants them to be there afterwards."""
    process, done = under_way(project)
    project.slipway("up")

    done.touch()

    _, err = process.communicate(timeout=60)
    assert err.endswith("slipway: the builders stay up: they were before, or `slipway up` was run since\n")
    assert project.names() == ["slipway-dev-amd64-1", "slipway-dev-amd64-1-ipv4"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("heard")
def test_a_with_that_is_told_to_end_ends_its_command_and_takes_the_builders_down(project, number):
    """As a CI system does it, or a terminal that is closed; nobody need listen any more."""
    process, _ = under_way(project)
    process.stderr.close()

    os.kill(process.pid, number)

    assert process.wait(60) == 128 + number
    process.stdout.close()
    assert project.names() == ["slipway-dev-amd64-1-ipv4"]


@pytest.mark.parametrize("moment", ["before", "in up", "waiting for builds", "in down"])
def test_a_with_that_is_told_to_end_at_another_moment_says_what_may_be_left(project, moment):
    """Between two steps of the engine too."""
    slow = project.folder.parent / "slow" / "pulumi"
    slow.parent.mkdir()
    once = {"before": 1, "in up": 0, "waiting for builds": 3, "in down": 4}[moment]  # which export is slow
    slow.write_text(
        f"""#!/bin/sh
case "$*" in
*" stack export"*) echo x >>{slow}.count; [ $(wc -l <{slow}.count) != {once} ] || {{ touch {slow}.now; sleep 2; }} ;;
*" up "*) [ {once} != 0 ] || touch {slow}.now ;;
esac
exec {shutil.which("pulumi", path=project.environment["PATH"])} "$@"
"""
    )
    slow.chmod(0o755)
    process = project.start("with", "echo", "built", PATH=f"{slow.parent}:{project.environment['PATH']}")
    while not slow.with_name("pulumi.now").exists():
        assert process.poll() is None
        time.sleep(0.02)
    if moment == "in up":
        project.until("/servers")

    os.kill(process.pid, signal.SIGTERM)

    out, err = process.communicate(timeout=60)
    if moment == "waiting for builds":
        assert (process.returncode, out) == (0, "built\n")
        assert "slipway: not waiting for builds (interrupted)\n" in err
        assert project.listing("servers") == []
    elif moment == "in down":
        assert (process.returncode, out) == (1, "built\n")
        assert err.endswith("slipway: the builders may still be up, and cost: slipway down (interrupted)\n")
    else:
        assert (process.returncode, out, err.splitlines()[-1]) == (130, "", "slipway: interrupted")
        assert project.listing("servers") == []


def test_a_with_whose_up_fails_leaves_nothing_and_runs_nothing(project):
    """The first failure is the one that is told."""
    out, err = project.slipway("with", "echo", "built", code=1, UNUSABLE_KEY="1")

    assert (out, err.splitlines()[-1].startswith("error: ")) == ("", True), err
    assert project.listing("servers") == []


def test_a_with_that_meets_another_run_leaves_that_runs_builders_alone(project):
    """It has made nothing, so it takes nothing down."""
    other = project.start("up", SLEEP="4")
    while not project.locks():
        time.sleep(0.02)

    _, err = project.slipway("with", "true", code=1)

    assert "error: the stack is locked by " in err
    _, err = other.communicate(timeout=60)
    assert (other.returncode, project.names()) == (0, ["slipway-dev-amd64-1", "slipway-dev-amd64-1-ipv4"]), err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "with: no command"),
        (("-s", "dev", "--", "make"), "with: -s is no command"),
        (("--", "nonesuch"), "with: nonesuch is no command on PATH"),
    ],
)
def test_with_needs_a_command(project, arguments, error):
    """It is told before anything is rented."""
    _, err = project.slipway("with", *arguments, code=2)

    assert err.startswith(f"error: {error}\n")
    assert project.names() == []


def test_a_killed_up_is_finished_by_the_next(project):
    """The dead run's lock is cleared, its unfinished order dropped, the server that nobody recorded removed and made anew."""
    httpx.put(f"{project.cloud.control}/speed", json={"action_factor": 1})
    killed = project.start("up")
    project.until("/servers")
    kill(killed)
    httpx.put(f"{project.cloud.control}/speed", json={"action_factor": 0.005})
    orphan = project.listing("servers")[0]["id"]

    out, err = project.slipway("up")

    assert "amd64-1" in out
    assert f"slipway: clearing the lock of a dead run: {_user()}@{socket.gethostname()} (process " in err
    assert "slipway: dropping 1 unfinished operation(s) of a killed run\n" in err
    assert "slipway: removing server slipway-dev-amd64-1, which a killed run left\n" in err
    assert [each["id"] for each in project.listing("servers")] != [orphan]
    assert project.names() == ["slipway-dev-amd64-1", "slipway-dev-amd64-1-ipv4"]


def test_a_killed_up_is_removed_by_down(project):
    """Nothing billable stays behind that the state does not know."""
    httpx.put(f"{project.cloud.control}/speed", json={"action_factor": 1})
    killed = project.start("up")
    project.until("/servers")
    kill(killed)
    httpx.put(f"{project.cloud.control}/speed", json={"action_factor": 0.005})

    _, err = project.slipway("down", "--yes")

    assert "- server slipway-dev-amd64-1: left by a killed run\n" in err
    assert project.names() == ["slipway-dev-amd64-1-ipv4"]


def test_what_is_somebody_elses_is_left_alone(project):
    """The same name and stack, but another stack's id."""
    project.slipway("up")
    httpx.post(
        f"{project.cloud.endpoint}/primary_ips",
        headers={"Authorization": f"Bearer {project.cloud.token}"},
        json={
            "name": "theirs", "type": "ipv4", "location": "fsn1",
            "labels": {"managed-by": "slipway", "slipway-stack": "dev", "slipway-id": "ffffff"},
        },
    ).raise_for_status()  # fmt: skip

    project.slipway("down", "--yes")

    assert project.names() == ["slipway-dev-amd64-1-ipv4", "theirs"]


def test_a_running_update_is_named_and_not_disturbed(project):
    """Who holds the lock, from where, since when; the other run ends well."""
    project.slipway("up")
    other = project.start("up", SLEEP="4")
    while not project.locks():
        time.sleep(0.02)

    _, err = project.slipway("up", code=1)
    error, hint = err.splitlines()[-2:]

    assert error.startswith(f"error: the stack is locked by {_user()}@{socket.gethostname()} (process ")
    assert hint == "hint: wait for that run to end; if it is dead: pulumi cancel"
    _, err = other.communicate(timeout=60)
    assert other.returncode == 0, err


def test_an_update_that_pulumi_cloud_names_is_not_disturbed(project):
    """Its refusal names no holder; what the other run has ordered and not recorded yet stays."""
    project.slipway("up")
    httpx.post(
        f"{project.cloud.endpoint}/primary_ips",
        headers={"Authorization": f"Bearer {project.cloud.token}"},
        json={"name": "just-made", "type": "ipv4", "location": "fsn1", "labels": {"slipway-id": "a1b2c3"}},
    ).raise_for_status()
    cloud = project.folder.parent / "cloud" / "pulumi"
    cloud.parent.mkdir()
    cloud.write_text(
        f"""#!/bin/sh
for each; do
	case $each in up | destroy) echo 'error: [409] Conflict: Another update is currently in progress.' >&2; exit 255 ;; esac
done
exec {shutil.which("pulumi", path=project.environment["PATH"])} "$@"
"""
    )
    cloud.chmod(0o755)
    path = f"{cloud.parent}:{project.environment['PATH']}"

    for verb in (["up"], ["down", "--yes"]):
        _, err = project.slipway(*verb, code=1, PATH=path)
        assert err.splitlines()[-2:] == [
            "error: another update of this stack is in progress",
            "hint: wait for that run to end; if it is dead: pulumi cancel",
        ]
    assert "just-made" in project.names()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_engine_in_order(project, number):
    """The step under way is finished and recorded, the lock released; exit code 130, and the next run goes on."""
    httpx.put(f"{project.cloud.control}/speed", json={"action_factor": 0.5})
    interrupted = project.start("up")
    project.until("/servers")
    os.kill(interrupted.pid, number)

    out, err = interrupted.communicate(timeout=60)

    assert (interrupted.returncode, out) == (130, ""), err
    assert project.locks() == []
    server = project.listing("servers")[0]["id"]
    project.slipway("up")
    assert [each["id"] for each in project.listing("servers")] == [server]


@pytest.mark.skipif(not shutil.which("script"), reason="this host lacks script(1), which makes a terminal")
def test_ctrl_c_at_a_terminal_reaches_the_engine_once(project):
    """The terminal sends it to the engine too; a second one would end it at once and leave the lock."""
    httpx.put(f"{project.cloud.control}/speed", json={"action_factor": 0.5})
    terminal = subprocess.Popen(
        ["script", "-qefc", f"{sys.executable} -m builders.cli up", "/dev/null"], cwd=project.folder,
        env={**project.environment, "TERM": "xterm"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    project.until("/servers")

    out, _ = terminal.communicate(b"\x03", timeout=60)

    assert terminal.returncode == 130, out.decode()
    assert (project.locks(), len(project.listing("servers"))) == ([], 1)
    assert b"interrupted; run the same command again" in out


def test_a_refused_order_is_repeated_one_rung_further_down(project):
    """The hint says that there is stock; the order is refused; the next rung is taken in the same run."""
    httpx.put(
        f"{project.cloud.control}/stock",
        json={"server_type": "cx23", "location": "fsn1", "order": "resource_unavailable"},
    ).raise_for_status()

    out, err = project.slipway("up")

    assert "slipway: cx23 in fsn1 cannot be had now; taking the next rung\n" in err
    assert "cx33 in fsn1" in out


def test_when_no_rung_is_left_the_run_fails(project):
    """Each rung is tried once."""
    for server_type in ("cx23", "cx33"):
        httpx.put(
            f"{project.cloud.control}/stock",
            json={"server_type": server_type, "location": "fsn1", "order": "resource_unavailable"},
        ).raise_for_status()

    _, err = project.slipway("up", code=1)

    assert err.count("taking the next rung") == 2
    assert err.splitlines()[-1].startswith("error: ")


def test_what_the_provider_is_refused_is_told_with_the_resource_and_the_cure(project):
    """The provider's own words name neither."""
    httpx.put(f"{project.cloud.control}/limits", json={"servers": 0}).raise_for_status()

    _, err = project.slipway("up", code=1)
    error, hint = err.splitlines()[-2:]

    assert error.startswith("error: Server amd64-1: servers limit exceeded (0) (resource_limit_exceeded, ")
    assert hint == "hint: ask Hetzner for a higher limit of the project, or lower the count in slipway:builders"


def test_a_token_that_was_revoked_stops_neither_up_nor_down(project):
    """The state has the one of the last run, and the engine looks at what exists with it before the program tells the new one."""
    settings = Settings(port=0, control_port=0, action_factor=0.005, watch_s=0.1)
    with background(settings, NoMachines()) as cloud:

        def rotate(token):
            object.__setattr__(settings, "tokens", (token,))
            set_ = ["pulumi", "config", "set", "--plaintext"]
            for key, value in {"hcloud:endpoint": cloud.endpoint, "hcloud:token": token}.items():
                subprocess.run([*set_, key, value], cwd=project.folder, env=project.environment, check=True)

        rotate("a" * 64)
        project.slipway("up")
        rotate("b" * 64)
        _, err = project.slipway("up")
        assert "slipway: the token on record is refused; recording the one that is set" in err.splitlines()
        rotate("c" * 64)
        project.slipway("down", "--yes")


def test_what_the_program_says_ends_the_output_in_one_line(project):
    """After the engine's own display, which shows where it happened."""
    out, err = project.slipway("up", code=1, WRONG="1")

    assert out == ""
    assert err.splitlines()[-1] == "error: slipway:image: not set; set it"


def test_a_dynamic_resource_fails_with_its_reason_alone(project):
    """Plain `pulumi up` shows it too: none of gRPC's words before it, no traceback."""
    done = subprocess.run(
        ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"], cwd=project.folder, text=True, check=False,
        env={**project.environment, "UNUSABLE_KEY": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip

    told = "error: the SSH key to log in with is not an unencrypted OpenSSH private key"
    assert told in [line.strip() for line in done.stdout.splitlines()], done.stdout
    assert "calling application" not in done.stdout
    assert "Traceback" not in done.stdout


def test_the_engines_events_never_touch_the_disk(project):
    """They hold secret outputs in plain; a run that is killed would leave them there."""
    running = project.start("up")
    seen = set()
    while running.poll() is None:
        for each in (project.folder.parent / "temporary").rglob("*"):
            if each.is_file():
                seen.add(each.name)
        time.sleep(0.01)

    assert (running.communicate(), running.returncode)[1] == 0
    assert "events" not in seen
    assert list((project.folder.parent / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "error", "hint"),
    [
        (["up", "-s", "nope"], {}, "no stack named 'nope' found", "pulumi stack ls shows which there are; pulumi stack init NAME makes one"),
        (["up"], {"PULUMI_STACK": ""}, "no stack is selected", "slipway -s NAME …, or once: pulumi stack select NAME"),
        (["invite", "a"], {"PULUMI_CONFIG_PASSPHRASE": "no"}, "the stack's passphrase is wrong", "correct PULUMI_CONFIG_PASSPHRASE_FILE"),
        (["up"], {"PATH": "/nonexistent"}, "pulumi: the command is not on PATH", 'install it, or run: eval "$(scripts/setup --env)"'),
        (["connect"], {}, "the stack has no output 'authority' yet", "bring it up first: slipway up"),
        (["invite", "a"], {}, "the stack has no output 'authority' yet", "bring it up first: slipway up"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_its_cure(project, arguments, environment, error, hint):
    """One line each and the command that helps."""
    if "PULUMI_STACK" in environment:
        subprocess.run(["pulumi", "stack", "unselect"], cwd=project.folder, env=project.environment, check=True)
        environment = {}
    if "PULUMI_CONFIG_PASSPHRASE" in environment:
        project.slipway("up")

    assert project.slipway(*arguments, code=1, **environment) == ("", f"error: {error}\nhint: {hint}\n")


def test_whose_process_lives_is_told_by_its_name_and_state():
    """A number that another program got since, and a zombie, are dead; another host's process may live."""
    ended = subprocess.Popen(["true"])
    while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)

    def lock(pid, host=None):
        return Lock(user="root", host=host or socket.gethostname(), pid=pid, since="2026-11-23T23:20:48Z")

    assert is_dead(lock(ended.pid))
    ended.wait()
    assert is_dead(lock(ended.pid))
    assert is_dead(lock(os.getpid()))  # a Python, not pulumi
    assert not is_dead(lock(ended.pid, "another.example"))
    assert not is_dead(dataclasses.replace(lock(ended.pid), user="somebody"))


def test_a_lock_of_another_container_is_left_alone():
    """It may bear this host's name and a process number that is only not seen from here."""
    ask = f"""if True:
        from builders.locks import Lock, is_dead
        print(is_dead(Lock(user={_user()!r}, host={socket.gethostname()!r}, pid=99999999, since="")))
    """

    def told(*within):
        return subprocess.run(
            [*within, sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True
        )

    assert told().stdout == "True\n"
    assert told("unshare", "--uts", "--pid", "--fork", "--mount-proc").stdout == "False\n"


def _user():
    import getpass

    return getpass.getuser()
