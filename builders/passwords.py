"""The bcrypt door: passwords for people and jobs that log in to the registry."""

from __future__ import annotations

import secrets

import bcrypt

_BYTES = 24
_ROUNDS = 5  # the registry checks at every request, and nobody guesses 24 random bytes; cost would only slow pushes


def generate() -> str:
    """Make a password of 192 random bits that needs no quoting anywhere."""
    return secrets.token_urlsafe(_BYTES)


def bcrypt_hash(password: str) -> str:
    """Hash a password as htpasswd files have it."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(_ROUNDS)).decode()
