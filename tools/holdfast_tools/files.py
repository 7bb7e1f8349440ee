# SPDX-License-Identifier: Apache-2.0
"""The project's files, what C++ files include, and results remembered by content."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Top to bottom: each layer may use itself and those before it.
LAYERS = ("base", "kvm", "model", "memory", "object", "devices", "machine", "migration", "control",
          "conformance", "apps")
_INCLUDE = re.compile(r'^\s*#\s*include\s*(?P<bracket>[<"])(?P<name>[^>"]+)[>"]')
# Where an include may be found; the build's own headers come last.
_INCLUDE_DIRS = ("include", "src", "tests", "guests", "fuzz", "bench", ".")
_GENERATED_DIRS = ("build/clang/generated", "build/clang/guests/images")


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that is, or may be, committed; relative to ROOT."""
    if (ROOT / ".git").exists():
        done = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT,
                              stdout=subprocess.PIPE, text=True, check=True)
        names = [name for name in done.stdout.split("\0") if name]
    else:  # an unpacked source archive
        names = [os.path.relpath(os.path.join(folder, name), ROOT)
                 for folder, _, files in os.walk(ROOT) for name in files]
        names = [n for n in names if not n.startswith("build/") and "__pycache__" not in n]
    return tuple(sorted(Path(name) for name in names if (ROOT / name).is_file()))


def cpp_files() -> list[Path]:
    """C++ sources and headers."""
    return [path for path in project_files() if path.suffix in (".cc", ".h")]


def headers(*folders: str) -> list[Path]:
    """Headers below the folders."""
    return [p for p in project_files() if p.suffix == ".h" and p.parts[0] in folders]


def _first_line(path: Path) -> str:
    with open(ROOT / path, "rb") as file:
        return file.readline(200).decode("utf-8", "replace")


def shell_scripts() -> list[Path]:
    """Files that a shell runs."""
    return [p for p in project_files()
            if p.suffix == ".sh" or re.match(r"#!.*\b(ba|da|)sh\b", _first_line(p))]


def python_files() -> list[Path]:
    """Python modules and programs."""
    return [p for p in project_files() if p.suffix == ".py" or
            (not p.suffix and re.match(r"#!.*\bpython3?\b", _first_line(p)))]


def text(path: Path) -> str:
    """The file's text."""
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def includes(path: Path) -> tuple[tuple[int, str, str], ...]:
    """(line number, '<' or '"', name) of each include; `path` may be absolute."""
    found = []
    lines = (ROOT / path).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        match = _INCLUDE.match(line)
        if match:
            found.append((number, match["bracket"], match["name"]))
    return tuple(found)


@cache
def _resolve(name: str, including_folder: Path) -> Path | None:
    for folder in (including_folder, *map(Path, _INCLUDE_DIRS), *map(Path, _GENERATED_DIRS)):
        if (ROOT / folder / name).is_file():
            return folder / name
    return None


@cache
def _content_hash(path: Path) -> bytes:
    return hashlib.sha256((ROOT / path).read_bytes()).digest()


def closure_digest(path: Path, *salt: str) -> str:
    """A digest of a C++ file, all project headers it sees, and what else decides a result."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for _, _, name in includes(current):
            target = _resolve(name, current.parent)
            if target is not None:
                waiting.append(target)
    state = hashlib.sha256("\0".join(salt).encode())
    for item in sorted(seen):
        state.update(str(item).encode() + b"\0" + _content_hash(item))
    return state.hexdigest()


class Passes:
    """Remembers which checks passed, by digest, so that the next run need not repeat them."""

    def __init__(self, name: str) -> None:
        self._folder = ROOT / "build" / "lint" / name
        self._folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, digest: str) -> bool:
        return (self._folder / digest).exists()

    def add(self, digest: str) -> None:
        """Remembers a pass."""
        (self._folder / digest).touch()


def run_parallel(jobs: list, work) -> list:
    """work(job) for each job, as many at once as there are processors; results in order."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        return list(pool.map(work, jobs))


def run(command: list[str], stdin: str | None = None) -> tuple[int, str]:
    """Runs a tool in ROOT; returns its exit status and everything it printed."""
    try:
        done = subprocess.run(command, cwd=ROOT, input=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    except FileNotFoundError:
        return 127, f"{command[0]} is missing; run tools/setup"
    return done.returncode, done.stdout
