"""The command: `scripts/bench fleet`, `scripts/bench merge`, `scripts/bench gc`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import TYPE_CHECKING

from scripts.benchmarks import collection, fleet, merge
from scripts.benchmarks.stage import StageFailed

if TYPE_CHECKING:
    from collections.abc import Sequence


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark: the table goes to standard error, JSON to standard output; 1 where a promise was not held."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure Slipway on this host, beside what others need for the same. The table goes to standard error, JSON "
        "to standard output. Exit codes: 0 done, 1 failed or a promise was not held, 2 wrong usage, 130 interrupted.",
        epilog="example: scripts/bench merge > merge.json",
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    help_ = "time `pulumi up` for 1, 2 and 4 AMD64 builders, beside what this host takes for the bare steps"
    benchmarks.add_parser("fleet", help=help_, description=help_, epilog="example: scripts/bench fleet > fleet.json")
    help_ = "count the requests and time of putting a platform into a tag, beside buildx, crane and regctl"
    benchmarks.add_parser("merge", help=help_, description=help_, epilog="example: scripts/bench merge > merge.json")
    help_ = (
        "collect storages of 100, 1,000 and 10,000 images, beside what would be ideal and registry 2.8's own collection"
    )
    benchmarks.add_parser("gc", help=help_, description=help_, epilog="example: scripts/bench gc > gc.json")
    benchmark = {"fleet": fleet, "merge": merge, "gc": collection}[parser.parse_args(argv).benchmark]
    for each in _SIGNALS:
        signal.signal(each, _interrupted)
    try:
        measured = benchmark.measure()
    except KeyboardInterrupt:
        return 130
    except StageFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(benchmark.render(measured), file=sys.stderr)
    print(json.dumps(measured, indent=2))
    return 0 if all(each["held"] for each in measured.get("promises", ())) else 1


def _interrupted(_number: int, _frame: object) -> None:
    for each in _SIGNALS:  # once is enough: what was started has to be ended
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
