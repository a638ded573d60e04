"""Install BuildKit on a node and look at it again: load → compare → apply, over one SSH connection.

An install that finds everything as wanted writes nothing. One that was killed is completed by the next: the record of
what is installed comes last.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import secrets
import shlex
import shutil
import tarfile
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from builders import buildkit_config, certificates, health, readiness
from builders.buildkit_config import (
    BUILDKIT_UNIT,
    CONFIG,
    CURRENT,
    GUARD_FILES,
    GUARD_UNIT,
    LIBRARY,
    BuildKit,
    Registry,
)
from builders.errors import InvalidCertificate, InvalidSetting, NodeNotReady, RemoteCommandFailed, TransferRefused
from builders.platforms import parse_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builders.certificates import Authority
    from builders.ssh import Connection

__all__ = ["BuildKit", "Installed", "Registry", "install", "observe", "resolve"]

RENEW_BEFORE = timedelta(days=30)
_NEVER_VALID = datetime.min.replace(tzinfo=UTC)
_RECORD = f"{LIBRARY}/installed.json"
_TLS = f"{CONFIG}/tls"
_PACKAGES = {"nft": "nftables", "openssl": "openssl", "curl": "curl"}
_LISTING = "find bin -type f -printf '%f %s\\n' | sort"  # run in the folder of a version
# Python's zlib takes two thirds of gzip's time, and half of it where the processor is emulated.
_GUNZIP = (
    "command -v python3 > /dev/null || exec gzip -dc; exec python3 -c "
    "'import gzip, shutil, sys; shutil.copyfileobj(gzip.open(sys.stdin.buffer), sys.stdout.buffer, 1 << 20)'"
)
_UNREACHABLE = {6, 7, 28}  # curl(1): no such host, no connection, no answer in time
_ORPHAN_TIMEOUT_S = 300  # for what an earlier run, whose connection broke, still does there
_RESTART_TIMEOUT_S = buildkit_config.STOP_TIMEOUT_MIN * 60 + 150

# All that makes a node what it is; two states are alike if and only if this text is. Reading it writes nothing.
_STATE = f"""\
cat {_RECORD} 2> /dev/null
echo; echo --; cat {_TLS}/cert.pem 2> /dev/null; echo; echo --
find {CONFIG} /etc/slipway {" ".join(sorted(GUARD_FILES - {"/etc/slipway/guard.nft"}))} /etc/systemd/system/{BUILDKIT_UNIT} \
  -type f -exec sha256sum {{}} + 2> /dev/null | sort
readlink {CURRENT}; (cd {CURRENT} 2> /dev/null && {_LISTING})
systemctl is-enabled {GUARD_UNIT} {BUILDKIT_UNIT}; systemctl is-active {GUARD_UNIT} {BUILDKIT_UNIT}
/usr/sbin/nft list table inet slipway 2> /dev/null | sha256sum
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What a node has; `configuration` changes if and only if something of it was altered."""

    version: str
    certificate: str
    certificate_expires: datetime
    configuration: str
    platforms: tuple[str, ...]
    snapshotter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What the last completed install leaves on the node."""

    version: str
    sha256: str
    platforms: list[str]
    snapshotter: str
    configuration: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is on a node before an install."""

    vcpus: int
    missing: tuple[str, ...]  # commands
    unpacked: bool
    key_fits: bool
    digests: dict[str, str]
    certificate: str
    recorded: str  # the configuration that the last completed install left
    installed: Installed | None
    # What is cut off in the middle must not be what the next install writes to.
    token: str

    @property
    def tarball(self) -> str:
        return f"{LIBRARY}/buildkit-{self.token}.tar.gz"


def resolve(source: str, sha256: str) -> tuple[str, str]:
    """Return a tarball's full source and its digest: a local file is looked at, a URL passes through."""
    if "://" in source:
        return source, sha256
    path = Path(source).expanduser().absolute()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidSetting(
            f"slipway:buildkit: the tarball {path} cannot be read ({error.strerror})",
            hint="run scripts/setup, which makes it, or name another",
        ) from error
    if sha256 and sha256 != digest:
        raise InvalidSetting(f"slipway:buildkit: the tarball {path} has the sha256 {digest}, not {sha256}")
    return str(path), digest


