"""The docs: what they tell to type exists, and every setting and error is told."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from builders import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def _commands(page):
    """Yield each command line of a page's shell blocks, `$ ` or not, without comments."""
    for block in re.findall(r"```(?:sh|console|text)\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            yield line.removeprefix("$ ").strip()


def _lines(program):
    return sorted({line for page in PAGES for line in _commands(page) if f"{line} ".startswith(f"{program} ")})


@pytest.mark.parametrize("line", _lines("slipway"))
def test_every_slipway_command_in_the_docs_is_one(line):
    """The command line's own parser takes it."""
    arguments = shlex.split(line, comments=True)[1:]
    until = next((place for place, word in enumerate(arguments) if word in {"|", ">", "&&", ";"}), len(arguments))

    assert cli._parser().parse_args(arguments[:until])


@pytest.mark.parametrize(
    "line",
    _lines("scripts/demo") + _lines("scripts/test") + _lines("scripts/setup") + _lines("scripts/bench"),
)
def test_every_script_in_the_docs_is_there(line):
    """And may be run."""
    script = ROOT / shlex.split(line, comments=True)[0]

    assert script.is_file()
    assert script.stat().st_mode & 0o111


def test_every_link_of_the_docs_leads_somewhere():
    """Links between pages and to files of the checkout."""
    broken = [
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert broken == []


def _errors():
    """Yield the fixed parts of every error message in operate.md's table; the API's own codes are not ours."""
    table = (ROOT / "docs" / "operate.md").read_text().partition("| error | cure |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        for message in re.findall(r"`((?:[^`\\]|\\.)+)`", row.split(" | ")[0]):
            if not re.fullmatch(r"[a-z_]+_(error|exceeded)", message):
                yield from (part.strip() for part in re.split(r"…|\\`|'", message) if part.strip())


@pytest.mark.parametrize("part", sorted(set(_errors())))
def test_every_error_in_the_docs_is_one_that_the_code_tells(part):
    """A message that was reworded must be reworded there too."""
    assert part in "".join(
        path.read_text() for package in ("builders", "infra") for path in (ROOT / package).rglob("*.py")
    )


def test_every_setting_is_told_in_the_readme_or_in_operate():
    """Pulumi.yaml holds type, default and description; the docs say what it is for."""
    told = (ROOT / "README.md").read_text() + (ROOT / "docs" / "operate.md").read_text()

    assert [key for key in yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"] if key not in told] == []
