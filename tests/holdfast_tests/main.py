# SPDX-License-Identifier: Apache-2.0
"""The command line of tests/run."""

from __future__ import annotations

import argparse
import time

from holdfast_tests.lanes import LANES, Plan
from holdfast_tests.results import Counts


def main() -> int:
    """Runs the lanes and prints the closing line; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="tests/run", description="Runs the tests.")
    parser.add_argument("--long", action="store_true", help="the long forms (make soak)")
    parser.add_argument("--lane", action="append", choices=sorted(LANES),
                        help="only this lane; may be repeated")
    options = parser.parse_args()
    plan = Plan(long=options.long)
    total = Counts()
    for name in options.lane or LANES:
        print(f"== {name}: {(LANES[name].__doc__ or '').splitlines()[0]}", flush=True)
        start = time.monotonic()
        counts = LANES[name](plan)
        print(f"   {counts.line()} in {time.monotonic() - start:.0f} s", flush=True)
        total.add(counts)
    if total.skips:
        print("\nskipped:")
        for skip in total.skips:
            print(f"  {skip}")
    if total.failures:
        print("\nfailed:")
        for failure in total.failures:
            print(f"  {failure}")
    print()
    print(total.line())
    return 1 if total.failed else 0
