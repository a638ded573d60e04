"""BuildKit on real machines: installed, left alone, mended, renewed; and what stops an install says so."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builders import buildkit, certificates, health, readiness
from builders.errors import BuilderError, NodeNotReady, TransferRefused
from builders.platforms import Platform
from infra import cloudinit

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(300)]
needs_buildkit = pytest.mark.usefixtures("installed")

ROOT = Path(__file__).parents[2]
SETTINGS_FRAME = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def node(request, make_node):
    """Rent a machine."""
    return make_node(request.param)


@pytest.fixture(scope="module")
def connection(node):
    """Connect to it."""
    with node.connect() as connection:
        yield connection


def _install(connection, node, *, now=None, report=lambda _: None, **changes):
    return buildkit.install(
        connection, node.wanted(**changes), node.authority, now=now or datetime.now(UTC), report=report
    )


@pytest.fixture(scope="module")
def installed(connection, node):
    """Install BuildKit there."""
    return _install(connection, node)


@pytest.fixture(scope="module")
def spare(make_node):
    """Connect to an amd64 machine that may be spoilt."""
    node = make_node("amd64")
    with node.connect() as connection:
        yield node, connection


def _pid(connection):
    return connection.run("systemctl show -p MainPID --value buildkit.service").strip()


def _wipe(connection):
    connection.run(
        "systemctl disable --now buildkit.service slipway-guard.service 2> /dev/null; /usr/sbin/nft delete table inet slipway "
        "2> /dev/null; rm -rf /usr/local/lib/slipway /etc/buildkit /etc/slipway /etc/sysctl.d/90-slipway.conf "
        "/etc/systemd/system/buildkit.service /etc/systemd/system/slipway-guard.service; systemctl daemon-reload"
    )


def test_an_install_ends_with_a_node_that_builds_its_own_platform(node, installed):
    """Version, platform, snapshotter and a certificate of the stack's authority for a year."""
    assert installed.version == "v0.32.2"
    assert installed.platforms == (node.platform,)
    assert installed.snapshotter == "overlayfs"
    assert certificates.issued_by(installed.certificate, node.authority.certificate)
    assert timedelta(days=364) < installed.certificate_expires - datetime.now(UTC) < timedelta(days=365)


def test_a_second_install_writes_nothing_and_restarts_nothing(connection, node, installed):
    """It looks, and that is all."""
    pid = _pid(connection)
    connection.run("touch /root/mark; sleep 0.1")
    phases = []

    assert _install(connection, node, report=phases.append) == installed

    assert [phase.split(" (")[0] for phase in phases] == ["machine looked at"]
    assert connection.run("find /etc /usr /opt /root /var/lib/systemd -newer /root/mark") == ""
    assert _pid(connection) == pid


def test_looking_at_a_node_writes_nothing(connection, installed):
    """A refresh leaves no trace, and tells what an install told."""
    connection.run("touch /root/mark; sleep 0.1")

    assert buildkit.observe(connection) == installed
    assert connection.run("find /etc /usr /opt /root /var/lib/systemd -newer /root/mark") == ""


@pytest.mark.parametrize("node", ["amd64"], indirect=True)  # the faster one: nothing of it depends on the architecture
@pytest.mark.parametrize(
    "alteration",
    [
        "echo '# by hand' >> /etc/buildkit/buildkitd.toml",
        "sed -i '/drop/d' /etc/slipway/guard.nft",
        "/usr/sbin/nft delete table inet slipway",
        "/usr/sbin/nft insert rule inet slipway forward accept",
        "systemctl stop buildkit.service",
        "systemctl disable --quiet buildkit.service",
        "rm /usr/local/lib/slipway/buildkit/bin/buildkit-runc",
        "rm /etc/sysctl.d/90-slipway.conf",
    ],
)
def test_what_is_altered_by_hand_is_seen_and_mended(connection, node, installed, alteration):
    """A refresh tells another configuration; the next install brings the old one back."""
    connection.run(alteration)

    assert buildkit.observe(connection).configuration != installed.configuration
    assert _install(connection, node) == installed


