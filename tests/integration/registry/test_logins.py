"""Logins: what Docker keeps, helpers that fail, and registries that send to a token server; plain HTTP only where it may be."""

import base64
import json
import os
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from scripts.benchmarks.registries import SERVERS
from scripts.registry import archive

AMD64, ARM64 = "linux/amd64", "linux/arm64"
SERVICE, ISSUER, REFRESH = "registry.test", "tokens.test", "refresh-me"


def _b64(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class TokenServer:
    """A token server as distribution specifies it; `may` are the actions that ada is granted, of those that are asked for."""

    def __init__(self):
        self.may, self.asked = {"pull", "push", "delete"}, []
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
                    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
                ), critical=True,
            )
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                login = f"Basic {base64.b64encode(b'ada:pass:word').decode()}"
                query = parse_qs(urlsplit(self.path).query)
                server.reply(self, query, known=self.headers["Authorization"] == login)

            def do_POST(self):
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                server.reply(self, form, known=form["refresh_token"] == [REFRESH])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def reply(self, handler, query, *, known):
        self.asked.append((handler.command, query))
        scopes = [scope.split(":") for text in query.get("scope", ()) for scope in text.split()]
        access = [
            {"type": kind, "name": name, "actions": [each for each in actions.split(",") if each in self.may]}
            for kind, name, actions in scopes
        ]
        body = json.dumps({"token": self.token(access)} if known else {"details": "nobody"}).encode()
        handler.send_response(200 if known else 401)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def token(self, access):
        der = base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "ada",
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 60,
            "iat": now,
            "jti": "1",
            "access": access,
        }
        signed = ".".join(
            _b64(json.dumps(each).encode()) for each in ({"typ": "JWT", "alg": "ES256", "x5c": [der]}, claims)
        )
        r, s = utils.decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@pytest.fixture
def tokens():
    """A token server on loopback."""
    server = TokenServer()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(params=list(SERVERS))
