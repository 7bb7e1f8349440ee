# SPDX-License-Identifier: Apache-2.0
"""Places, locks and small helpers that every part of the lab uses."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


class LabError(Exception):
    """A failure told in one sentence; the command line prints it and exits 1."""


def cache_dir() -> Path:
    """Returns the project's cache folder and makes it when it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(os.environ.get("HOLDFAST_CACHE") or Path(base) / "holdfast")
    path.mkdir(parents=True, exist_ok=True)
    return path


def say(text: str) -> None:
    """Tells the person at the terminal what is going on (never on stdout)."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the cache's lock `name`: two checkouts may share one cache."""
    folder = cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with open(folder / name, "w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def scratch_dir(parent: Path) -> Iterator[Path]:
    """Gives a temporary folder inside `parent`, so that results can be renamed out of it."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".tmp-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def find_tool(name: str) -> str:
    """Returns the path of a program; system folders count even when PATH lacks them."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise LabError(f"the program '{name}' is missing; run tools/setup")
    return found


def run_tool(command: list[str], *, stdin: bytes | None = None, cwd: Path | None = None) -> bytes:
    """Runs a program and returns its output; what it said is in the error when it fails."""
    command = [find_tool(command[0]), *command[1:]]
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          cwd=cwd, check=False)
    if done.returncode != 0:
        message = done.stderr.decode(errors="replace").strip()
        raise LabError(f"'{' '.join(command[:3])} ...' failed with {done.returncode}: {message}")
    return done.stdout


def digest(parts: Iterable[object]) -> str:
    """Hashes a list of inputs; the same list gives the same name on every run."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(repr(part).encode())
    return sha.hexdigest()[:16]


def stamp(path: Path) -> tuple[str, int, int]:
    """Returns what identifies a file's contents without reading it."""
    info = path.stat()
    return (str(path), info.st_size, info.st_mtime_ns)


def prune(folder: Path, pattern: str, keep: int) -> None:
    """Removes all but the `keep` most recently used files; a file in use stays readable."""
    def age(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:  # another lab pruned it first
            return 0.0

    for old in sorted(folder.glob(pattern), key=age, reverse=True)[keep:]:
        with contextlib.suppress(FileNotFoundError):
            old.unlink()
