"""The SSH door against OpenSSH's own server."""

from __future__ import annotations

import getpass
import hashlib
import io
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest

from builders import certificates, ssh
from builders.errors import (
    HostKeyMismatch,
    InvalidSetting,
    LoginRefused,
    NodeNotReady,
    NodeUnreachable,
    RemoteCommandFailed,
    TransferRefused,
)

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")


@dataclass
class _Server:
    folder: Path
    port: int
    host_key: str
    login: str
    process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config"), "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def connect(self, address="127.0.0.1", **changes) -> ssh.Connection:
        options = {"host_keys": [self.host_key], "private_key": self.login, "user": getpass.getuser(), "deadline_s": 10}
        return ssh.connect("amd64-1", address, port=self.port, **(options | changes))


def _write_key(path: Path) -> tuple[str, str]:
    private, public = certificates.create_ssh_key("test")
    path.write_text(private)
    path.chmod(0o600)
    return private, public


@pytest.fixture(scope="module")
def make_server(tmp_path_factory):
    """Make servers with keys of their own, not started; all are stopped at the end."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    servers = []

    def make(extra: str = "") -> _Server:
        folder = tmp_path_factory.mktemp("sshd")
        _, host_key = _write_key(folder / "host")
        login, login_public = _write_key(folder / "login")
        (folder / "authorized_keys").write_text(login_public + "\n")
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            f"PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nListenAddress 127.0.0.1\nListenAddress ::1\n{extra}"
        )
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        servers.append(_Server(folder, port, host_key, login))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(make_server):
    """One running server."""
    server = make_server()
    server.start()
    return server


@pytest.fixture(scope="module")
def connection(server):
    """One connection to it."""
    with server.connect() as connection:
        yield connection


def test_run_returns_stdout_and_feeds_stdin(connection):
    """A command sees exactly what it is given, and so does its caller."""
    assert connection.run("cat; echo; printf '%s' \"it's\"", stdin=b"a\x00b") == "a\x00b\nit's"


def test_output_larger_than_every_buffer_arrives_on_both_streams(connection):
    """The exit status would never come if one stream were left full."""
    command = "head -c 8388608 /dev/zero | tr '\\0' x; head -c 8388608 /dev/zero | tr '\\0' y >&2; exit 3"

    with pytest.raises(RemoteCommandFailed) as caught:
        connection.run(command)
    assert caught.value.exit_status == 3
    assert len(caught.value.stderr) == 8388608
    assert len(connection.run("head -c 8388608 /dev/zero | tr '\\0' x")) == 8388608


def test_a_failed_command_names_node_status_and_reason(connection):
    """The last line of stderr is the reason."""
    with pytest.raises(RemoteCommandFailed) as caught:
        connection.run("echo first >&2; echo 'no such unit' >&2; exit 5")
    assert (
        str(caught.value)
        == "node amd64-1: `echo first >&2; echo 'no such unit' >&2; exit 5` failed (exit 5): no such unit"
    )


def test_a_command_has_one_deadline_for_all_it_does(connection):
    """A command that keeps talking does not push its deadline away."""
    started = time.monotonic()
    with pytest.raises(
        NodeNotReady, match=r"^node amd64-1: no answer within 1 s from `while :; do echo; sleep 0.2; done`$"
    ):
        connection.run("while :; do echo; sleep 0.2; done", timeout_s=1)
    assert time.monotonic() - started < 3


def test_commands_that_run_alone_wait_for_those_of_a_broken_connection(server, connection, tmp_path):
    """What a run that was cut off had begun is done before the next one looks."""
    log = tmp_path / "log"
    with server.connect() as short_lived:
        cut = threading.Timer(0.5, short_lived.close)
        cut.start()
        with pytest.raises(NodeUnreachable):
            short_lived.run(f"sleep 4; echo first >> {log}", alone=True)

    assert connection.run(f"cat {log} || true") == ""
    with pytest.raises(NodeNotReady, match=r"^node amd64-1: what an earlier run began there has not ended in 0 s$"):
        connection.run("true", timeout_s=5, alone=True)
    assert connection.run(f"echo second >> {log}; cat {log}", alone=True) == "first\nsecond\n"


def test_put_replaces_whole_files_and_makes_folders(connection, tmp_path):
    """Mode and content are as asked, and nothing is left beside the file."""
    target = tmp_path / "a folder" / "it's.conf"

    connection.put(str(target), b"one")
    connection.put(str(target), b"two", mode=0o600)

    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["it's.conf"]


def test_upload_copies_what_has_the_digest_and_nothing_else(connection, tmp_path):
    """A file with another digest takes no name on the node."""
    source = tmp_path / "tarball"
    source.write_bytes(os.urandom(3_000_001))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()

    connection.upload(source, str(tmp_path / "there" / "good"), sha256=digest)
    with pytest.raises(TransferRefused, match=r"did not arrive with the sha256 on record \(000000000000…\)"):
        connection.upload(source, str(tmp_path / "there" / "bad"), sha256="0" * 64)

    assert (tmp_path / "there" / "good").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["good"]


def test_a_missing_source_is_a_refused_transfer(connection, tmp_path):
    """The path is named, and what to do."""
    with pytest.raises(TransferRefused, match="no such file on this machine") as caught:
        connection.upload(tmp_path / "absent", "/tmp/never", sha256="0" * 64)
    assert "scripts/setup" in caught.value.hint


def test_a_full_disk_is_named(connection):
    """The line says what does not fit and where."""
    # /dev/full refuses every byte, as a full disk does.
    with pytest.raises(TransferRefused, match=r"^node amd64-1: the disk is full \(`cat > /dev/full`\)$"):
        connection.run("cat > /dev/full", stdin=b"x")


def test_commands_run_side_by_side_on_one_connection(connection):
    """A transfer goes on while another thread waits for cloud-init."""
    started = time.monotonic()
    threads = [threading.Thread(target=connection.run, args=("sleep 1",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 3


def test_ipv6_addresses_are_reached(server):
    """A node may have no IPv4."""
    with server.connect("::1") as connection:
        assert connection.run("echo six") == "six\n"


def test_a_host_key_that_is_not_on_record_is_refused_at_once(server):
    """There is no first contact on trust, and no second attempt."""
    stranger = certificates.create_ssh_key("stranger")[1]
    started = time.monotonic()

    with pytest.raises(
        HostKeyMismatch, match=r"^node amd64-1: the machine shows the host key SHA256:\S+, which is not on record$"
    ):
        server.connect(host_keys=[stranger])
    assert time.monotonic() - started < 3


def test_a_host_key_of_another_type_is_refused_as_a_mismatch(server):
    """A machine with no key of the type on record is a stranger, not a broken negotiation."""
    ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAAA"

    with pytest.raises(HostKeyMismatch):
        server.connect(host_keys=[ecdsa])


def test_any_of_the_keys_on_record_will_do(server):
    """While the bootstrap key is being retired, two keys are on record."""
    other = certificates.create_ssh_key("other")[1]

    with server.connect(host_keys=[other, server.host_key]) as connection:
        assert connection.run("echo hello") == "hello\n"


def test_without_a_key_on_record_nobody_is_accepted(server):
    """An empty record is not a wildcard."""
    with pytest.raises(HostKeyMismatch):
        server.connect(host_keys=[])


def test_a_machine_that_boots_is_waited_for(make_server):
    """Refused connections are tried again until the deadline."""
    server = make_server()
    timer = threading.Timer(1.5, server.start)
    timer.start()

    with server.connect() as connection:
        assert connection.run("echo up") == "up\n"


def test_a_machine_that_never_answers_is_unreachable_after_the_deadline(make_server):
    """The line names address, port and deadline; the hint says what to look at."""
    server = make_server()

    with pytest.raises(
        NodeUnreachable,
        match=rf"^node amd64-1: no SSH connection to 127\.0\.0\.1 port {server.port} within 1 s \(Connection refused\)$",
    ) as caught:
        server.connect(deadline_s=1)
    assert "firewall" in caught.value.hint


def test_a_port_that_says_nothing_ends_with_the_deadline():
    """A listener that is no sshd does not hold us for paramiko's own timeouts."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(NodeUnreachable, match="within 2 s"):
            ssh.connect(
                "amd64-1",
                "127.0.0.1",
                port=silent.getsockname()[1],
                host_keys=[],
                private_key=certificates.create_ssh_key("x")[0],
                deadline_s=2,
            )
        assert time.monotonic() - started < 10


