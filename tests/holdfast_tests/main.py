# SPDX-License-Identifier: Apache-2.0
"""The command line of tests/run."""

from __future__ import annotations

import argparse
import shutil
import time

from holdfast_tests.lanes import LANES, REPO, Plan
from holdfast_tests.results import Counts

# What all lanes' builds, the compiler's cache and the lab's images take on a fresh machine.
_GIGABYTES = 10


def _warn_of_little_room() -> None:
    """A full disk shows as a compiler's error somewhere; this line tells why beforehand."""
    free = shutil.disk_usage(REPO).free / 1e9
    built = (REPO / "build").is_dir()
    if not built and free < _GIGABYTES:
        print(f"warning: all lanes take about {_GIGABYTES} GB of disk in all, and {REPO} has "
              f"{free:.1f} GB left; free some, or run single lanes with tests/run --lane")


def main() -> int:
    """Runs the lanes and prints the closing line; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="tests/run", description="Runs the tests.")
    parser.add_argument("--long", action="store_true", help="the long forms (make soak)")
    parser.add_argument("--lane", action="append", choices=sorted(LANES),
                        help="only this lane; may be repeated")
    options = parser.parse_args()
    plan = Plan(long=options.long)
    total = Counts()
    if not options.lane:
        _warn_of_little_room()
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
