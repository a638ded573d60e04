"""What the `pulumi` command said, in our words."""

import pytest

from builders import stack
from builders.errors import InvalidSetting, StackFailed


def test_a_failure_is_told_with_its_details():
    """Those of a file that cannot be read stand in lines of their own; what follows them is something else."""
    said = """\
warning: a new version is there
error: getting stack configuration: yaml: unmarshal errors:
  line 3: mapping key "slipway:address" already defined at line 2
Usage: pulumi
"""

    assert str(stack._failure(said)) == (
        "pulumi: getting stack configuration: yaml: unmarshal errors: "
        'line 3: mapping key "slipway:address" already defined at line 2'
    )


def test_a_failure_without_a_word_is_told_as_one():
    """Not as an empty line."""
    assert str(stack._failure("\n")) == "pulumi: it ended badly and said nothing"


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        ("error: no stack selected; please use `pulumi stack select`", "no stack is selected", "slipway -s NAME"),
        ("error: no stack named 'prod' found", "no stack named 'prod' found", "pulumi stack init NAME makes one"),
        ("warning: a new version\nerror: incorrect passphrase", "the stack's passphrase is wrong", "correct PULUMI_"),
        ("error: PULUMI_ACCESS_TOKEN must be set for login", "pulumi is not logged in", "pulumi login file://FOLDER"),
        (
            "error: [409] Conflict: Another update is currently in progress.",
            "another update of this stack is in progress",
            "wait for that run to end",
        ),
        (
            "error: the stack is currently locked by 1 lock(s).\n  x: created by ann@laptop (pid 7) at 2026-11-23T23:20:48Z",
            "the stack is locked by ann@laptop (process 7, since 2026-11-23T23:20:48Z)",
            "if it is dead: pulumi cancel",
        ),
    ],
)
def test_a_failure_that_can_be_cured_is_told_with_its_cure(said, message, hint):
    """In our words, or in the command's own where they name something."""
    failed = stack._failure(said)

    assert str(failed).startswith(message)
    assert hint in failed.hint
    assert isinstance(failed, stack.Locked) is ("lock" in message or "another" in message)


def test_pulumi_cloud_does_not_say_who_holds_the_lock():
    """So nobody can be taken for dead."""
    assert not stack._failure("Another update is currently in progress").dead


def test_the_project_is_looked_for_in_the_folders_above(tmp_path):
    """As pulumi does; the nearest one decides, be it ours or not."""
    (tmp_path / "Pulumi.yaml").write_text("name: slipway # ours\n")
    for name, project in (("below", None), ("another", "name: shop\n")):
        (tmp_path / name / "deeper").mkdir(parents=True)
        if project:
            (tmp_path / name / "Pulumi.yml").write_text(project)
    settings = tmp_path / "mine.yaml"
    settings.write_text("")

    found = stack.open_stack(tmp_path / "below/deeper", "dev", settings)

    assert found == stack.Stack(folder=tmp_path, name="dev", settings=settings)
    assert stack.open_stack(tmp_path, None, None) == stack.Stack(folder=tmp_path)
    with pytest.raises(StackFailed, match="this is not in a Slipway project"):
        stack.open_stack(tmp_path / "another/deeper", None, None)
    with pytest.raises(InvalidSetting, match="none: no such folder"):
        stack.open_stack(tmp_path / "none", None, None)


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("image debian-21 for architecture arm not found", "correct slipway:image"),
        ("unable to authenticate (unauthorized, c0ffee)", "pulumi config set --secret hcloud:token"),
        ("failed to read resource state due to unreachable cluster. If the cluster was", "pulumi up --run-program"),
        ("kubeconfig: no context x; give a kubeconfig and one of its contexts", "pulumi up --run-program"),
        ("server deletion is protected (protected, c0ffee)", "take that off there"),
        ("API request failed\n\nError code: protected\nStatus code: 423", "take that off there"),
        ("cannot be deleted\nbecause it is protected.", "slipway:protect"),
        ("SSH key name is already used (uniqueness_error)", "another stack of this name"),
    ],
)
def test_what_engine_and_providers_say_has_a_cure(said, cure):
    """The vendor's two kinds of resources tell the API's code each in their own way."""
    assert cure in (stack._hint([said]) or "")


def test_what_nobody_knows_a_cure_for_has_none():
    """Whatever words it shares with one that has."""
    assert stack._hint(["the field is protected: no"]) is None
