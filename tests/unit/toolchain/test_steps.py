"""Steps overlap where they can, wait where they must, and fail alone."""

import threading

import pytest

from scripts.toolchain.errors import SetupError, StepsFailed
from scripts.toolchain.layout import Layout
from scripts.toolchain.steps import Run, Step, choose_next


@pytest.fixture
def layout(tmp_path):
    return Layout(checkout=tmp_path, cache=tmp_path / "cache")


def step(name, make=lambda _log: None, *, is_made=lambda: False, **options):
    return Step(name=name, part="tools", about_s=1, is_made=is_made, make=make, **options)


def test_a_step_waits_for_what_it_needs():
    """The next step is the first whose needs are no longer unfinished."""
    first, second = step("plugins", needs=("pulumi",)), step("buildx")

    assert choose_next([first, second], [], {"pulumi", "plugins", "buildx"}) is second
    assert choose_next([first, second], [], {"plugins", "buildx"}) is first


def test_a_lane_takes_one_step_at_a_time():
    """Two builds do not fight over the cores; a step of another lane goes ahead."""
    waiting = [step("buildx", lane="go"), step("image", lane="debian")]

    assert choose_next(waiting, [step("pulumi", lane="go")], set()).name == "image"


def test_independent_steps_overlap(layout):
    """Each of two steps ends only when the other has begun: in sequence they would wait for ever."""
    meeting = threading.Barrier(2, timeout=5)
    steps = [step("a", lambda _log: meeting.wait()), step("b", lambda _log: meeting.wait())]

    Run(layout, steps).run()

    assert not meeting.broken


def test_steps_run_in_the_order_of_their_needs(layout):
    """A step starts when what it needs is there."""
    made = []
    steps = [
        step("last", lambda _log: made.append("last"), needs=("first",)),
        step("first", lambda _log: made.append("first")),
    ]

    Run(layout, steps).run()

    assert made == ["first", "last"]


def test_a_failure_takes_along_only_what_needs_it(layout):
    """The other steps are made all the same, and the error names each that was not."""
    made = []

    def fail(_log):
        raise SetupError("no space left")

    steps = [step("image", fail), step("machine", needs=("image",)), step("buildx", lambda _log: made.append("buildx"))]

    with pytest.raises(StepsFailed) as caught:
        Run(layout, steps).run()

    assert str(caught.value) == "image: no space left\nmachine: left out, since it needs image"
    assert made == ["buildx"]


def test_what_another_run_made_meanwhile_is_not_made_again(layout):
    """Two runs at once make a thing once: the second looks again when it has the lock."""
    made = []

    Run(layout, [step("pulumi", lambda _log: made.append("pulumi"), is_made=lambda: True)]).run()

    assert made == []


def test_progress_says_what_how_far_and_how_long(layout, capsys):
    """Every start and end is a line with the count of finished steps."""
    Run(layout, [step("pulumi")]).run()

    assert capsys.readouterr().err.splitlines() == [
        "[0/1] pulumi: started, takes about 1 s",
        "[1/1] pulumi: done in 0 s",
    ]
