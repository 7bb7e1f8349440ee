# SPDX-License-Identifier: Apache-2.0
"""The command line of lab/run."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from holdfast_lab import cli_common
from holdfast_lab.common import LabError, say
from holdfast_lab.vm import Lab, LabDied, Machine

_EPILOG = """The exit status is that of the first command that failed, 124 when the lab hung or
died, 1 when it could not be started. A single COMMAND that contains spaces is a shell command."""


def _commands(options: argparse.Namespace) -> list[str]:
    commands = []
    if options.commands:
        try:
            text = options.commands.read_text(encoding="utf-8")
        except OSError as error:
            raise LabError(f"--commands {options.commands}: {error.strerror}") from error
        commands = [line for line in map(str.strip, text.splitlines())
                    if line and not line.startswith("#")]
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if words:
        commands.append(words[0] if len(words) == 1 else shlex.join(words))
    if not commands:
        raise LabError("no command given; usage: lab/run [OPTIONS] -- COMMAND...")
    return commands


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _run_one(lab: Lab, command: str, options: argparse.Namespace, kernel: str) -> int:
    start = time.monotonic()
    several = options.commands is not None
    if several:
        print(f"lab: [{kernel}] $ {command}", flush=True)
    status = lab.run(cli_common.script_for(command, options, kernel), options.timeout, _write,
                     options.silence)
    if several:
        print(f"lab: [{kernel}] exit {status} after {time.monotonic() - start:.1f} s", flush=True)
    return status


def _run_all(machine: Machine, kernel: str, options: argparse.Namespace) -> int:
    """Runs the commands; starts a new lab for the rest when one died and --keep-going is given."""
    waiting = _commands(options)
    first_failure = 0
    while waiting:
        log = cli_common.log_path(kernel)
        try:
            with Lab(machine, log, options.boot_timeout) as lab:
                if options.verbose:
                    say(f"kernel {kernel} is up after {lab.boot_seconds:.2f} s")
                while waiting:
                    status = _run_one(lab, waiting[0], options, kernel)
                    waiting.pop(0)
                    first_failure = first_failure or status
                    if status and not options.keep_going:
                        waiting.clear()
        except LabDied as error:
            say(f"[{kernel}] {error}; the command was: {waiting[0]}")
            cli_common.show_log(log)
            first_failure = first_failure or cli_common.TIMED_OUT
            waiting = waiting[1:] if options.keep_going else []
        else:
            cli_common.remove_log(log)
    return first_failure


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lab/run", epilog=_EPILOG, description=(
        "Boots a Debian kernel under QEMU's TCG with the build inside and runs commands there."))
    cli_common.add_options(parser)
    parser.add_argument("--timeout", type=float, metavar="SECONDS",
                        help="how long each command may take (no limit)")
    parser.add_argument("--silence", type=float, metavar="SECONDS",
                        help="how long a command may print nothing (no limit)")
    parser.add_argument("--commands", type=Path, metavar="FILE", help="run each line of FILE")
    parser.add_argument("--keep-going", action="store_true",
                        help="run the other commands after one failed")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND...")
    options = parser.parse_args()
    start = time.monotonic()
    try:
        kernel, machine = cli_common.machine_for(options)
        if options.verbose:
            say(f"images are ready after {time.monotonic() - start:.2f} s")
        return _run_all(machine, kernel, options)
    except LabError as error:
        print(f"lab/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
