"""Every way in which paramiko can fail has its place in our tree of errors."""

from __future__ import annotations

import inspect
import socket

import paramiko
import pytest
from paramiko import ssh_exception

from builders import ssh
from builders.errors import HostKeyMismatch, LoginRefused, NodeUnreachable

REFUSED_LOGIN = {
    "AuthenticationException",
    "BadAuthenticationType",
    "PartialAuthentication",
    "PasswordRequiredException",
    "UnableToAuthenticate",
}
NO_CONTACT = {
    "ChannelException",
    "ConfigParseError",
    "CouldNotCanonicalize",
    "IncompatiblePeer",
    "MessageOrderError",
    "NoValidConnectionsError",
    "ProxyCommandFailure",
    "SSHException",
}
# A server's answer, SFTP and keys by type name: nothing here uses them.
NOT_USED = {"AuthFailure", "SFTPError", "UnknownKeyType"}


def _public_exceptions() -> set[str]:
    return {
        name
        for module in (paramiko, ssh_exception)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
    }


def _make(name: str) -> Exception:
    kind = getattr(ssh_exception, name, None) or getattr(paramiko, name)
    arguments = {
        "BadAuthenticationType": ("bad", ["password"]),
        "BadHostKeyException": ("host", paramiko.RSAKey.generate(1024), paramiko.RSAKey.generate(1024)),
        "ChannelException": (1, "administratively prohibited"),
        "NoValidConnectionsError": ({("198.51.100.1", 22): OSError("refused")},),
        "ProxyCommandFailure": ("nc", "gone"),
        "UnableToAuthenticate": ("no way left", []),
    }.get(name, (f"a {name}",))
    return kind(*arguments)


def test_every_public_exception_of_paramiko_is_named_here():
    """A new release of paramiko that can fail in a new way fails this test first."""
    assert _public_exceptions() == REFUSED_LOGIN | NO_CONTACT | NOT_USED | {"BadHostKeyException"}


@pytest.mark.parametrize("name", sorted(REFUSED_LOGIN))
def test_a_refused_login_is_one(name):
    """The network works; the key does not."""
    assert isinstance(ssh._translate(_make(name), "amd64-1"), LoginRefused)


@pytest.mark.parametrize("name", sorted(NO_CONTACT))
def test_the_rest_means_no_contact(name):
    """These may pass by themselves while a machine boots."""
    assert isinstance(ssh._translate(_make(name), "amd64-1"), NodeUnreachable)


def test_a_bad_host_key_is_never_mistaken_for_a_network_failure():
    """It must not be tried again."""
    assert isinstance(ssh._translate(_make("BadHostKeyException"), "amd64-1"), HostKeyMismatch)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "node amd64-1: Connection refused"),
        (TimeoutError("timed out"), "node amd64-1: it did not answer in time"),
        (EOFError(), "node amd64-1: it closed the connection"),
        (socket.gaierror(-2, "Name or service not known"), "node amd64-1: Name or service not known"),
        (paramiko.SSHException("Error reading SSH protocol banner"), "node amd64-1: Error reading SSH protocol banner"),
    ],
)
def test_the_reason_is_one_plain_line(error, text):
    """No class names, no numbers of the system."""
    assert str(ssh._translate(error, "amd64-1")) == text


def test_a_programming_error_is_not_dressed_up():
    """What nobody foresaw keeps its traceback."""
    with pytest.raises(KeyError):
        ssh._translate(KeyError("x"), "amd64-1")
