# SPDX-License-Identifier: Apache-2.0
"""Counts of tests, and reading them from what GoogleTest prints."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_RUNNING = re.compile(r"^\[=+\] Running (\d+) tests? from", re.MULTILINE)
_RESULT = re.compile(r"^\[ +(OK|FAILED|SKIPPED) +\] (\S+?)(?:,| \(|$)", re.MULTILINE)
# From a test's start to its verdict, without another start between.
_SKIP_TEXT = re.compile(r"^\[ RUN +\] (\S+)\n((?:(?!^\[ RUN).*\n)*?)\[  SKIPPED \] ",
                        re.MULTILINE)
# What unittest prints, with -v, at the end of each test that it skips, and above each traceback.
_UNITTEST_SKIP = re.compile(r"^\w+ \((\S+)\).* \.\.\. skipped (.*)$", re.MULTILINE)
_UNITTEST_BAD = re.compile(r"^(?:FAIL|ERROR): \w+ \(([^\s)]+)\)", re.MULTILINE)
_UNITTEST_END = re.compile(r"^Ran (\d+) tests? in .*\n\n(?:OK|FAILED)", re.MULTILINE)
# What fuzz/run prints for each target.
_FUZZ_VERDICT = re.compile(r"^(fuzz_\w+): (FAILED|\d+ s,)")


@dataclass
class Counts:
    """What became of some tests. `skips` says why for each skipped one."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)

    def add(self, other: "Counts") -> None:
        """Adds another's counts to these."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures
        self.skips += other.skips

    def fail(self, name: str) -> None:
        """Counts one failure."""
        self.failed += 1
        self.failures.append(name)

    def skip(self, name: str, reason: str) -> None:
        """Counts one skipped test with its reason."""
        self.skipped += 1
        self.skips.append(f"{name}: {reason}")

    def skips_are_failures(self) -> None:
        """For the lab, where everything a test may need is there: a skip is a failure."""
        for skip in self.skips:
            self.fail(f"{skip} (skipped where nothing may skip)")
        self.skips = []
        self.skipped = 0

    def failed_tests(self, name: str) -> list[str] | None:
        """The tests of the program `name` that failed; None if something else went wrong too."""
        prefix = f"{name}: "
        tests = [failure.removeprefix(prefix) for failure in self.failures]
        return tests if all("." in test and " " not in test for test in tests) else None

    def after_second_try(self, name: str, second: "Counts") -> "Counts":
        """These counts, with the tests that failed counted as they went in `second`.

        Each that passed then also shows as a skip with its reason: nothing is hidden.
        """
        counts = Counts(self.passed + second.passed, second.failed, self.skipped,
                        list(second.failures), list(self.skips))
        again = set(second.failures)
        for failure in self.failures:
            if failure not in again:
                counts.skip(failure, f"failed at the first try and passed at the second; {name}")
        return counts

    def line(self) -> str:
        """The closing line."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def finished(output: str) -> list[str]:
    """The tests that a GoogleTest program finished, as it printed them."""
    body = output.split("[----------] Global test environment tear-down")[0]
    return [test for _, test in _RESULT.findall(body)]


def is_whole(output: str) -> bool:
    """Whether a GoogleTest program finished all the tests that it announced."""
    announced = _RUNNING.search(output)
    return announced is not None and len(finished(output)) >= int(announced.group(1))


def from_gtest(name: str, output: str, status: int, partial: bool = False) -> Counts:
    """Counts the tests of one GoogleTest program that printed `output` and ended with `status`.

    A program that died, or that reported fewer results than tests it said it would run, counts as
    one failure more: a crash must not look like success. Not so if `partial`: then the caller runs
    the rest.
    """
    counts = Counts()
    announced = _RUNNING.search(output)
    # The summary at the end names failed and skipped tests a second time.
    body = output.split("[----------] Global test environment tear-down")[0]
    reasons = {test: _reason(text) for test, text in _SKIP_TEXT.findall(body)}
    for verdict, test in _RESULT.findall(body):
        full = f"{name}: {test}"
        if verdict == "OK":
            counts.passed += 1
        elif verdict == "FAILED":
            counts.fail(full)
        else:
            counts.skip(full, reasons.get(test, "no reason given"))
    done = counts.passed + counts.failed + counts.skipped
    if partial:
        return counts
    if announced is None:
        counts.fail(f"{name}: did not start (exit status {status})")
    elif done < int(announced.group(1)):
        counts.fail(f"{name}: ended after {done} of {announced.group(1)} tests (exit {status})")
    elif status != 0 and counts.failed == 0:
        counts.fail(f"{name}: exit status {status} although every test passed")
    elif done == 0:
        counts.fail(f"{name}: has no tests")
    return counts


def from_unittest(name: str, output: str, status: int) -> Counts:
    """Counts the tests of a Python program that ran them with unittest, verbosely."""
    counts = Counts()
    for test, reason in _UNITTEST_SKIP.findall(output):
        counts.skip(f"{name}: {test}", reason.strip("'\""))
    for test in dict.fromkeys(_UNITTEST_BAD.findall(output)):  # each once, whatever its subtests
        counts.fail(f"{name}: {test}")
    end = _UNITTEST_END.search(output)
    counts.passed = max(0, (int(end.group(1)) if end else 0) - counts.failed - counts.skipped)
    if end is None or int(end.group(1)) == 0:
        counts.fail(f"{name}: did not finish (exit status {status})")
    elif status != 0 and counts.failed == 0:
        counts.fail(f"{name}: exit status {status} although every test passed")
    return counts


def from_fuzz(output: str, status: int) -> Counts:
    """Counts the targets that fuzz/run ran; a failure says what libFuzzer's summary says."""
    counts = Counts()
    summary = "no summary"
    for line in output.splitlines():
        if line.startswith("SUMMARY: ") or line.startswith("==") and "ERROR: " in line:
            summary = line
        verdict = _FUZZ_VERDICT.match(line)
        if verdict is None:
            continue
        if verdict.group(2) == "FAILED":
            counts.fail(f"{verdict.group(1)}: {summary}")
        else:
            counts.passed += 1
        summary = "no summary"
    if counts.passed + counts.failed == 0 or (status != 0 and counts.failed == 0):
        counts.fail(f"fuzz: did not finish (exit status {status})")
    return counts


def _reason(text: str) -> str:
    """The skip message: what follows GoogleTest's 'file:line: Skipped' line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.search(r": Skipped$|^Skipped$", line)]
    return " ".join(kept) or "no reason given"
