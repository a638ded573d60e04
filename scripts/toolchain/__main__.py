"""Set up what the project runs with; scripts/setup is the way in."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from scripts.toolchain.containers import container_step
from scripts.toolchain.debian import emulation_step, left_out, package_step
from scripts.toolchain.environment import python_steps, shell_exports
from scripts.toolchain.errors import SetupError
from scripts.toolchain.gomodules import go_steps
from scripts.toolchain.images import image_steps
from scripts.toolchain.layout import Layout, find_layout
from scripts.toolchain.steps import Run, Step
from scripts.toolchain.tarballs import tarball_steps
from scripts.toolchain.wrappers import needs_own_plugins, wrapper_step

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("python", "tools", "machines")
EXAMPLES = """\
parts, all of them if none is named:
  python    .venv with the locked dependencies: enough for pytest tests/unit
  tools     pulumi, buildx and Pulumi's plugins, where they are missing
  machines  images, BuildKit tarballs, packages and Kubernetes of the local cloud (Linux, root)

example: scripts/setup python && .venv/bin/pytest tests/unit
"""


def plan_steps(layout: Layout, parts: Sequence[str]) -> list[Step]:
    """Return the steps of `parts`, those that this host cannot make marked as blocked."""
    steps = [
        package_step("machines" if "machines" in parts else "python"),
        emulation_step(),
        *python_steps(layout),
        *go_steps(layout),
        wrapper_step(layout),
        *image_steps(layout),
        *tarball_steps(layout),
        container_step(layout),
    ]
    wanted = [step for step in steps if step.part in parts]
    reason = left_out()
    here = [replace(step, blocked=step.blocked or reason) if step.part == "machines" else step for step in wanted]
    return spread_blocks(here)


def spread_blocks(steps: Sequence[Step]) -> list[Step]:
    """Block what needs a missing step that is blocked; needs stand before those that need them."""
    spread: dict[str, Step] = {}
    for step in steps:
        reasons = [spread[need].blocked for need in step.needs if need in spread and not spread[need].is_made()]
        spread[step.name] = replace(step, blocked=step.blocked or next(filter(None, reasons), ""))
    return list(spread.values())


def set_up(layout: Layout, parts: Sequence[str]) -> None:
    """Make what is missing, and say in a line what this host cannot have."""
    steps = plan_steps(layout, parts)
    missing = [step for step in steps if not step.is_made()]
    for reason in sorted({step.blocked for step in missing if step.blocked}):
        names = ", ".join(step.name for step in missing if step.blocked == reason)
        print(f"setup: left out, {reason}: {names}", file=sys.stderr)
    if makeable := [step for step in missing if not step.blocked]:
        began = time.monotonic()
        layout.cache.mkdir(parents=True, exist_ok=True)
        Run(layout, makeable).run()
        print(f"setup: done in {time.monotonic() - began:.0f} s", file=sys.stderr)


def check(layout: Layout, parts: Sequence[str]) -> int:
    """Print what is there and what would be made; 0 if nothing is missing."""
    everything = True
    for step in plan_steps(layout, parts):
        if step.is_made():
            print(f"there    {step.name}")
        else:
            everything = False
            print(f"missing  {step.name}: {step.blocked or f'would be made in about {step.about_s} s'}")
    return 0 if everything else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/setup",
        description="Set up what the project runs with. Repeating it costs nothing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="python, tools or machines")
    ask = parser.add_mutually_exclusive_group()
    ask.add_argument("--check", action="store_true", help="say what is there and what would be made")
    ask.add_argument("--env", action="store_true", help="print the export lines for your shell")
    options = parser.parse_args(argv)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"{unknown[0]}: no such part; choose from {', '.join(PARTS)}")
    layout, parts, code = find_layout(), options.parts or list(PARTS), 0
    try:
        if options.env:
            print(shell_exports(layout, os.environ, own_plugins=needs_own_plugins(layout)), end="")
        elif options.check:
            code = check(layout, parts)
        else:
            set_up(layout, parts)
        if sys.stdout:  # it may have been closed from the beginning
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SetupError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
