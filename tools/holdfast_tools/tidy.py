# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over the compile commands of the `clang` preset, remembered by content."""

from __future__ import annotations

import json
from pathlib import Path

from holdfast_tools import files

TIDY = "clang-tidy-19"
# Asked for by name, or clang-tidy drops the compiler's own findings.
_THREAD_SAFETY = "clang-diagnostic-thread-safety*"
# The static analyser at full depth takes two or three times as long as all else together; `deep` is
# for before a release.
_SHALLOW = ["--extra-arg=-Xclang", "--extra-arg=-analyzer-config", "--extra-arg=-Xclang",
            "--extra-arg=mode=shallow"]
# What is looked for in test programs: names, and mistakes that make a test pass wrongly. They run
# under the sanitizers anyway, and GoogleTest's headers make each further check dear.
_TEST_CHECKS = ("-*", "readability-identifier-naming", "bugprone-use-after-move",
                "bugprone-unused-return-value", "bugprone-dangling-handle",
                "cppcoreguidelines-slicing", "cppcoreguidelines-pro-type-cstyle-cast",
                "modernize-use-override", "performance-for-range-copy", "misc-unused-parameters")


def _entries(build: Path) -> dict[Path, str]:
    """The project's C++ files in the compile commands, with their commands."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        path = Path(entry["directory"], entry["file"]).resolve()
        if path.is_relative_to(files.ROOT) and not path.is_relative_to(files.ROOT / "build"):
            found[path.relative_to(files.ROOT)] = entry["command"]
    return found


def _is_test(path: Path) -> bool:
    return path.stem.endswith("_test") or path.parts[0] in ("tests", "bench", "fuzz")


def _arguments(path: Path, deep: bool) -> list[str]:
    """How hard to look at a file."""
    if deep:
        return [f"--checks={_THREAD_SAFETY}"]
    if _is_test(path):
        return ["--checks=" + ",".join([*_TEST_CHECKS, _THREAD_SAFETY])]
    return [f"--checks={_THREAD_SAFETY}", *_SHALLOW]


def check(build: Path, deep: bool) -> tuple[list[str], str]:
    """Returns the problems, and how much was looked at."""
    if not (build / "build.ninja").is_file():
        status, output = files.run(["cmake", "--preset", "clang", "-B", str(build)])
        if status != 0:
            return [f"configuring the preset 'clang' failed:\n{output}"], "nothing"
    # Configures again if a CMakeLists.txt has changed.
    status, output = files.run(["ninja", "-C", str(build), "build.ninja"])
    if status != 0:
        return [f"configuring {build} failed:\n{output}"], "nothing"

    passes = files.Passes("tidy")
    version = files.run([TIDY, "--version"])[1]
    config = files.text(Path(".clang-tidy"))
    entries = _entries(build)

    def one(path: Path) -> str | None:
        command = [TIDY, "-p", str(build), "--quiet", *_arguments(path, deep), str(path)]
        digest = files.closure_digest(path, version, config, entries[path], *command)
        if digest in passes:
            return None
        status, output = files.run(command)
        if status == 0:
            passes.add(digest)
            return ""
        return "\n".join(line for line in output.splitlines()
                         if not line.endswith("warnings generated."))

    # Long ones first, so that no processor is left alone with one at the end.
    order = sorted(entries, key=lambda p: -(files.ROOT / p).stat().st_size)
    results = files.run_parallel(order, one)
    looked_at = sum(result is not None for result in results)
    return [result for result in results if result], f"{looked_at} of {len(order)} files are new"
