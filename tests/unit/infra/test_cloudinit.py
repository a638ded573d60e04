"""infra.cloudinit: what a machine is told before the first contact."""

import yaml

from infra import cloudinit


def test_user_data_is_cloud_config_with_the_bootstrap_host_key_alone():
    """A key with line ends survives, and nothing else in it is secret."""
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"

    text = cloudinit.render(host_key=key, host_key_public="ssh-ed25519 AAAA bootstrap")

    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == {
        "disable_root": False,
        "locale": "C.UTF-8",
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": key, "ed25519_public": "ssh-ed25519 AAAA bootstrap"},
        "ssh_pwauth": False,
    }
    assert len(text.encode()) < cloudinit.LIMIT_BYTES
