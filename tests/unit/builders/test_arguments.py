"""The arguments of `docker buildx build`, read as buildx reads them."""

import pytest

from builders import arguments
from builders.errors import InvalidSetting

DECIDED = ["--builder", "b", "--platform", "linux/arm64", "--metadata-file", "m"]


def _by_digest(*words, repositories=("r.test/app",)):
    read = arguments.parse(words)
    return read.by_digest(builder="b", platforms=["linux/arm64"], repositories=repositories, metadata_file="m")


@pytest.mark.parametrize(
    "words",
    [
        ["--tag", "r.test/app:1", "."], ["--tag=r.test/app:1", "."], ["-t", "r.test/app:1", "."], ["-tr.test/app:1", "."],
        ["-t=r.test/app:1", "."], ["-qt", "r.test/app:1", "."], [".", "-t", "r.test/app:1"],
        ["--build-arg", "--push", "-t", "r.test/app:1", "."], ["-t", "r.test/app:1", "--", "."],
    ],
)  # fmt: skip
def test_a_flag_is_read_in_every_spelling(words):
    """A value that looks like a flag is a value."""
    read = arguments.parse(words)

    assert (read.tags, read.context, read.push) == (("r.test/app:1",), ".", False)


def test_after_two_dashes_nothing_is_a_flag():
    """They are handed on, for buildx too has to know."""
    read = arguments.parse(["-t", "r.test/app:1", "--", "--push", "-t"])

    assert (read.tags, read.push, read.context, read.others) == (
        ("r.test/app:1",),
        False,
        "--push",
        ("--", "--push", "-t"),
    )


@pytest.mark.parametrize(
    ("words", "asked"),
    [(["--help"], True), (["-qh"], True), (["-h=false", "."], False), (["--help=false"], False), (["."], False)],
)
def test_whoever_asks_for_help_gets_it(words, asked):
    """Alone or in a group of letters, and not where it is said to be off."""
    assert arguments.parse(words).help is asked


def test_what_slipway_does_not_decide_is_handed_on_as_it_is():
    """In order, the context too."""
    words = ["--build-arg", "A=1,2", "-f", "sub/Dockerfile", "--no-cache", "--pull=false", "-q", "--secret=id=x", "."]

    assert arguments.parse(words).others == tuple(words)


def test_an_ordinary_build_has_the_same_arguments():
    """Builder, platforms and the file for buildx's answer are put in the place of the user's."""
    words = [
        "--builder",
        "x",
        "--platform=arm64",
        "--platform",
        "amd64",
        "-t",
        "a:1",
        "-t",
        "b:1",
        "--push",
        "-o",
        "d",
        ".",
    ]
    read = arguments.parse([*words, "--metadata-file", "mine"])

    assert read.platforms == ("arm64", "amd64")
    assert (read.builder, read.metadata_file) == ("x", "mine")
    assert read.ordinary(builder="b", platforms=["linux/arm64"], metadata_file="m") == [
        *DECIDED, "--tag", "a:1", "--tag", "b:1", "--output", "d", "--push", ".",
    ]  # fmt: skip


