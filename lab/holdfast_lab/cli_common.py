# SPDX-License-Identifier: Apache-2.0
"""What the command lines of lab/run and lab/shell share."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
from pathlib import Path

from holdfast_lab import builder
from holdfast_lab.common import REPO, LabError, prune, say
from holdfast_lab.vm import Machine, parse_size

TIMED_OUT = 124


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what to boot with what inside."""
    parser.add_argument("--kernel", metavar="K", help="6.18, newest (default), sw-protected "
                        "(built on first use) or a folder with vmlinuz and lib/modules; also from "
                        "LAB_KERNEL")
    parser.add_argument("--memory", default="8G", metavar="SIZE", help="RAM of the lab (8G)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="CPUs of the lab (1)")
    parser.add_argument("--build", type=Path, metavar="DIR", help="build folder whose programs go "
                        "to /payload (default: build/release, else build/debug)")
    parser.add_argument("--payload", action="append", default=[], metavar="PATH[:DEST]",
                        help="put this file or folder into the lab instead of a build's programs; "
                        "DEST is absolute or relative to /payload; may be repeated")
    parser.add_argument("--debian", action="store_true", help="with a Debian system for guests on "
                        "the disk $DEBIAN (made on first use)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE",
                        help="environment of the commands")
    parser.add_argument("--boot-timeout", type=float, default=180, metavar="SECONDS",
                        help="how long the lab may take to boot (180)")
    parser.add_argument("--thread", choices=("single", "multi"), default="single",
                        help="how TCG runs the lab's CPUs (single; see README.md)")
    parser.add_argument("--append", default="", metavar="TEXT",
                        help="more words for the lab kernel's command line")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell the times")


def machine_for(options: argparse.Namespace) -> tuple[str, Machine]:
    """Builds the images and returns the kernel's name and the machine that the options ask for."""
    if not 1 <= options.cpus <= 64:
        raise LabError(f"--cpus {options.cpus}: between 1 and 64 are possible")
    memory = parse_size(options.memory)
    items = builder.parse_payload(options.payload)
    if options.build or not items:
        items = builder.default_payload(options.build and options.build.resolve()) + items
    name, machine = builder.prepare(options.kernel, items, options.debian)
    return name, dataclasses.replace(machine, memory_mib=memory, cpus=options.cpus,
                                     thread=options.thread, append=options.append)


def script_for(command: str, options: argparse.Namespace, kernel: str) -> str:
    """Wraps a shell command with the lab's environment."""
    lines = [f"export HOLDFAST_LAB={shlex.quote(kernel)}",
             f"export LAB_BOOT=/boot/lab/{shlex.quote(kernel)}",
             "export PATH=/payload/bin:/payload:/usr/sbin:/usr/bin",
             "cd /payload"]
    if options.debian:
        lines.append("export DEBIAN=/dev/vdc")
    for pair in options.env:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise LabError(f"--env {pair}: NAME=VALUE is needed")
        lines.append(f"export {name}={shlex.quote(value)}")
    return "\n".join([*lines, command, ""])


def log_path(kernel: str) -> Path:
    """Returns where this lab's log goes."""
    folder = REPO / "build" / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    prune(folder, "*.log*", keep=60)
    return folder / f"{kernel}-{os.getpid()}.log"


def remove_log(log: Path) -> None:
    """Removes the log files of a lab that ended well."""
    for path in (log, Path(f"{log}.qemu")):
        path.unlink(missing_ok=True)


def show_log(log: Path, lines: int = 60) -> None:
    """Shows the end of the lab kernel's log."""
    text = log.read_bytes().decode(errors="replace").splitlines() if log.exists() else []
    say(f"the end of {log}:\n" + "\n".join(f"  {line}" for line in text[-lines:]))