def guarded(request, new_registry, tokens, tmp_path):
    """A registry that sends everybody to the token server, with a tag and a staging tag in another repository."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(tokens.certificate.public_bytes(serialization.Encoding.PEM))
    realm = f"http://127.0.0.1:{tokens.http.server_address[1]}/token"
    settings = {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}
    server = new_registry(request.param)
    server.push_index("app", "1", [AMD64, ARM64])
    server.push_index("staging", "s", [ARM64], text="new")
    server.restart(REGISTRY_AUTH=json.dumps({"token": settings}))
    return server


def _merge(server):
    return "merge", server.name("app", "1"), "--from", server.name("staging", "s")


def test_a_merge_gets_its_tokens_by_password(guarded, slipway, tokens):
    """As it goes: to read, to mount, to write, to delete; the password goes to the token server, and to no output."""
    login = ("--username", "ada", "--password-stdin")

    nobody = slipway(*_merge(guarded), check=False)
    wrong = slipway(*_merge(guarded), *login, stdin="nonsense\n", check=False)
    done = slipway(*_merge(guarded), *login, "--debug", stdin="pass:word\n")
    again = slipway("inspect", guarded.name("staging", "s"), *login, stdin="pass:word\n", check=False)

    assert (nobody.returncode, wrong.returncode, again.returncode) == (1, 1, 1)
    assert "its token server" in nobody.stderr
    assert "docker login" in nobody.stderr
    assert done.stdout.startswith(f"{guarded.host}/app@sha256:")
    assert "not found" in again.stderr
    assert {query["service"][0] for _, query in tokens.asked} == {SERVICE}
    assert not any(
        secret in each.stdout + each.stderr for each in (nobody, wrong, done) for secret in ("nonsense", "pass:word")
    )


def test_a_login_that_may_not_write_is_told_so(guarded, slipway, tokens):
    """And the tag is as it was."""
    tokens.may = {"pull"}

    done = slipway(*_merge(guarded), "--username", "ada", "--password-stdin", stdin="pass:word\n", check=False)

    assert done.returncode == 1
    assert "these credentials may not do this" in done.stderr


def test_an_identity_token_is_sent_as_one(guarded, slipway, tokens, tmp_path):
    """From config.json or from a helper, by POST, as docker does."""
    docker = tmp_path / "docker"
    docker.mkdir()
    config = {"auths": {guarded.host: {"auth": base64.b64encode(b"x:").decode(), "identitytoken": REFRESH}}}
    (docker / "config.json").write_text(json.dumps(config))

    done = slipway("inspect", guarded.name("app", "1"))
    helper = _helper(tmp_path, f'echo \'{{"Username": "<token>", "Secret": "{REFRESH}"}}\'')
    (docker / "config.json").write_text(json.dumps({"credsStore": "test"}))
    helped = slipway("inspect", guarded.name("app", "1"), environment=helper)

    assert "linux/arm64" in done.stdout
    assert helped.stdout == done.stdout
    assert {method for method, _ in tokens.asked} == {"POST"}


def _helper(folder, script):
    """Make a credential helper named test; the environment that finds it."""
    file = folder / "docker-credential-test"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_password_that_is_none_is_wrong_usage(slipway):
    """Nothing on stdin, a name without a password, a password without a name."""
    for flags, stdin, says in (
        (["--username", "ada", "--password-stdin"], "", "holds no password"),
        (["--username", "ada"], "x\n", "its password comes from stdin"),
        (["--password-stdin"], "x\n", "say whose"),
    ):
        done = slipway("inspect", "127.0.0.1:1/app:1", *flags, stdin=stdin, check=False)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("verb", ["verify", "backup"])
def test_a_typed_login_is_for_one_registry(server, repository, slipway, verb):
    """Two are refused before anything is sent to either, as each would be told the password of one."""
    server.push_index(repository, "1", [AMD64])
    names = (server.name(repository, "1"), server.name(repository, "1").replace("127.0.0.1", "localhost"))
    login = ("--username", "ada", "--password-stdin")

    refused = slipway(verb, *names, *login, stdin="pass:word\n", check=False)
    one = slipway(verb, names[0], names[0], *login, stdin="pass:word\n")
    stored = slipway(verb, *names)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "of several registries" in refused.stderr
    assert one.returncode == stored.returncode == 0


def test_plain_http_is_for_loopback_alone(server, repository, slipway):
    """Elsewhere it is spoken when it was asked for; 0.0.0.0 is this host under a name that is not loopback's."""
    server.push_index(repository, "1", [AMD64])
    reference = f"0.0.0.0:{server.host.split(':')[1]}/{repository}:1"

    refused = slipway("inspect", reference, check=False)
    done = slipway("inspect", reference, "--plain-http")

    assert refused.returncode == 1
    assert "it does not speak TLS" in refused.stderr
    assert "--plain-http" in refused.stderr
    assert AMD64 in done.stdout


@pytest.mark.parametrize("version", SERVERS)
def test_an_ipv6_registry_is_one(new_registry, slipway, version):
    """In brackets, as everywhere."""
    server = new_registry(version)
    server.push_index("app", "1", [AMD64, ARM64])
    server.push_index("app", "s", [ARM64], text="new")
    port = server.host.split(":")[1]
    server.http = {"addr": f"[::]:{port}"}
    server.restart()

    done = slipway("merge", f"[::1]:{port}/app:1", "--from", f"[::1]:{port}/app:s")

    assert done.stdout.startswith(f"[::1]:{port}/app@sha256:")
    assert server.get("app", "s") is None


def test_the_one_file_program_needs_no_environment_and_no_home(server, repository, tmp_path):
    """Neither PATH nor HOME, nor packages, nor a user that the system knows."""
    server.push_index(repository, "1", [AMD64, ARM64])
    program = tmp_path / "slipway-registry.pyz"
    archive.write(program)
    python = ["/usr/bin/python3", "-I", "-S", program]
    for user in ({"user": 54321, "group": 54321} if os.geteuid() == 0 else {}, {}):
        if user:
            for folder in tmp_path.parents:
                if not folder.stat().st_mode & 0o001:
                    folder.chmod(folder.stat().st_mode | 0o011)
            tmp_path.chmod(0o755)
            program.chmod(0o755)
        done = subprocess.run(
            [*python, "verify", server.name(repository, "1")],
            env={},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            **user,
        )
        assert done.returncode == 0, done.stderr
        assert "whole" in done.stdout
