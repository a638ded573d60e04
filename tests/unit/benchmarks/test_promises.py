"""The merge benchmark's judgement: a promise that was broken is told as one, whichever it is."""

import copy

import pytest

from scripts.benchmarks import __main__ as command
from scripts.benchmarks import promises, writers
from scripts.benchmarks.writers import Writer

TOOLS = {
    "slipway merge": {"seconds": 0.2, "whole": True},
    "buildx create": {"seconds": 0.4, "whole": False},
    "crane index append": {"seconds": 0.1, "whole": False},
    "regctl add+delete": {"seconds": 0.25, "whole": False},
    "regctl backup+add+delete": {"seconds": 0.3, "whole": True},
}
HELD = {
    "cases": [{"registry": "2.8", "round trip ms": ms, "platforms": 2, "tools": TOOLS} for ms in (0.0, 20.0)],
    "budgets": [
        {"registry": version, "from": source, "platforms": 2, "requests": requests, "round trips": 9}
        for version, source, requests in (
            ("2.8", "from a digest", 13), ("3.1", "from a digest", 13),
            ("2.8", "from a staging tag", 17), ("3.1", "from a staging tag", 15),
        )
    ],
    "start-up": 0.149,
    "tags": {"1": 17, "20000": 17},
    "writers": [
        {"registry": "2.8", "writers": 100, "acknowledged": 99, "in the tag": 2, "reported superseded": 97, "lost": 0,
         "platforms": 2, "unreadable": 0, "seconds": 50.0},
    ],
}  # fmt: skip


def _judge(measured):
    return promises.judge(measured, ours="slipway merge", near=("buildx create",), far=("regctl add+delete",))


def test_a_run_that_holds_everything_says_so_with_its_numbers():
    """A line for each promise; crane may be faster at 0 ms; regctl may not at 20, with a backup or without."""
    judged = _judge(HELD)

    assert all(each["held"] for each in judged)
    lines = promises.render(judged)
    assert "held      from a digest, registry 2.8: at most 9 + 2P requests for P platforms: 13 of 13" in lines
    assert "held      at 0 ms faster than buildx create: 0.50 to 0.50 of its time" in lines
    assert "held      slipway merge --help in less than 150 ms: 149 ms" in lines
    assert "held      a repository of 20000 tags costs no more requests than one of 1: 17 and 17" in lines


@pytest.mark.parametrize(
    ("place", "value", "broken"),
    [
        (("budgets", 0, "requests"), 14, "from a digest, registry 2.8"),
        (("budgets", 1, "requests"), 14, "from a digest, registry 3.1"),
        (("budgets", 2, "requests"), 18, "from a staging tag, registry 2.8"),
        (("budgets", 3, "requests"), 16, "from a staging tag, registry 3.1"),
        (("budgets", 3, "round trips"), 10, "round trips deep"),
        (("cases", 0, "tools", "buildx create", "seconds"), 0.2, "faster than buildx"),
        (("cases", 1, "tools", "regctl add+delete", "seconds"), 0.19, "faster than regctl add+delete"),
        (("cases", 1, "tools", "regctl backup+add+delete", "seconds"), 0.19, "the whole job"),
        (("start-up",), 0.15, "--help"),
        (("writers", 0, "lost"), 1, "100 writers"),
        (("writers", 0, "unreadable"), 1, "100 writers"),
        (("writers", 0, "platforms"), 1, "100 writers"),
        (("writers", 0, "acknowledged"), 0, "100 writers"),
        (("writers", 0, "acknowledged"), 50, "100 writers"),
        (("tags", "20000"), 18, "20000 tags"),
        (("tags", "20000"), 0, "20000 tags"),
    ],
)
def test_each_promise_can_be_broken(place, value, broken):
    """By the number that it is about, and no other promise with it."""
    measured = copy.deepcopy(HELD)
    *path, last = place
    part = measured
    for each in path:
        part = part[each]
    part[last] = value

    lines = [line for line in promises.render(_judge(measured)) if line.startswith("NOT HELD")]

    assert len(lines) == 1
    assert broken in lines[0]


def test_what_was_not_measured_is_not_held():
    """Neither registry's budget, nor a peer's time; a count of nothing is no count."""
    unmeasured = HELD | {"budgets": [], "tags": {"1": 17}}
    assert [each["held"] for each in _judge(unmeasured)] == [False] * 5 + [True] * 5 + [False]

    measured = HELD | {"budgets": HELD["budgets"][:1], "cases": HELD["cases"][:1]}

    assert [each["held"] for each in _judge(measured)] == [
        True,
        False,
        False,
        False,
        True,
        True,
        False,
        False,
        True,
        True,
        True,
    ]


def _writer(image, exit_code, replaced=()):
    return Writer(image=image, exit_code=exit_code, told={"replaced": {"linux/amd64": list(replaced)}, "attempts": 1})


def test_every_acknowledged_image_has_a_fate():
    """In the tag, told by its own writer, or told by the one that came after it; else it is lost. A failure promised nothing."""
    ended = [
        _writer("a", 0),
        _writer("b", 4),
        _writer("c", 0),
        _writer("d", 0, ["c"]),
        _writer("e", 0),
        _writer("f", 1),
    ]

    counts = writers.account(ended, {"linux/amd64": ["d"], "linux/arm64": ["a"]})

    assert {name: counts[name] for name in ("acknowledged", "in the tag", "reported superseded", "lost")} == {
        "acknowledged": 5, "in the tag": 2, "reported superseded": 2, "lost": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (1, 1)])
def test_a_broken_promise_is_the_exit_code(monkeypatch, capsys, lost, code):
    """So that whoever runs it in a script notices."""
    measured = copy.deepcopy(HELD)
    measured["writers"][0]["lost"] = lost
    measured["promises"] = _judge(measured)
    monkeypatch.setattr(command.merge, "measure", lambda: measured)
    monkeypatch.setattr(command.merge, "render", lambda found: "\n".join(promises.render(found["promises"])))

    assert command.main(["merge"]) == code
    assert ("NOT HELD" in capsys.readouterr().err) is bool(code)