@pytest.mark.parametrize("node", ["amd64"], indirect=True)
def test_a_unit_that_an_earlier_release_wrote_is_loaded_anew(connection, node, installed):
    """systemd tells a changed unit by its time alone, and runs what was written last."""
    unit = "/etc/systemd/system/buildkit.service"
    connection.run(
        f"sed -i s/TimeoutStartSec=60/TimeoutStartSec=61/ {unit}; touch -d @0 {unit}; systemctl daemon-reload"
    )

    assert _install(connection, node) == installed
    assert connection.run("systemctl show -P TimeoutStartUSec buildkit.service").strip() == "1min"


def test_a_lost_certificate_is_replaced(connection, node, installed):
    """The key never left the machine, so both are made anew."""
    connection.run("rm /etc/buildkit/tls/cert.pem")

    assert buildkit.observe(connection).certificate_expires < datetime.now(UTC)
    renewed = _install(connection, node)

    assert renewed.certificate != installed.certificate
    assert buildkit.observe(connection) == renewed


@needs_buildkit
def test_a_certificate_near_its_end_is_renewed_with_its_key(connection, node):
    """BuildKit restarts with the new one; nothing else changes."""
    connection.run("rm /etc/buildkit/tls/cert.pem")
    short = _install(connection, node, certificate_days=20)
    key, pid = connection.run("sha256sum /etc/buildkit/tls/key.pem"), _pid(connection)

    renewed = _install(connection, node)

    assert short.certificate_expires - datetime.now(UTC) < timedelta(days=20)
    assert renewed.certificate_expires - datetime.now(UTC) > timedelta(days=364)
    assert connection.run("sha256sum /etc/buildkit/tls/key.pem") != key
    assert _pid(connection) != pid
    assert ssl.get_server_certificate((node.addresses[0], 1234)).split() == renewed.certificate.split()
    assert _install(connection, node) == renewed


@needs_buildkit
def test_the_key_of_the_node_is_for_root_only(connection):
    """Nobody but buildkitd reads it."""
    assert connection.run("stat -c '%a %U' /etc/buildkit/tls/key.pem").split() == ["600", "root"]


def _say_hello(node, address, leaf, folder):
    """Open an HTTP/2 connection as buildx does; return what the node answers to it."""
    context = ssl.create_default_context(cadata=node.authority.certificate)
    context.set_alpn_protocols(["h2"])
    if leaf:
        pair = folder / "pair.pem"
        pair.write_text(leaf.certificate + leaf.key)
        context.load_cert_chain(pair)
    with (
        socket.create_connection((address, 1234), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=address) as channel,
    ):
        channel.sendall(SETTINGS_FRAME)
        return channel.recv(9)


@needs_buildkit
@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_a_client_of_the_stack_is_served_at_both_addresses(node, tmp_path, family):
    """The certificate names both."""
    leaf = certificates.issue_client(node.authority, "test", now=datetime.now(UTC), days=1)

    assert _say_hello(node, node.addresses[family], leaf, tmp_path)[3] == 4  # its own SETTINGS frame


@needs_buildkit
@pytest.mark.parametrize("client", ["none", "foreign", "expired", "not yet valid", "a server"])
def test_any_other_client_is_refused(node, tmp_path, client):
    """No certificate, one of another stack, one that has ended, and the node's own kind."""
    now = datetime.now(UTC)
    foreign = certificates.create_authority("test", now=now)
    leaf = {
        "none": None,
        "foreign": certificates.issue_client(foreign, "test", now=now, days=1),
        "expired": certificates.issue_client(node.authority, "test", now=now - timedelta(days=2), days=1),
        "not yet valid": certificates.issue_client(node.authority, "test", now=now + timedelta(days=2), days=1),
        "a server": certificates.issue_client(node.authority, "test", now=now, days=1),
    }[client]
    if client == "a server":
        leaf = _server_leaf(node, now, tmp_path)

    with pytest.raises((ssl.SSLError, ConnectionResetError), match=r"(?i)alert|reset|EOF"):
        assert _say_hello(node, node.addresses[0], leaf, tmp_path) != b""


