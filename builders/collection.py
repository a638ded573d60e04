"""Collecting the garbage of the stack's own registry: what `slipway gc` has to be told is in the stack's outputs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import StackFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builders.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the command is told: its words, a kubeconfig that is in no file, and a user of the registry with the password."""

    arguments: list[str]
    kubeconfig_content: str = field(repr=False)
    login: tuple[str, str] | None = field(repr=False)


@contextmanager
def told(state: State) -> Iterator[Told]:
    """Give it; the authority's file that the words name is gone afterwards."""
    found = state.outputs.get("registryCollection")
    if not found and state.outputs.get("registry"):
        raise StackFailed("the stack was brought up before this was in its outputs", hint="slipway up, then this again")
    if not found:
        raise StackFailed(
            "the stack has no registry",
            hint="set slipway:registry and run: slipway up; or name one: slipway gc HOST --namespace NAME --deployment NAME",
        )
    words = [str(each) for each in found["arguments"]]
    if found["kubeconfig"]:
        words.append(f"--kubeconfig={Path(found['kubeconfig']).expanduser()}")
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        if found["ca"]:
            authority = Path(folder) / "ca.pem"
            authority.write_text(found["ca"])
            words.append(f"--ca={authority}")
        yield Told(
            arguments=words,
            kubeconfig_content=found["kubeconfigContent"],
            login=next(iter((state.outputs.get("registryUsers") or {}).items()), None),
        )