def test_what_was_not_to_be_pushed_is_not():
    """Neither at once nor by digest."""
    read = arguments.parse(["-t", "a:1", "-o", "out", "."])

    told = read.ordinary(builder="b", platforms=["linux/arm64"], metadata_file="m")

    assert told == [*DECIDED, "--tag", "a:1", "--output", "out", "."]
    assert _by_digest("-t", "a:1", "-o", "out", ".") == [*DECIDED, "--output", "type=local,dest=out", "."]
    assert _by_digest("-o", "-", ".") == [*DECIDED, "--output", "type=tar,dest=-", "."]


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        (["--push", "-t", "r.test/a:1", "-t", "r.test/b:1", "."], ("r.test/a:1", "r.test/b:1")),
        (["-o", "type=registry", "-t", "r.test/a:1", "."], ("r.test/a:1",)),
        (["-o", "type=image,push=true,name=r.test/a:1", "."], ("r.test/a:1",)),
        (["-o", 'type=image,push=true,"name=r.test/a:1,r.test/b:1"', "."], ("r.test/a:1", "r.test/b:1")),
        (["-o", "type=image,name=r.test/a:1", "--push", "."], ("r.test/a:1",)),
        (["-o", "type=image,name=r.test/a,push=true,push-by-digest=true", "."], ()),
        (["-o", "type=image,push=false", "-t", "r.test/a:1", "."], ()),
        (["--push=false", "-t", "r.test/a:1", "."], ()),
        (["--load", "-t", "r.test/a:1", "."], ()),
        (["-o", "folder", "-t", "r.test/a:1", "."], ()),
        (["-o", "type=docker,push=true,name=r.test/a:1", "."], ()),
        (["--push", "-t", "r.test/a:1", "-t", "r.test/a:1", "."], ("r.test/a:1",)),
    ],
)
def test_what_is_pushed_is_told(words, targets):
    """By --push, by an output, or by both; a push by digest moves no tag."""
    assert arguments.parse(words).targets() == targets


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (
            ["--push", "-t", "r.test/app:1", "."],
            "type=image,push=true,name=r.test/app,push-by-digest=true,name-canonical=true",
        ),
        (
            ["--push", "-o", "type=registry", "-t", "r.test/app:1", "."],
            "type=image,push=true,name=r.test/app,push-by-digest=true,name-canonical=true",
        ),
        (
            ["-o", "type=registry,compression=zstd", "-t", "r.test/app:1", "."],
            "type=image,compression=zstd,name=r.test/app,push=true,push-by-digest=true,name-canonical=true",
        ),
    ],
)
def test_a_push_by_digest_has_the_outputs_other_attributes_and_no_tag(words, output):
    """buildx refuses a tag there."""
    assert _by_digest(*words) == [*DECIDED, "--output", output, "."]


def test_a_push_by_digest_to_several_repositories_quotes_their_list():
    """The outputs are lines of CSV; one that pushes nothing stays."""
    words = _by_digest("--push", "-o", "out", "-t", "r.test/a:1", ".", repositories=["r.test/a", "r.test/b"])

    assert words == [
        *DECIDED, "--output", "type=local,dest=out", "--output",
        'type=image,push=true,"name=r.test/a,r.test/b",push-by-digest=true,name-canonical=true', ".",
    ]  # fmt: skip


def test_the_command_that_catches_up_tells_no_build_argument():
    """Their values may be secrets; tags and context are named."""
    read = arguments.parse(["--build-arg", "TOKEN=hush", "--push", "-t", "r.test/app:1", "my dir"])

    assert read.again(["linux/arm64"]) == "slipway build --platform linux/arm64 -t r.test/app:1 --push 'my dir'"
    output = arguments.parse(["-o", "type=registry", "-t", "r.test/app:1"])
    assert output.again(["linux/arm64"]) == "slipway build --platform linux/arm64 -t r.test/app:1 -o type=registry ."


@pytest.mark.parametrize(
    ("words", "reads"), [(["-"], True), (["-f", "-", "."], True), (["."], False), (["-f", "x", "."], False)]
)
def test_a_build_that_reads_stdin_is_known(words, reads):
    """It cannot be run twice."""
    assert arguments.parse(words).reads_stdin is reads


def test_slipways_own_flags_are_not_handed_on():
    """They stand among buildx's."""
    read = arguments.parse(["--wait", "5m", "--lock", "l", "--ca=ca.pem", "--plain-http", "-t", "a", "."])

    assert read.own == {"wait": "5m", "lock": "l", "ca": "ca.pem", "plain-http": "true"}
    assert read.others == (".",)


@pytest.mark.parametrize(
    "words",
    [
        ["-t"],
        ["--platform"],
        ["-o", "a,b", "."],
        ["-o", "push=true", "--push"],
        ["--push", "-o", 'type=image,"x', "-t", "a"],
    ],
)
def test_what_cannot_be_read_is_refused(words):
    """In one line, with what to do."""
    with pytest.raises(InvalidSetting) as refused:
        arguments.parse(words).targets()

    assert refused.value.hint