def install(
    connection: Connection,
    wanted: BuildKit,
    authority: Authority,
    *,
    now: datetime,
    report: Callable[[str], None] = lambda _: None,
) -> Installed:
    """Bring a node to what is wanted, and return when it has built something."""
    with _phase(report, "machine looked at"):
        found = _find(connection, wanted)
        files = buildkit_config.render(wanted, vcpus=found.vcpus, authority_certificate=authority.certificate)
        changed = {path for path, content in files.items() if found.digests.get(path) != _sha256(content)}
        certified = found.key_fits and _serves(found.certificate, wanted, authority, now)
        whole = found.installed is not None and found.recorded == found.installed.configuration
    if whole and found.installed and not changed and found.unpacked and certified:
        return found.installed
    _fetch(connection, wanted, found, report)
    with _phase(report, "network guard loaded"):
        _guard(connection, {path: files[path] for path in sorted(changed)})
    if not certified:
        with _phase(report, "certificate signed"):
            _renew_certificate(connection, wanted, authority, now, key=f"{_TLS}/key.{found.token}")
    with _phase(report, "BuildKit started"):
        _start(connection, wanted, certain=whole and not changed - GUARD_FILES and found.unpacked and certified)
    with _phase(report, "BuildKit checked"):
        snapshotter = _check(connection, wanted, authority, now)
    return _record(
        connection,
        _Record(
            version=wanted.version,
            sha256=wanted.sha256,
            platforms=[str(wanted.platform)],
            snapshotter=snapshotter,
        ),
    )


def observe(connection: Connection) -> Installed | None:
    """Look at what a node has, and change nothing; None: there is no completed install."""
    raw, certificate, state = connection.run(_STATE).split("\n--\n", 2)
    record = _read_record(raw)
    return _installed(record, certificate, state) if record else None


def _find(connection: Connection, wanted: BuildKit) -> _Found:
    """Load what the plan depends on, in one look; a machine of another architecture is refused."""
    folder = shlex.quote(wanted.folder)
    paths = buildkit_config.render(wanted, vcpus=1, authority_certificate="")  # which they are depends on neither
    answer, raw, certificate, state = connection.run(
        f"PATH=$PATH:/usr/sbin; uname -m; nproc; for c in {' '.join(_PACKAGES)}; do command -v $c > /dev/null || printf '%s ' $c; done; "
        f'echo; (cd {folder} 2> /dev/null && [ "$({_LISTING})" = "$(cat files)" ] && printf unpacked); echo; '
        f"(cd {_TLS} 2> /dev/null && [ -s cert.pem ] && "
        '[ "$(openssl x509 -in cert.pem -noout -pubkey)" = "$(openssl pkey -in key.pem -pubout)" ] && printf fits); echo; '
        f"sha256sum {' '.join(paths)} 2> /dev/null; echo; echo --\n{_STATE}",
        timeout_s=_ORPHAN_TIMEOUT_S,
        alone=True,
    ).split("\n--\n", 3)
    machine, vcpus, missing, unpacked, fits, *digests = answer.splitlines()
    if parse_platform(machine) != wanted.platform:
        raise NodeNotReady(
            f"node {connection.node}: the machine is {machine}, which does not run {wanted.platform}",
            hint="a builder that exists stays what it is: give the other platform another name, or delete the server first",
        )
    record = _read_record(raw)
    return _Found(
        vcpus=int(vcpus),
        missing=tuple(missing.split()),
        unpacked=unpacked == "unpacked",
        key_fits=fits == "fits",
        digests={path: digest for digest, _, path in (line.partition("  ") for line in digests)},
        certificate=certificate,
        recorded=record.configuration if record else "",
        installed=_installed(record, certificate, state) if record else None,
        token=secrets.token_hex(4),
    )


def _read_record(raw: str) -> _Record | None:
    """Read the record; one that is damaged, or that another version of this program wrote, is none."""
    try:
        return _Record(**json.loads(raw))
    except (ValueError, TypeError):
        return None


def _installed(record: _Record, certificate: str, state: str) -> Installed:
    return Installed(
        version=record.version,
        certificate=certificate,
        certificate_expires=_expires(certificate),
        configuration=_sha256(state),
        platforms=tuple(record.platforms),
        snapshotter=record.snapshotter,
    )