def test_a_key_that_is_written_late_is_waited_for(make_server):
    """cloud-init may write authorized_keys after sshd has started."""
    server = make_server()
    keys = server.folder / "authorized_keys"
    content = keys.read_text()
    keys.write_text("")
    server.start()
    timer = threading.Timer(1.5, lambda: keys.write_text(content))
    timer.start()

    with server.connect() as connection:
        assert connection.run("echo in") == "in\n"


def test_a_machine_that_boots_slowly_may_write_its_key_late_all_the_same(make_server, monkeypatch):
    """The patience with a refused login begins when there is somebody to refuse it."""
    monkeypatch.setattr(ssh, "_LOGIN_GRACE_S", 1.0)
    server = make_server()
    keys = server.folder / "authorized_keys"
    content = keys.read_text()
    keys.write_text("")
    timers = [threading.Timer(1.5, server.start), threading.Timer(2.2, lambda: keys.write_text(content))]
    for timer in timers:
        timer.start()

    with server.connect() as connection:
        assert connection.run("echo in") == "in\n"


class _Mute(paramiko.ServerInterface):
    """A machine that does not answer when it is asked to do this, though its connections stand."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.ended = threading.Event()

    def _answer(self, asked: str, answer: int | bool) -> int | bool:
        if asked == self.at:
            self.ended.wait()
        return answer

    def get_allowed_auths(self, _user):
        return "publickey"

    def check_auth_publickey(self, _user, _key):
        return self._answer("log in", paramiko.AUTH_SUCCESSFUL)

    def check_channel_request(self, _kind, _number):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, _channel, _command):
        return self._answer("run", False)


@pytest.fixture
def mute():
    """Give a function that connects to a machine which is mute when it is asked to do something."""
    private, public = certificates.create_ssh_key("host")
    login = certificates.create_ssh_key("login")[0]
    machines, transports, sockets = [], [], []

    def connect(at, **options):
        machines.append(_Mute(at))

        def serve(listening):
            with suppress(OSError):
                while True:
                    transport = paramiko.Transport(listening.accept()[0])
                    transports.append(transport)
                    transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(private)))
                    transport.start_server(server=machines[-1], event=threading.Event())

        listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        sockets.append(listening)
        return ssh.connect(
            "amd64-1", "127.0.0.1", port=listening.getsockname()[1], host_keys=[public], private_key=login, **options
        )

    yield connect
    for machine in machines:
        machine.ended.set()
    for listening in sockets:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
    for transport in transports:
        transport.close()


def test_a_machine_that_is_mute_while_we_log_in_is_unreachable(mute):
    """Silence is no refusal: the key on the machine may be the right one, so no other cure is told."""
    with pytest.raises(NodeUnreachable, match=r"within 2 s \(it did not answer in time\)$"):
        mute("log in", deadline_s=2)


def test_a_machine_that_does_not_begin_a_command_ends_with_the_deadline(mute, capfd):
    """A connection that stands is no word that it works."""
    started = time.monotonic()

    with mute("run") as connection, pytest.raises(NodeNotReady, match="no answer within 1 s from `true`"):
        connection.run("true", timeout_s=1)

    assert time.monotonic() - started < 5
    assert capfd.readouterr().err == ""


def test_a_foreign_key_is_refused_by_name(server):
    """The line says that the login, not the network, failed."""
    with pytest.raises(LoginRefused, match=r"^node amd64-1: the machine does not accept the stack's SSH key"):
        server.connect(private_key=certificates.create_ssh_key("foreign")[0], deadline_s=1)


def test_a_connection_that_breaks_is_said_so(make_server):
    """A builder that reboots during a command is neither a success nor a traceback."""
    server = make_server()
    server.start()
    with server.connect() as connection, pytest.raises(NodeUnreachable, match=r"^node amd64-1: "):
        connection.run("kill -9 $PPID; sleep 5")


@pytest.mark.parametrize("arguments", [{"host_keys": ["nonsense"]}, {"private_key": "nonsense"}])
def test_malformed_keys_are_settings_that_cannot_be_used(server, arguments):
    """They fail before anything is sent."""
    with pytest.raises(InvalidSetting):
        server.connect(**arguments)


def test_nothing_is_printed_and_no_thread_is_left(make_server, capfd):
    """Log lines and threads of paramiko do not outlive a failed attempt."""
    before = threading.active_count()
    logging.lastResort.setLevel(logging.WARNING)
    with pytest.raises(NodeUnreachable):
        make_server().connect(deadline_s=0.5)

    for _ in range(50):
        if threading.active_count() <= before:
            break
        time.sleep(0.1)
    assert threading.active_count() <= before
    assert capfd.readouterr().err == ""
