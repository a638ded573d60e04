"""Collecting the garbage of the stack's own registry: what `slipway gc` has to be told is in the stack's outputs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import StackFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builders.state import State


@contextmanager
def arguments(state: State) -> Iterator[list[str]]:
    """Give the words of the command; the files that they name are gone afterwards."""
    told = state.outputs.get("registryCollection")
    if not told:
        raise StackFailed(
            "the stack tells of no registry",
            hint="set slipway:registry and run: slipway up; or name one: slipway gc HOST --namespace NAME --deployment NAME",
        )
    words = [str(each) for each in told["arguments"]]
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        if told.get("ca"):
            authority = Path(folder) / "ca.pem"
            authority.write_text(told["ca"])
            words += ["--ca", str(authority)]
        if kubeconfig := told.get("kubeconfig"):
            place = Path(folder) / "kubeconfig"
            if "\n" in kubeconfig or kubeconfig.lstrip().startswith("{"):
                place.write_text(kubeconfig)
            else:
                place = Path(kubeconfig).expanduser()
            words += ["--kubeconfig", str(place)]
        yield words


def user(state: State) -> tuple[str, str] | None:
    """Return a user of the registry with the password; None where everybody may pull."""
    return next(iter((state.outputs.get("registryUsers") or {}).items()), None)
