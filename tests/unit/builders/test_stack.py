"""What the `pulumi` command said, in our words."""

from builders import stack


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
