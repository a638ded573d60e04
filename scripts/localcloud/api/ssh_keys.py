"""/ssh_keys: public keys that new servers let in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from scripts.localcloud.api.call import (
    Call,
    Reply,
    Routes,
    check_labels,
    check_name,
    created,
    listing,
    no_content,
    ok,
    timestamp,
)
from scripts.localcloud.errors import invalid_input, not_unique
from scripts.localcloud.records import SshKey

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /ssh_keys": list_ssh_keys,
        "POST /ssh_keys": create,
        "GET /ssh_keys/{id}": get,
        "PUT /ssh_keys/{id}": update,
        "DELETE /ssh_keys/{id}": delete,
    }


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a creation."""

    name: str
    public_key: str
    labels: dict[str, str] | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    name: str | None = None
    labels: dict[str, str] | None = None


def list_ssh_keys(cloud: Cloud, call: Call) -> Reply:
    """List keys, by name or fingerprint where asked."""
    keys = cloud.store.all(SshKey)
    if fingerprint := call.first("fingerprint"):
        keys = tuple(key for key in keys if key.fingerprint == fingerprint)
    return listing(call, "ssh_keys", keys, to_json)


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one key."""
    return ok(ssh_key=to_json(cloud.find(SshKey, "SSH key", call.id())))


def create(cloud: Cloud, call: Call) -> Reply:
    """Add a key; the same key twice is refused whatever its name."""
    body = call.decode(Create)
    labels, keys = check_labels(body.labels), cloud.store.all(SshKey)
    fingerprint = _fingerprint(body.public_key)
    check_name("SSH key", body.name, keys)
    if any(key.fingerprint == fingerprint for key in keys):
        raise not_unique("SSH key", "public_key", "SSH key with the same fingerprint already exists")
    cloud.check_limit("ssh_keys", SshKey)
    key = SshKey(
        id=cloud.store.next_id(),
        name=body.name,
        public_key=body.public_key,
        fingerprint=fingerprint,
        labels=labels,
        created=cloud.clock.now(),
    )
    return created(ssh_key=to_json(cloud.store.put(key)))


def update(cloud: Cloud, call: Call) -> Reply:
    """Change name or labels."""
    key, body = cloud.find(SshKey, "SSH key", call.id()), call.decode(Update)
    if body.name is not None:
        check_name("SSH key", body.name, cloud.store.all(SshKey), but=key.id)
        key = replace(key, name=body.name)
    if body.labels is not None:
        key = replace(key, labels=check_labels(body.labels))
    return ok(ssh_key=to_json(cloud.store.put(key)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Remove a key; servers that have it keep it."""
    cloud.store.remove(cloud.find(SshKey, "SSH key", call.id()))
    return no_content()


def to_json(key: SshKey) -> dict[str, Any]:
    """Write a key in wire form."""
    return {
        "id": key.id,
        "name": key.name,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "labels": key.labels,
        "created": timestamp(key.created),
    }


def _fingerprint(line: str) -> str:
    """Give the MD5 fingerprint of an OpenSSH public key line, as the vendor shows it."""
    parts = line.split()
    try:
        blob = base64.b64decode(parts[1], validate=True)
        size = struct.unpack(">I", blob[:4])[0]
        sound = blob[4 : 4 + size].decode() == parts[0]
    except (IndexError, binascii.Error, struct.error, UnicodeDecodeError):
        sound = False
    if not sound:
        raise invalid_input(("public_key", "is not a public key in OpenSSH format"))
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[start : start + 2] for start in range(0, len(digest), 2))