def _expires(certificate: str) -> datetime:
    """Tell when the node's certificate ends; one that is absent or damaged has ended."""
    try:
        return certificates.expires(certificate)
    except InvalidCertificate:
        return _NEVER_VALID


def _fetch(connection: Connection, wanted: BuildKit, found: _Found, report: Callable[[str], None]) -> None:
    """Bring the tarball over and unpack it while cloud-init ends, then install the commands that are missing."""
    local = "://" not in wanted.tarball

    def wait_for_cloud_init() -> None:
        with _phase(report, "cloud-init done"):
            readiness.wait_for_cloud_init(connection)

    def transfer() -> None:
        if found.unpacked:
            return
        with _phase(report, "tarball copied"):
            if local:
                connection.upload(Path(wanted.tarball), found.tarball, sha256=wanted.sha256)
            else:
                _download(connection, wanted, found.tarball)
        with _phase(report, "tarball unpacked"):
            _unpack(connection, wanted, found.tarball)

    early = local or "curl" not in found.missing
    with ThreadPoolExecutor(max_workers=1) as threads:
        waiting = threads.submit(wait_for_cloud_init)
        if early:
            transfer()
        waiting.result()
    packages = [_PACKAGES[command] for command in found.missing if command != "curl" or not early]
    if packages:
        with _phase(report, f"{', '.join(packages)} installed"):
            connection.run(
                "export DEBIAN_FRONTEND=noninteractive; apt-get -qq -o DPkg::Lock::Timeout=300 update && "
                f"apt-get -qq -y -o DPkg::Lock::Timeout=300 install {' '.join(packages)} > /dev/null",
                timeout_s=600,
                alone=True,
            )
    if not early:
        transfer()


def _download(connection: Connection, wanted: BuildKit, target: str) -> None:
    url, digest = shlex.quote(wanted.tarball), shlex.quote(wanted.sha256)
    try:
        connection.run(
            f"mkdir -p {LIBRARY} && curl -fsSL --retry 5 --connect-timeout 20 -o {target} {url} || exit; "
            f'[ "$(sha256sum < {target} | cut -c1-64)" = {digest} ] || {{ rm -f {target}; exit 66; }}',
            timeout_s=900,
            alone=True,
        )
    except RemoteCommandFailed as error:
        if error.exit_status == 66:
            raise _refused(connection, wanted, _mismatch(wanted)) from error
        said = error.stderr.strip() or str(error)
        if error.exit_status not in _UNREACHABLE:
            raise _refused(connection, wanted, f"cannot be downloaded ({said})") from error
        _carry(connection, wanted, target, said)


def _carry(connection: Connection, wanted: BuildKit, target: str, said: str) -> None:
    """Download here and copy: a node with IPv6 alone does not reach a host that has IPv4 alone, as github.com has."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "buildkit.tar.gz"
        try:
            with urllib.request.urlopen(wanted.tarball, timeout=60) as answer, path.open("wb") as file:  # noqa: S310 - the user's own URL
                shutil.copyfileobj(answer, file)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _refused(connection, wanted, f"cannot be downloaded ({said}), nor here ({error})") from error
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted.sha256:
                raise _refused(connection, wanted, _mismatch(wanted))
        connection.upload(path, target, sha256=wanted.sha256)


def _mismatch(wanted: BuildKit) -> str:
    return f"does not have the sha256 on record ({wanted.sha256[:12]}…)"


def _refused(connection: Connection, wanted: BuildKit, reason: str) -> TransferRefused:
    return TransferRefused(
        f"node {connection.node}: {wanted.tarball} {reason}", hint="correct slipway:buildkit, the URL or its sha256"
    )


def _unpack(connection: Connection, wanted: BuildKit, tarball: str) -> None:
    """Give the version a folder of its own; it has its name only when it is whole."""
    folder, fresh = shlex.quote(wanted.folder), tarball.removesuffix(".tar.gz")
    connection.run(
        f"trap 'rm -rf {fresh} {tarball}' EXIT; mkdir {fresh} && "
        f"({_GUNZIP}) < {tarball} | tar -xf - -C {fresh} --no-same-owner && cd {fresh} && "
        # the name under which the CNI library looks for it
        f"ln -s buildkit-cni-loopback bin/loopback && {_LISTING} > files && "
        f"rm -rf {folder} && mv -T {fresh} {folder}",
        timeout_s=300,
        alone=True,
    )


def _guard(connection: Connection, files: dict[str, str]) -> None:
    """Write the files in one go and load the rules among them, though the unit may be active with older ones or without any."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path.removeprefix("/"))
            member.size, member.mode = len(content.encode()), 0o644
            tar.addfile(member, io.BytesIO(content.encode()))
    connection.run(
        # A reload runs every generator of the machine; a unit that systemd has not met yet needs none. systemd tells a changed
        # unit by its time alone, so the files have that of their writing; one that failed and was gone for a while it cannot load.
        "tar -xmf - -C / --no-same-owner && "
        f"{{ ! systemctl show -P LoadState -P NeedDaemonReload {GUARD_UNIT} {BUILDKIT_UNIT} | grep -qvxE 'loaded|no|' || "
        "systemctl daemon-reload; } && "
        f"systemctl enable --quiet --no-reload {GUARD_UNIT} && systemctl start {GUARD_UNIT} && systemctl reload {GUARD_UNIT}",
        stdin=archive.getvalue(),
        alone=True,
    )