def _server_leaf(node, now, folder):
    request = [
        "openssl",
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
    ]
    csr = subprocess.check_output([*request, "-keyout", folder / "key.pem"], stderr=subprocess.DEVNULL, text=True)
    signed = certificates.sign_server(csr, node.authority, name="x", addresses=[], now=now, days=1)
    return certificates.Leaf(certificate=signed, key=(folder / "key.pem").read_text())


@needs_buildkit
def test_the_health_check_says_why_a_node_is_not_ready(node, capfd):
    """A refused client is told in one line within the deadline, and nothing else is printed."""
    foreign = certificates.create_authority("test", now=datetime.now(UTC))
    leaf = certificates.issue_client(foreign, "test", now=datetime.now(UTC), days=1)

    with pytest.raises(NodeNotReady) as caught:
        health.check(
            node.name, node.addresses[0], authority_certificate=node.authority.certificate, client=leaf, deadline_s=1
        )
    assert str(caught.value) == (
        f"node {node.name}: BuildKit at tcp://{node.addresses[0]}:1234 does not serve after 1 s "
        "(it refused this machine's certificate (tlsv1 alert unknown ca))"
    )
    assert capfd.readouterr().err == ""


@needs_buildkit
def test_a_restart_lets_a_running_build_finish(node, connection, make_probe):
    """A renewal does not break the build of a colleague."""
    connection.put("/root/probe/probe", make_probe(node.architecture), mode=0o755)
    slow = b'RUN --mount=target=/p ["/p/probe", "2500ms", "slow=198.51.100.9:1"]\n'
    connection.put("/root/slow/Dockerfile", b"FROM scratch\n" + 2 * slow)
    results = []

    def build():
        results.append(
            connection.run(
                "buildctl build --no-cache --progress=plain --frontend=dockerfile.v0 --local context=/root/probe "
                "--local dockerfile=/root/slow 2>&1",
                timeout_s=60,
            )
        )

    thread = threading.Thread(target=build)
    thread.start()
    connection.run("for i in $(seq 100); do pgrep -x probe && exit; sleep 0.1; done; exit 1")
    pid = _pid(connection)
    readiness.restart(connection, timeout_s=60)
    thread.join()

    assert "PROBE slow closed" in results[0]
    assert _pid(connection) != pid


@needs_buildkit
def test_a_wrong_digest_installs_nothing(connection, node):
    """The tarball is refused, and what was there goes on."""
    before = connection.run("ls /usr/local/lib/slipway")

    with pytest.raises(TransferRefused, match=r"did not arrive with the sha256 on record \(000000000000…\)"):
        _install(connection, node, sha256="0" * 64)

    assert connection.run("ls /usr/local/lib/slipway") == before
    assert _install(connection, node).version == "v0.32.2"


@needs_buildkit
def test_a_machine_of_another_architecture_is_refused(connection, node):
    """An emulated builder would be worse than none."""
    other = {"amd64": "arm64", "arm64": "amd64"}[node.architecture]

    with pytest.raises(NodeNotReady, match=f"^node {node.name}: the machine is .*, which does not run linux/{other}$"):
        _install(connection, node, platform=Platform("linux", other))


def test_a_full_disk_is_named_and_mended_later(spare):
    """Neither half a tarball nor half a version is left."""
    node, connection = spare
    connection.run(
        "mkdir -p /usr/local/lib/slipway; mount -t tmpfs -o size=60m tmpfs /usr/local/lib/slipway"
    )  # holds the tarball, not what is in it

    with pytest.raises(TransferRefused, match=f"^node {node.name}: the disk is full"):
        _install(connection, node)

    assert connection.run("ls /usr/local/lib/slipway") == ""
    connection.run("umount /usr/local/lib/slipway")
    assert _install(connection, node).platforms == ("linux/amd64",)


