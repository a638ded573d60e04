"""Registries of other makes: what they do otherwise than registry 2.8 and 3.1, done by a proxy before one of these."""

import base64
import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from scripts.registry import client

AMD64, ARM64 = "linux/amd64", "linux/arm64"


@dataclass
class Exchange:
    """A request on its way through the proxy, then its answer too; names of headers are in lower case.

    `size` is what the body is said to have, where it breaks off before.
    """

    method: str
    path: str
    headers: dict
    host: str
    status: int = 0
    answered: dict = field(default_factory=dict)
    body: bytes = b""
    size: int = 0


@contextmanager
def _before(server, *, ask=lambda _e: None, answer=lambda _e: None):
    """Listen before a registry: `ask` may change a request, or answer it by itself with a status; `answer` changes answers.

    Yields the address and the requests that there were.
    """
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            each = Exchange(self.command, self.path, headers, headers.pop("host"))
            seen.append((each.method, each.path, headers.get("authorization")))
            ask(each)
            if not each.status:
                connection = http.client.HTTPConnection(server.host, timeout=20)
                connection.request(each.method, each.path, content or None, each.headers)
                got = connection.getresponse()
                each.status, each.body = got.status, got.read()
                each.answered = {name.lower(): value for name, value in got.getheaders()}
                connection.close()
                answer(each)
            self.send_response_only(each.status)
            length = each.answered.pop("content-length", "0")
            for name, value in each.answered.items():
                if name not in {"transfer-encoding", "connection"}:
                    self.send_header(name, value)
            if each.status != 304:
                self.send_header(
                    "Content-Length", length if each.method == "HEAD" else str(each.size or len(each.body))
                )
            self.end_headers()
            if each.method != "HEAD":
                self.wfile.write(each.body)
            self.close_connection = bool(each.size)

        def __getattr__(self, name):
            if name.startswith("do_"):
                return self.handle_any
            raise AttributeError(name)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.daemon_threads = True
        threading.Thread(target=http_server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{http_server.server_address[1]}", seen
        http_server.shutdown()


def _pages(link):
    """Give two tags a page, the next of which `link` says by the page's number and where the list is."""

    def ask(each):
        parts = urlsplit(each.path)
        if parts.path.endswith("/tags/list"):
            each.headers["x-page"] = parts.query.partition("page=")[2] or "0"
            each.path = parts.path

    def answer(each):
        if "x-page" in each.headers:
            number, found = int(each.headers["x-page"]), json.loads(each.body)
            rest = sorted(found["tags"])[2 * number :]
            each.body = json.dumps({**found, "tags": rest[:2]}).encode()
            if rest[2:]:
                each.answered["link"] = link(number + 1, each.path, each.host)

    return {"ask": ask, "answer": answer}


@pytest.mark.parametrize(
    "link",
    [
        lambda n, path, _host: f'<{path}?page={n}>; rel="next"',
        lambda n, _path, _host: f"<?page={n}>;rel=next",
        lambda n, _path, _host: f'<list?page={n}>; title="a, b"; rel="next"',
        lambda n, path, host: f'</elsewhere>; rel="prev", <http://{host}{path}?page={n}>; rel="next"',
        lambda n, path, _host: f'<https://registry.internal:5000{path}?page={n}>; rel="next"',
    ],
    ids=["path", "query", "beside", "url", "another name"],
)
def test_every_page_of_tags_is_read(server, repository, here, link):
    """Whatever the next page is called by; its address is the registry's word alone, and is asked of no other host."""
    for number in range(5):
        server.push_index(repository, f"t{number}", [AMD64])

    with _before(server, **_pages(link)) as (host, _):
        code, shown, said = here("untag", f"{host}/{repository}", "--all-with-prefix", "t")

    assert (code, shown.count("\n")) == (0, 5), said
    assert server.tags(repository) == set()


def test_a_page_that_says_nothing_new_is_not_the_end(server, repository, here):
    """A registry that always gives the first page: some tags would be missing, and nothing is done."""
    for number in range(5):
        server.push_index(repository, f"t{number}", [AMD64])
    before = server.tags(repository)

    with _before(server, **_pages(lambda _n, path, _host: f'<{path}?page=0>; rel="next"')) as (host, _):
        code, shown, said = here("backup", f"{host}/{repository}")

    assert (code, shown) == (1, "")
    assert "some may be missing" in said
    assert server.tags(repository) == before


def test_the_next_page_of_tags_gets_the_login_from_the_registry_alone(server, repository, here, tmp_path):
    """A link that leads to another host sends the login nowhere."""
    for number in range(3):
        server.push_index(repository, f"t{number}", [AMD64])
    login = f"Basic {base64.b64encode(b'ada:pass').decode()}"
    pages = _pages(lambda n, path, _host: f'<http://{other}{path}?page={n}>; rel="next"')

    def ask(each):
        if each.headers.pop("authorization", "") != login:
            each.status, each.answered = 401, {"www-authenticate": 'Basic realm="x"'}
        pages["ask"](each)

    with _before(server) as (other, elsewhere), _before(server, ask=ask, answer=pages["answer"]) as (host, seen):
        (tmp_path / "docker").mkdir()
        stored = {"auths": {host: {"auth": login.removeprefix("Basic ")}}}
        (tmp_path / "docker/config.json").write_text(json.dumps(stored))
        code, shown, said = here("backup", f"{host}/{repository}")

    assert (code, shown.count("slipway.backup.")) == (0, 3), said
    assert (len(elsewhere), {each[2] for each in seen}) == (0, {None, login})


def _missing(body):
    """Say so of a manifest that is not there."""

    def answer(each):
        if each.status == 404 and "/manifests/" in each.path:
            each.body = body

    return answer


@pytest.mark.parametrize("code", ["NOT_FOUND", "TAG_EXPIRED"])
def test_a_tag_that_is_not_there_is_not_there_in_other_words_too(server, repository, here, code):
    """As Harbor and Quay say it: what is optional is passed over, and a tag can be made, merged into and inspected."""
    server.push_index(repository, "s", [AMD64], text="new")
    server.push_index(repository, "1", [AMD64, ARM64])
    said_so = json.dumps({"errors": [{"code": code, "message": "it is not there"}]}).encode()

    with _before(server, answer=_missing(said_so)) as (host, _):
        name = f"{host}/{repository}"
        made = here("merge", f"{name}:new", "--create", "--keep-staging", "--from", f"{name}:s")
        merged = here("merge", f"{name}:1", "--from", f"{name}:s")
        looked = here("inspect", f"{name}:1")
        missing = here("inspect", f"{name}:none")

    assert (made[0], merged[0], looked[0]) == (0, 0, 0), (made, merged, looked)
    assert (missing[0], "none: not found" in missing[2]) == (1, True)
    assert server.images(repository, "1")[AMD64] == server.images(repository, "new")[AMD64]


@pytest.mark.parametrize("body", [b"", b"<html>not found</html>", b'{"errors": [{"code": "SOMETHING"}]}'])
def test_a_404_that_says_something_else_is_no_missing_tag(server, repository, here, body):
    """It may be a proxy's; nothing is written."""
    server.push_index(repository, "s", [AMD64])

    with _before(server, answer=_missing(body)) as (host, _):
        name = f"{host}/{repository}"
        code, _, said = here("merge", f"{name}:new", "--create", "--from", f"{name}:s")

    assert (code, "new: not found (404" in said) == (1, True), said
    assert server.tags(repository) == {"s"}


@pytest.mark.parametrize(
    ("tokens", "says"),
    [("{host}", "may not do this"), ("127.0.0.1:1", "no answer")],
    ids=["no token to delete", "no token server"],
)
def test_a_merge_stands_where_the_staging_tag_cannot_be_taken_away(server, repository, here, tokens, says):
    """As with rights to push alone: the tag was written, so the result is told, exit code 3, and what is still there."""
    server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [ARM64], text="new")

    def ask(each):
        if each.path.startswith("/token"):
            each.status, each.body = 403, b'{"errors": [{"code": "DENIED"}]}'
        elif each.method == "DELETE":
            realm = f"http://{tokens.format(host=each.host)}/token"
            each.status, each.answered = 401, {"www-authenticate": f'Bearer realm="{realm}",service="x"'}

    with _before(server, ask=ask) as (host, _):
        name = f"{host}/{repository}"
        code, shown, said = here("merge", f"{name}:1", "--from", f"{name}:s")

    assert (code, shown.startswith(f"{name}@sha256:")) == (3, True), said
    assert f"{name}:s is still there: " in said
    assert says in said
    assert server.images(repository, "1")[ARM64] == server.images(repository, "s")[ARM64]


