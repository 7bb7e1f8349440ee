# SPDX-License-Identifier: Apache-2.0
"""The command line of lab/shell."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import termios
import tty

from holdfast_lab import cli_common
from holdfast_lab.common import LabError, say
from holdfast_lab.vm import Lab, LabDied


def _size() -> str:
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        columns, rows = 0, 0
    if not columns or not rows:
        columns, rows = 80, 24
    return f"{rows} {columns}"


def _attach(lab: Lab, script: str) -> int:
    """Joins our terminal with the lab's; ours is put back as it was in every case."""
    if not os.isatty(0):
        return lab.run_on_terminal(script, 0, 1, _size)
    saved = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        return lab.run_on_terminal(script, 0, 1, _size)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lab/shell", description=(
        "Boots the lab and gives a shell in it, or runs an interactive command there."))
    cli_common.add_options(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND...")
    options = parser.parse_args()
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    command = (words[0] if len(words) == 1 else shlex.join(words)) or "exec sh -l"
    kernel = ""
    try:
        kernel, machine = cli_common.machine_for(options)
        script = cli_common.script_for(f"export TERM={shlex.quote(os.environ.get('TERM', 'linux'))}"
                                       f"\n{command}", options, kernel)
        log = cli_common.log_path(kernel)
        say(f"starting (kernel {kernel}) ...")
        with Lab(machine, log, options.boot_timeout) as lab:
            status = _attach(lab, script)
        cli_common.remove_log(log)
        return status
    except LabDied as error:
        say(str(error))
        cli_common.show_log(log)
        return cli_common.TIMED_OUT
    except LabError as error:
        print(f"lab/shell: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