def test_an_install_that_was_cut_off_at_any_moment_is_completed_by_the_next(spare):
    """Whatever step the connection broke in, the next install ends as the first would have."""
    node, connection = spare
    for delay_s in (0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 2.0, 2.5):
        _wipe(connection)
        with node.connect() as short_lived:
            cut = threading.Timer(delay_s, short_lived.close)
            cut.start()
            with suppress(BuilderError):
                _install(short_lived, node)
            cut.cancel()

        installed = _install(connection, node)

        assert buildkit.observe(connection) == installed
        assert connection.run("ls /usr/local/lib/slipway | wc -l").strip() == "3"  # a version, its link, the record


@pytest.fixture(scope="module")
def files(cloud, node, tmp_path_factory):
    """Serve the tarball of the node's architecture on a host of its own; gives the URL of its folder."""
    command = [sys.executable, "-m", "scripts.localcloud", "host", "files", "198.51.100.7", "--state", str(cloud.state)]
    subprocess.run(command, check=True, cwd=ROOT)
    folder = tmp_path_factory.mktemp("files")
    (folder / "buildkit.tar.gz").symlink_to(node.wanted().tarball)
    server = [sys.executable, "-m", "http.server", "--directory", str(folder), "80"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["ip", "netns", "exec", "slipway-files", *server], stderr=log, stdout=log)
    yield "http://198.51.100.7"
    process.terminate()
    process.wait()


@pytest.mark.parametrize("node", ["amd64"], indirect=True)
def test_a_tarball_is_downloaded_by_the_machine_where_it_is_a_url(spare, files, node):
    """The digest is checked there, before anything is unpacked; what cannot be had is named."""
    node, connection = spare
    _wipe(connection)
    url = f"{files}/buildkit.tar.gz"

    with pytest.raises(TransferRefused, match=rf"{url} does not have the sha256 on record"):
        _install(connection, node, tarball=url, sha256="0" * 64)
    with pytest.raises(TransferRefused, match=rf"{files}/none cannot be downloaded \(.*404"):
        _install(connection, node, tarball=f"{files}/none")
    assert buildkit.observe(connection) is None
    assert _install(connection, node, tarball=url).version == "v0.32.2"


@pytest.mark.parametrize("node", ["amd64"], indirect=True)
def test_a_tarball_that_the_machine_cannot_reach_is_carried_over(spare, node):
    """As from a host that has IPv4 alone to a node that has IPv6 alone; here it is a host that only this machine reaches."""
    node, connection = spare
    folder = Path(node.wanted().tarball).parent
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        tarball = f"{url}/{Path(node.wanted().tarball).name}"
        _wipe(connection)

        with pytest.raises(TransferRefused, match=rf"{url}/none cannot be downloaded \(curl: .*\), nor here \(.*404"):
            _install(connection, node, tarball=f"{url}/none")
        with pytest.raises(TransferRefused, match="does not have the sha256 on record"):
            _install(connection, node, tarball=tarball, sha256="0" * 64)
        assert _install(connection, node, tarball=tarball).version == "v0.32.2"
        server.shutdown()


def test_a_failure_of_cloud_init_is_shown(make_node):
    """The machine's own words, and where to read more."""

    def user_data(**keys):
        config = json.loads(cloudinit.render(**keys).split("\n", 1)[1])
        return "#cloud-config\n" + json.dumps({**config, "runcmd": [["sh", "-c", "exit 3"]]})

    node = make_node("amd64", user_data=user_data)
    with (
        node.connect() as connection,
        pytest.raises(NodeNotReady, match=rf"^node {node.name}: cloud-init failed: .*runcmd.*") as caught,
    ):
        _install(connection, node)
    assert "/var/log/cloud-init-output.log" in caught.value.hint


def test_a_daemon_that_does_not_start_says_why(spare):
    """The last words of its journal are the reason."""
    node, connection = spare
    _wipe(connection)
    started = time.monotonic()

    with pytest.raises(NodeNotReady, match=f"^node {node.name}: BuildKit does not start: .*snapshotter.*nonsense"):
        _install(connection, node, snapshotter="nonsense")
    assert time.monotonic() - started < 60