def _without(*names):
    """Answer without these headers, and never 304."""

    def ask(each):
        each.headers.pop("if-none-match", None)

    def answer(each):
        for name in names:
            each.answered.pop(name, None)

    return {"ask": ask, "answer": answer}


@pytest.mark.parametrize("names", [(), ("docker-content-digest", "etag")], ids=["no 304", "no digest"])
@pytest.mark.parametrize("docker", [False, True])
def test_a_merge_where_the_registry_tells_less(server, repository, here, docker, names):
    """The tag is read where no header tells what it names; of Docker's types there is nothing wrong with the Accept header."""
    target = server.push_image(repository, AMD64, tag="1", docker=docker)["digest"]
    image = server.push_image(repository, ARM64, tag="s", text="new", docker=docker)["digest"]

    with _before(server, **_without(*names)) as (host, seen):
        name = f"{host}/{repository}"
        code, shown, said = here("merge", f"{name}:1", "--from", f"{name}:s")

    assert (code, shown.startswith(f"{name}@sha256:")) == (0, True), said
    assert server.images(repository, "1") == {AMD64: [target], ARM64: [image]}
    assert server.get(repository, "s") is None
    assert sum(each[:2] == ("PUT", f"/v2/{repository}/manifests/1") for each in seen) == 1


@pytest.mark.parametrize("tag", ["1", "s"])
def test_what_another_pushed_meanwhile_is_noticed_where_no_header_tells(server, repository, here, tag):
    """A push before the last look is merged into, and a staging tag that names something else by then stays."""
    server.push_index(repository, "1", [AMD64])
    server.push_index(repository, "s", [ARM64], text="new")
    wanted = {name: server.images(repository, name) for name in ("1", "s")}
    less, platform, pushed = _without("docker-content-digest", "etag"), {"1": AMD64, "s": ARM64}[tag], []

    def ask(each):
        less["ask"](each)
        if not pushed and each.method == "PUT" and "slipway.record." in each.path:
            pushed.append(server.push_index(repository, tag, [platform], text="pushed"))

    with _before(server, ask=ask, answer=less["answer"]) as (host, _):
        name = f"{host}/{repository}"
        code, _, said = here("merge", f"{name}:1", "--from", f"{name}:s")

    again = server.images(repository, pushed[0])
    assert (code, "it was pushed again since it was merged" in said) == {"1": (0, False), "s": (3, True)}[tag], said
    assert server.images(repository, "1") == {**wanted["1"], **wanted["s"], **(again if tag == "1" else {})}
    assert server.images(repository, "s") == (again if tag == "s" else {})


