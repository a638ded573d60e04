"""A registry, or what pretends to be one, that answers as it should not: one line that names it, and nothing else happens."""

import base64
import json
import socket
import threading
from contextlib import contextmanager

import pytest

from scripts.benchmarks.registries import OCI_INDEX, OCI_MANIFEST, digest_of

INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()


def _answer(status, body=b"", **headers):
    lines = [f"HTTP/1.1 {status} It", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _error(status, code, message="said"):
    return _answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode())


@contextmanager
def _registry(answer):
    """Listen on loopback; `answer` makes a request's head into the bytes that are sent back, after which the connection ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heads = []

        def serve(connection):
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
                    head += more
                if head:
                    heads.append(head.decode())
                    connection.sendall(answer(head.decode()))

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heads
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def inspect(here):
    """Run `inspect` for a tag; its exit code and what it said."""
    return lambda host, *flags: here("inspect", f"{host}/app:1", *flags)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_answer(200, b"<html>welcome</html>", Content_Type="text/html"), "it is no JSON"),
        (_answer(200, b'{"hello": 1}', Content_Type="application/json"), "neither an image nor an index"),
        (_answer(200, b"[" * 100_000, Content_Type=OCI_INDEX), "it is no JSON"),
        (_answer(200, INDEX, Content_Type=OCI_MANIFEST, Docker_Content_Digest=digest_of(b"x")), "has the digest"),
        (_answer(200, INDEX[:-5] + b'"', Content_Type=OCI_INDEX), "it is no JSON"),
        (_answer(200, INDEX)[:-5], "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the connection broke"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "no answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "no answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n", "no answer"),
        (b"", "no answer"),
        (_answer(302, Location="/elsewhere"), "again and again"),
        (_answer(307, Location="http://["), "redirects to what is no address"),
        (_answer(307, Location="http://a..b/"), "redirects to what is no address"),
        (_answer(307, Location="http://127.0.0.1:99999/"), "redirects to what is no address"),
        (_answer(307, Location="ftp://127.0.0.1/"), "redirects to ftp://127.0.0.1, which is not encrypted"),
        (_answer(307, Location="http://192.168.0.9/"), "redirects to http://192.168.0.9, which is not encrypted"),
        (_answer(307, Location="/with a space"), "an address that cannot be asked for"),
        (_answer(401, WWW_Authenticate='Basic realm="x"'), "the registry wants a login"),
        (_answer(401), "the registry wants a login"),
        (_answer(401, WWW_Authenticate='Bearer realm="http://10.0.0.1/token"'), "which is not encrypted"),
        (_answer(401, WWW_Authenticate='Bearer realm="://["'), "it sends logins to no"),
        (_answer(401, WWW_Authenticate="Bearer"), "it sends logins to no"),
        (_error(403, "DENIED"), "these credentials may not do this"),
        (_answer(403), "these credentials may not do this"),
        (_error(404, "MANIFEST_UNKNOWN"), "app:1: not found"),
        (_answer(404, b"nginx"), "not found (404)"),
        (_error(429, "TOOMANYREQUESTS"), "too many requests"),
        (_error(500, "UNKNOWN"), "the registry failed (500, said)"),
        (_answer(503), "the registry failed (503)"),
        (_answer(418, b"\xff"), "the registry refused (418)"),
        (_error(400, "X", "\x1b[2J\x1b]0;mine\x07"), "the registry refused (400, \N{REPLACEMENT CHARACTER}[2J"),
    ],
)  # fmt: skip
def test_each_wrong_answer_is_an_error_of_one_line(inspect, answer, says):
    """It names the registry and what it did; nothing is on stdout, and no word of it moves the terminal."""
    with _registry(lambda _head: answer) as (host, _):
        code, shown, said = inspect(host)

    assert (code, shown) == (1, "")
    assert [line for line in said.splitlines() if line.startswith("error: ")] == said.splitlines()[:1]
    assert host in said
    assert says in said
    assert "\x1b" not in said


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(inspect, status):
    """As the tag of registry 2.8 answers 500 while somebody writes it."""
    answers = iter([_answer(status), _answer(status), _answer(200, INDEX, Content_Type=OCI_INDEX)])
    with _registry(lambda head: next(answers, _error(404, "MANIFEST_UNKNOWN")) if "/1 " in head else _missing()) as (
        host,
        _,
    ):
        code, shown, said = inspect(host)

    assert (code, digest_of(INDEX) in shown) == (0, True), said


def _missing():
    return _error(404, "MANIFEST_UNKNOWN")


def test_a_body_in_chunks_is_a_body(inspect):
    """As a proxy may send it."""
    parts = b"".join(f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in (INDEX[:7], INDEX[7:], b""))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {OCI_INDEX}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with _registry(lambda asked: head + parts if "/1 " in asked else _missing()) as (host, _):
        code, shown, said = inspect(host)

    assert (code, digest_of(INDEX) in shown) == (0, True), said


@pytest.mark.parametrize(
    "token",
    [{}, [], {"token": 5}, {"token": "secret\r\nX: y"}, {"token": "s\N{LATIN SMALL LETTER E WITH ACUTE}"}, None],
)
def test_a_token_that_is_none_is_refused_and_not_shown(inspect, token):
    """It would be a header of somebody else's making."""

    def answer(head):
        if head.startswith("GET /token"):
            return _answer(200, b"nothing" if token is None else json.dumps(token).encode())
        return _answer(401, WWW_Authenticate=f'Bearer realm="http://{place[0]}/token"')

    with _registry(answer) as (host, _):
        place = [host]
        code, _, said = inspect(host, "--debug")

    assert code == 1
    assert "its token server answered without a token" in said
    assert "secret" not in said


def test_a_registry_that_is_never_content_with_its_own_token_ends_it(inspect):
    """One login for a request, and no more."""

    def answer(head):
        if head.startswith("GET /token"):
            return _answer(200, b'{"token": "t"}')
        return _answer(401, WWW_Authenticate=f'Bearer realm="http://{place[0]}/token",scope="repository:app:pull"')

    with _registry(answer) as (host, heads):
        place = [host]
        code, _, said = inspect(host)

    assert (code, "the registry wants a login" in said) == (1, True)
    assert len(heads) == 3


def test_of_several_ways_in_one_is_taken(inspect, tmp_path):
    """Each in a line of its own, as some registries offer them; the password goes to the token server alone."""
    login = base64.b64encode(b"ada:pass").decode()

    def answer(head):
        if head.startswith("GET /token"):
            return _answer(200 if f"Authorization: Basic {login}" in head else 401, b'{"access_token": "t"}')
        if "Authorization: Bearer t" not in head:
            offers = f'Basic realm=x\r\nWWW-Authenticate: Bearer realm="http://{place[0]}/token", service=reg'
            return _answer(401, WWW_Authenticate=offers)
        return _answer(200, INDEX, Content_Type=OCI_INDEX) if "/1 " in head else _missing()

    with _registry(answer) as (host, heads):
        place = [host]
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))
        code, _, said = inspect(host)

    assert code == 0, said
    assert [head.split()[1] for head in heads if login in head] == ["/token?service=reg"]
