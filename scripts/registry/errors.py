"""What can go wrong with a registry; every message names the thing, what happened and what to do.

RegistryError
├── InvalidReference (ValueError)   a reference that cannot be read
├── InvalidManifest (ValueError)    content that is no manifest, or not the one that was asked for
├── SourceRefused (ValueError)      a source that cannot be merged as it is
├── NotFound (LookupError)          no such tag, manifest or repository
├── AccessDenied (PermissionError)  401 and 403
├── CredentialsUnreadable           Docker's configuration or a credential helper
├── ReadOnly                        the registry takes no writes now
├── DeleteDisabled                  the registry deletes nothing
├── RegistryFailed                  it answered what it should not
├── RegistryUnreachable             it did not answer
├── VerificationFailed              what is stored is not what was written
├── Contended                       other writers never let go of the tag
├── StoreUnreadable                 the registry's files cannot be read, or not as its own
├── StoreDamaged                    the registry's files are not as they should be: nothing may be collected
├── CollectionStopped               a collection went no further than was safe
├── PlaceUnreachable                the host, pod or API server that has the registry does not answer
└── Locked                          somebody else holds the lock
"""

from __future__ import annotations


class RegistryError(Exception):
    """Any foreseeable failure; `str()` is the one line for the user, `hint` the next thing to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidReference(RegistryError, ValueError):
    """A reference or a platform that cannot be read."""


class InvalidManifest(RegistryError, ValueError):
    """Content that is no manifest, or has not the digest that was asked for."""


class SourceRefused(RegistryError, ValueError):
    """A source that cannot be merged as it is."""


class NotFound(RegistryError, LookupError):
    """The registry has no such tag, manifest or repository."""


class AccessDenied(RegistryError, PermissionError):
    """The registry wants other credentials, or these may not do it."""


class CredentialsUnreadable(RegistryError):
    """Docker's config.json or a credential helper cannot be used."""


class ReadOnly(RegistryError):
    """The registry is in maintenance: it reads and does not write."""


class DeleteDisabled(RegistryError):
    """The registry is configured not to delete."""


class RegistryFailed(RegistryError):
    """The registry, or something before it, answered what it should not; `status` is HTTP's."""

    def __init__(self, message: str, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class RegistryUnreachable(RegistryError, ConnectionError):
    """The registry did not answer."""


class VerificationFailed(RegistryError):
    """What is stored is not what was written, or cannot be read back."""


class Contended(RegistryError):
    """Other writers changed the tag again and again."""


class Locked(RegistryError):
    """Another process holds the lock."""


class StoreUnreadable(RegistryError):
    """The registry's files cannot be read, or not as what they are taken for."""


class StoreDamaged(RegistryError):
    """The registry's files are not as they should be; `damages` says which, each with its repair."""

    def __init__(self, message: str, *, damages: tuple[object, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.damages = damages


class CollectionStopped(RegistryError):
    """A collection went no further than was safe."""


class PlaceUnreachable(RegistryError, ConnectionError):
    """What the registry runs on does not answer, or refuses."""