def test_a_backup_is_taken_only_when_the_tag_changed_where_no_header_tells(server, repository, here):
    """As the old ones that have their time would else be pushed out by copies of the newest."""
    server.push_index(repository, "1", [AMD64, ARM64])

    with _before(server, **_without("docker-content-digest", "etag")) as (host, _):
        first, again = (here("backup", f"{host}/{repository}") for _ in range(2))

    assert (first[0], first[1].count("\n"), again[:2]) == (0, 1, (0, "")), again


def test_a_dropped_accept_header_is_noticed_where_304_is_said(server, repository, here):
    """A Docker list comes as its amd64 image then, which its digest tells as source too."""
    server.push_index(repository, "1", [AMD64, ARM64])
    server.push_index(repository, "s", [AMD64, ARM64], text="new", docker=True)

    with _before(server, ask=lambda each: each.headers.pop("accept", None)) as (host, _):
        code, shown, said = here("merge", f"{host}/{repository}:1", "--from", f"{host}/{repository}:s")

    assert (code, shown, "Accept header" in said) == (1, "", True), said


def test_verify_reads_one_byte_of_a_layer_where_the_registry_ignores_ranges(server, repository, here):
    """It hangs up then: a layer of any size is told whole, and one that breaks off before its first byte is not."""
    image = server.push_image(repository, AMD64, tag="1")["digest"]
    (layer,) = json.loads(server.get(repository, image))["layers"]
    sent, ranges = [b"x"], []

    def ask(each):
        if each.path.endswith(layer["digest"]):
            ranges.append(each.headers["range"])
            each.status, each.body, each.size = 200, sent[0], client.MAX_ANSWER_BYTES + 1

    with _before(server, ask=ask) as (host, _):
        whole = here("verify", "--deep", f"{host}/{repository}:1")
        sent[0] = b""
        broken = here("verify", "--deep", f"{host}/{repository}:1")

    assert (whole[0], "whole" in whole[1], ranges[0]) == (0, True, "bytes=0-0"), whole
    assert (broken[0], "cannot be read (cut off)" in broken[2]) == (1, True), broken