def _serves(certificate: str, wanted: BuildKit, authority: Authority, now: datetime) -> bool:
    """Tell whether the node's certificate is the right one, and serves for longer."""
    return (
        certificates.issued_by(certificate, authority.certificate)
        and certificates.matches(certificate, name=wanted.node, addresses=wanted.addresses)
        and certificates.expires(certificate) - now > RENEW_BEFORE
    )


def _renew_certificate(
    connection: Connection, wanted: BuildKit, authority: Authority, now: datetime, *, key: str
) -> None:
    """Let the node make a new key, which never leaves it, and sign its request."""
    request = connection.run(
        f"set -e; umask 077; mkdir -p {_TLS}; "
        f"openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} "
        f"-subj {shlex.quote(f'/CN={wanted.node}')}",
        alone=True,
    )
    signed = certificates.sign_server(
        request, authority, name=wanted.node, addresses=wanted.addresses, now=now, days=wanted.certificate_days
    )
    connection.run(
        f"set -e; cat > {key}.cert; mv {key} {_TLS}/key.pem; mv {key}.cert {_TLS}/cert.pem",
        stdin=signed.encode(),
        alone=True,
    )


def _start(connection: Connection, wanted: BuildKit, *, certain: bool) -> None:
    """Put the version in use; buildkitd goes on running only where it is certain to have read all that is there."""
    folder = shlex.quote(wanted.folder)
    connection.run(
        f'[ "$(readlink {CURRENT})" = {folder} ] || {{ ln -sfn {folder} {CURRENT}.new && mv -T {CURRENT}.new {CURRENT}; }}; '
        f"ln -sf {CURRENT}/bin/buildctl /usr/local/bin/buildctl; systemctl enable --quiet --no-reload {BUILDKIT_UNIT}",
        alone=True,
    )
    if certain:
        connection.run(f"systemctl start {BUILDKIT_UNIT}", timeout_s=150, alone=True)
    else:
        readiness.restart(connection, timeout_s=_RESTART_TIMEOUT_S)


def _check(connection: Connection, wanted: BuildKit, authority: Authority, now: datetime) -> str:
    """Make sure that the node answers from here and builds; return its snapshotter."""
    client = certificates.issue_client(authority, "installation", now=now, days=1)
    health.check(connection.node, wanted.addresses[0], authority_certificate=authority.certificate, client=client)
    snapshotter = readiness.check_workers(connection, wanted.platform)
    readiness.check_build(connection)
    return snapshotter


def _record(connection: Connection, record: _Record) -> Installed:
    """Write down that the install is complete, with the state that it left; other versions go."""
    tidy = (
        f'find {LIBRARY} -maxdepth 1 -name "buildkit-*" ! -path "$(readlink {CURRENT})" -exec rm -rf {{}} +; '
        f"find {_TLS} -name 'key.*' ! -name key.pem -delete\n"
    )
    _, certificate, state = connection.run(tidy + _STATE, alone=True).split("\n--\n", 2)
    installed = _installed(record, certificate, state)
    complete = {**asdict(record), "configuration": installed.configuration}
    connection.put(_RECORD, json.dumps(complete).encode())
    return installed


@contextmanager
def _phase(report: Callable[[str], None], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    report(f"{name} ({time.monotonic() - started:.1f} s)")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
