# SPDX-License-Identifier: Apache-2.0
"""The command line of lab/kernels."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from holdfast_lab import builder, kernels
from holdfast_lab.common import LabError, locked


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lab/kernels", description=(
        "Fetches the lab's kernels into the project's cache and prints where they are. The index "
        "is asked at most once a day; without a network the cache serves."))
    parser.add_argument("--refresh", action="store_true", help="ask the mirror now")
    parser.add_argument("--offline", action="store_true", help="use the cache only")
    parser.add_argument("--paths", metavar="NAME", help="print one kernel's vmlinuz and the test "
                        "guest's initrd for it, on one line")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    try:
        if options.paths:
            kernel, known = kernels.choose(options.paths)
            kernel = known.get(kernel.guests, kernel)
            with locked("images"):
                print(kernel.vmlinuz, builder.guest_initrd(kernel))
            return 0
        found = kernels.packaged(refresh=options.refresh, offline=options.offline)
    except LabError as error:
        print(f"lab/kernels: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({name: {**asdict(kernel), "vmlinuz": str(kernel.vmlinuz),
                                 "vmlinux": str(kernel.vmlinux), "modules": str(kernel.modules)}
                          for name, kernel in found.items()}, indent=2))
        return 0
    rows = [("NAME", "VERSION", "VMLINUZ", "MODULES")]
    rows += [(k.name, k.version, str(k.vmlinuz), str(k.modules)) for k in found.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0
