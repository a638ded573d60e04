"""The bootstrap host key is retired on a real machine: also while something else writes sshd's configuration."""

from __future__ import annotations

import pytest

from builders import hostkeys, readiness
from builders.errors import HostKeyMismatch, RemoteCommandFailed

pytestmark = [pytest.mark.root, pytest.mark.tools, pytest.mark.timeout(300)]

CONFIG = "/etc/ssh/sshd_config"


def test_retirement_waits_for_a_configuration_that_is_being_written_and_refuses_one_that_stays_wrong(make_node):
    """An emptied file for two seconds is nothing; a second HostKey is told, and the old key stays until it is gone."""
    node = make_node("amd64")
    with node.connect() as connection:
        readiness.wait_for_cloud_init(connection)  # it may restart sshd, in between too
        key = hostkeys.make_final(connection)
        connection.run(f"echo HostKey /etc/ssh/ssh_host_ed25519_key >> {CONFIG}")
        with pytest.raises(RemoteCommandFailed, match=f"{node.name}: .*sshd would serve: .*ssh_host_ed25519_key"):
            hostkeys.retire_bootstrap(connection)
    with node.connect() as connection:
        connection.run(f"sed -i '$d' {CONFIG}; cp {CONFIG} /root/whole; : > {CONFIG}")
        connection.run(f"(sleep 2; cat /root/whole > {CONFIG}) > /dev/null 2>&1 &")
        hostkeys.retire_bootstrap(connection)
        assert connection.run("ls /etc/ssh/ssh_host_* 2> /dev/null || true") == ""

    with node.connect(key) as connection:
        assert connection.run("true") == ""
    with pytest.raises(HostKeyMismatch):
        node.connect().__enter__()
