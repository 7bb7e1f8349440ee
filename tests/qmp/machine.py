# SPDX-License-Identifier: Apache-2.0
"""Starts holdfast around the guest of a few hundred bytes, with QMP sockets."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
from pathlib import Path

from client import Client

REPO = Path(__file__).resolve().parent.parent.parent
HOLDFAST = os.environ.get("HOLDFAST", str(REPO / "build/release/bin/holdfast"))
GUESTS = os.environ.get("HOLDFAST_GUESTS", str(REPO / "build/release/guests"))
SANITIZED = "HOLDFAST_TEST_SANITIZED" in os.environ
LONG = "HOLDFAST_TEST_LONG" in os.environ
# A sanitized monitor on a busy machine takes its time.
PATIENCE = 60 * int(os.environ.get("HOLDFAST_TEST_SLOWNESS", "1"))


class Machine:
    """A running monitor. Its clients connect to `path`.

    Nobody has to guess when it listens: holdfast itself connects to a socket of the test, by a
    second -qmp, and makes its sockets in the order of the command line.
    """

    def __init__(self, *options: str, commands: str = "", server: str | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="holdfast-qmp-")
        self.path = os.path.join(self.folder.name, "qmp")
        if server is None:
            server = f"unix:{self.path},server=on,wait=off"
        ready = os.path.join(self.folder.name, "ready")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(ready)
            listener.listen(1)
            listener.settimeout(PATIENCE)
            self.process = subprocess.Popen(
                [HOLDFAST, "-kernel", f"{GUESTS}/hello.elf", "-m", "32M", "-nodefaults",
                 "-display", "none", "-append", commands, "-S", "-qmp", server,
                 "-qmp", f"unix:{ready}", *options],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                self.ready, _ = listener.accept()
            except TimeoutError:
                self.process.kill()
                raise AssertionError(self.process.communicate()) from None

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.ready.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.folder.cleanup()

    def client(self, **options: bool) -> Client:
        """A new client."""
        return Client(self.path, timeout=PATIENCE, **options)

    def file(self, name: str) -> str:
        """A path in the machine's folder."""
        return os.path.join(self.folder.name, name)

    def end(self) -> int:
        """Waits for the end and returns the exit status."""
        return self.process.wait(PATIENCE)

    def descriptors(self) -> int:
        """How many files the process has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Bytes of its own memory that are resident now: no file, no guest."""
        return self._status("RssAnon")

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None, text
        return int(found.group(1)) * 1024
