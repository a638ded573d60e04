"""The Hetzner door against the local cloud: what an operator reads when the API cannot be used."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import hcloud
import httpx
import pytest
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import ServerCreatePublicNetwork

from builders.errors import CloudRefused, CloudUnreachable, InvalidSetting, TokenRejected
from builders.hetzner import PUBLIC_ENDPOINT, READ_WRITE_HINT, Hetzner

LABELS = {"managed-by": "slipway", "slipway-stack": "dev"}


@pytest.fixture
def hetzner(localcloud):
    """A project, reached as it should be."""
    return Hetzner(localcloud.token, localcloud.endpoint)


def test_an_empty_project_has_offers_and_nothing_of_ours(hetzner):
    """Types of both architectures are sold."""
    cloud = hetzner.load(LABELS)

    assert cloud.existing == ()
    assert {offer.architecture for offer in cloud.offers} == {"arm", "x86"}


@pytest.mark.parametrize("token", ["short", "x" * 64])
def test_a_rejected_token_is_told_with_the_setting(localcloud, token):
    """And never shown."""
    with pytest.raises(TokenRejected, match=f"Hetzner API {localcloud.endpoint}: unable to authenticate") as caught:
        Hetzner(token, localcloud.endpoint).load(LABELS)

    assert caught.value.hint == READ_WRITE_HINT
    assert token not in f"{caught.value} {Hetzner(token)!r}"


def test_a_missing_token_is_told_before_any_call():
    """With the command that sets it."""
    with pytest.raises(TokenRejected, match="hcloud:token: not set") as caught:
        Hetzner("")
    assert caught.value.hint == READ_WRITE_HINT


@pytest.mark.parametrize("token", ["secret\n", " secret", "sec\0ret", "s€cret"])
def test_a_token_that_cannot_be_sent_is_told_before_any_call_and_not_shown(token):
    """One read from a file ends with its line; the HTTP library shows what it refuses."""
    with pytest.raises(TokenRejected, match="hcloud:token: it has a blank, an end of line") as caught:
        Hetzner(token, "http://127.0.0.1:1/v1").load(LABELS)
    assert token.strip() not in str(caught.value)


def test_an_endpoint_that_does_not_answer_is_named():
    """With the reason."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(CloudUnreachable, match=rf"http://127\.0\.0\.1:{port}/v1: no answer \(.*Connection refused\)"):
        Hetzner("x", f"http://127.0.0.1:{port}/v1").load(LABELS)


@pytest.mark.parametrize("body", ["<html>log in</html>", "{}", "[]", "null"])
def test_an_endpoint_that_is_another_service_is_told_apart(body):
    """A proxy's page to log in, or whatever else answers well."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    def answer(listening):
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(f"{head}{body}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(
            CloudRefused, match=f"Hetzner API {endpoint}: what answers there is another service"
        ) as caught:
            Hetzner("x", endpoint).load(LABELS)
        with pytest.raises(CloudRefused, match="another service"):
            Hetzner("x", endpoint).address_prices()
        listening.shutdown(socket.SHUT_RDWR)
    assert caught.value.hint.startswith("correct hcloud:endpoint")


def test_an_endpoint_that_is_no_url_is_an_invalid_setting():
    """The line shows one that is."""
    with pytest.raises(InvalidSetting, match=f"'127.0.0.1:8765/v1' is no URL, for example {PUBLIC_ENDPOINT}"):
        Hetzner("x", "127.0.0.1:8765/v1")


def test_an_endpoint_without_the_version_is_told_apart(localcloud):
    """Its server answers, but knows no such call."""
    with pytest.raises(CloudRefused) as caught:
        Hetzner(localcloud.token, localcloud.endpoint.removesuffix("/v1")).load(LABELS)

    assert caught.value.hint == f"hcloud:endpoint ends with the API's version, as in {PUBLIC_ENDPOINT}"


def test_an_address_is_removed_once_its_server_has_let_go_of_it(localcloud, hetzner):
    """A server that is on its way out holds its addresses until it is gone."""
    client = hcloud.Client(localcloud.token, api_endpoint=localcloud.endpoint)
    address = client.primary_ips.create("ipv4", "kept", location=Location("fsn1"), labels=LABELS).primary_ip
    server = client.servers.create(
        "builder", ServerType("cx23"), Image(name="debian-12"), location=Location("fsn1"),
        public_net=ServerCreatePublicNetwork(ipv4=address),
    )  # fmt: skip
    for action in (server.action, *server.next_actions):
        action.wait_until_finished()
    (kept,) = hetzner.existing(LABELS)

    leaving = threading.Timer(0.5, server.server.delete)
    leaving.start()
    hetzner.remove(kept)
    leaving.join()

    assert hetzner.existing(LABELS) == ()


@pytest.mark.timeout(120)
def test_a_spent_rate_limit_is_waited_for_and_then_told(localcloud, hetzner):
    """The client tries again for half a minute; who goes on after that is the operator."""
    fault = {"kind": "error", "method": "GET", "path": "/server_types*", "code": "rate_limit_exceeded"}
    httpx.post(f"{localcloud.control}/faults", json={**fault, "times": 1}).raise_for_status()
    assert hetzner.offers()

    httpx.post(f"{localcloud.control}/faults", json={**fault, "times": None}).raise_for_status()
    with pytest.raises(CloudRefused, match="rate_limit_exceeded") as caught:
        hetzner.offers()

    assert caught.value.hint == "wait a minute: the project has 3600 calls an hour, for all tools together"
