"""What goes to the cluster: passwords as a registry reads them, and a program that a ConfigMap holds."""

import bcrypt
import pytest

from builders import passwords, registry_program
from builders.errors import ProgramTooLarge
from scripts.registry import archive, mode


def test_a_password_is_long_random_and_hashed_as_htpasswd_has_it():
    """bcrypt, the only form that a registry takes."""
    password = passwords.generate()
    hashed = passwords.bcrypt_hash(password)

    assert len(password) >= 32
    assert hashed.startswith("$2b$")
    assert bcrypt.checkpw(password.encode(), hashed.encode())


def test_the_program_fits_into_a_config_map():
    """It is the verbs of scripts.registry as one file."""
    assert registry_program.pack() == archive.pack()
    assert len(registry_program.pack()) < registry_program.LIMIT_BYTES
    assert registry_program.ENTRYPOINT == mode.ENTRYPOINT
    assert registry_program.mode_config_map("registry") == "registry-mode"


def test_a_program_that_no_config_map_holds_is_told_before_anything_is_made(monkeypatch):
    """With its size and the limit."""
    monkeypatch.setattr(archive, "pack", lambda: bytes(1024 * 1024))

    with pytest.raises(
        ProgramTooLarge, match=r"^slipway-registry\.pyz: 1048576 bytes, and a ConfigMap holds less than 1048576$"
    ):
        registry_program.pack()
