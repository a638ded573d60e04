"""Three merges at once: the search of the unit tests, each round trip taken as one step, for a minute or two."""

import functools
import gc
import importlib.util
import sys
from pathlib import Path

import pytest

from scripts.registry import manifests, merge

SOURCE = Path(__file__).parents[2] / "unit" / "registry" / "test_interleavings.py"


@pytest.mark.timeout(1200)  # two minutes of one core
def test_three_writers_lose_nothing_unseen(monkeypatch, capsys):
    """Two of them for one platform, one may die: what was acknowledged is in the tag, or `verify` names it.

    Each tries twice and then gives up, which bounds the search; whoever gives up has acknowledged nothing.
    """
    spec = importlib.util.spec_from_file_location("interleavings", SOURCE)
    search = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "interleavings", search)
    spec.loader.exec_module(search)
    monkeypatch.setattr(merge, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(manifests, "parse", functools.cache(manifests.parse))  # of few bodies, a hundred thousand times
    three = search.Search(
        (search.AMD64, search.ARM64, search.AMD64), crashes=1, ticks=False, whole=True, limit=5_000_000
    )

    gc.disable()  # it would go through a million states again and again, and finds nothing
    try:
        violation = three.run()
    finally:
        gc.enable()

    with capsys.disabled():
        sys.stdout.write(f" {three.explored} states, {three.ends} ends ")
    assert not violation
