"""Read a registry's storage from the place where it is."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from scripts.registry.collection import commands, store
from scripts.registry.errors import StoreUnreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.registry.collection.places import Place
    from scripts.registry.collection.store import References, Store

_ATTEMPTS = 3
_BATCH_BYTES = 64 << 20


def read(place: Place, *, known: Mapping[str, References] | None = None) -> Store:
    """Return the storage's value; manifests in `known`, from an earlier reading, are not read again.

    What changes while it is read (a deletion, a push of 2.8, which writes files in place) makes it begin again, twice at
    most.
    """
    for _ in range(_ATTEMPTS - 1):
        with suppress(StoreUnreadable):
            return _read(place, known or {})
    return _read(place, known or {})


def _read(place: Place, known: Mapping[str, References]) -> Store:
    done = place.sh(commands.LIST)
    if done.code:
        raise StoreUnreadable(
            f"the registry's storage, {place.name}: it cannot be listed ({done.said})",
            hint="see that the registry's user may read all of it",
        )
    found = store.parse(done.text)
    found.references.update((digest, each) for digest, each in known.items() if digest in found.blobs)
    pending = dict(found.to_read(found.references))
    while pending:
        batch: dict[str, int] = {}
        size = 0
        while pending and size < _BATCH_BYTES:
            digest, bytes_ = pending.popitem()
            batch[digest] = bytes_
            size += bytes_
        store.learn(found, _contents(place, batch))
    return found


def _contents(place: Place, sizes: Mapping[str, int]) -> dict[str, bytes]:
    names = "".join(f"{path_of(digest)}\n" for digest in sizes).encode()
    done = place.sh(commands.READ, str(len(names)), stdin=names)
    if done.code:
        raise StoreUnreadable(f"the registry's manifests, {place.name}: they cannot be read ({done.said})")
    return store.cut(done.out, sizes)


def path_of(digest: str) -> str:
    """Return where a blob's content is."""
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded[:2]}/{encoded}/data"
