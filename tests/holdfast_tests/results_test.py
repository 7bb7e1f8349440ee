# SPDX-License-Identifier: Apache-2.0
"""The runner must not count a crash, a missing test or a skip as success."""

import unittest

from holdfast_tests.results import finished, from_fuzz, from_gtest, from_unittest, is_whole

_HEAD = "[==========] Running 2 tests from 1 test suite.\n"
_PASS = "[ RUN      ] A.One\n[       OK ] A.One (0 ms)\n"
_FAIL = "[ RUN      ] A.Two\nwrong\n[  FAILED  ] A.Two (0 ms)\n"
_PARAMETER = ("[ RUN      ] All/A.Two/x\nwrong\n"
              "[  FAILED  ] All/A.Two/x, where GetParam() = 1 (0 ms)\n")
_SKIP = "[ RUN      ] A.Two\na.cc:3: Skipped\nno KVM here\n[  SKIPPED ] A.Two (0 ms)\n"
_TAIL = "[----------] Global test environment tear-down\n"
_SUMMARY = "[  FAILED  ] 1 test, listed below:\n[  FAILED  ] A.Two\n"


class FromGtest(unittest.TestCase):
    """One program's output, one row each."""

    def test_counts_each_test_once(self) -> None:
        cases = {
            "all pass": (_HEAD + _PASS + _PASS.replace("One", "Two") + _TAIL, 0, (2, 0, 0)),
            "one fails": (_HEAD + _PASS + _FAIL + _TAIL + _SUMMARY, 1, (1, 1, 0)),
            "a parameterised one fails": (_HEAD + _PASS + _PARAMETER + _TAIL, 1, (1, 1, 0)),
            "one is skipped": (_HEAD + _PASS + _SKIP + _TAIL, 0, (1, 0, 1)),
            "it crashes after the first": (_HEAD + _PASS + "[ RUN      ] A.Two\n", 139, (1, 1, 0)),
            "it does not start": ("cannot execute\n", 127, (0, 1, 0)),
            "all pass and then it dies": (_HEAD + _PASS + _PASS + _TAIL, 99, (2, 1, 0)),
            "it has no tests": ("[==========] Running 0 tests from 0 test suites.\n", 0, (0, 1, 0)),
        }
        for why, (output, status, want) in cases.items():
            with self.subTest(why):
                counts = from_gtest("p", output, status)
                self.assertEqual((counts.passed, counts.failed, counts.skipped), want)

    def test_tells_why_a_test_was_skipped(self) -> None:
        counts = from_gtest("p", _HEAD + _PASS + _SKIP + _TAIL, 0)
        self.assertEqual(counts.skips, ["p: A.Two: no KVM here"])

    def test_takes_no_skip_where_nothing_may_skip(self) -> None:
        counts = from_gtest("p", _HEAD + _PASS + _SKIP + _TAIL, 0)
        counts.skips_are_failures()
        self.assertEqual((counts.passed, counts.failed, counts.skipped), (1, 1, 0))
        self.assertIn("no KVM here", counts.failures[0])

    def test_knows_what_is_left_when_a_program_dies(self) -> None:
        died = _HEAD + _PASS + "[ RUN      ] A.Two\n"
        self.assertEqual(finished(died), ["A.One"])
        self.assertFalse(is_whole(died))
        self.assertTrue(is_whole(_HEAD + _PASS + _FAIL))
        self.assertFalse(is_whole("the lab did not start\n"))
        part = from_gtest("p", died, 124, partial=True)
        self.assertEqual((part.passed, part.failed, part.skipped), (1, 0, 0))

    def test_names_what_can_be_tried_again(self) -> None:
        cases = {
            "a failed test": (_HEAD + _PASS + _FAIL + _TAIL + _SUMMARY, 1, ["A.Two"]),
            "a program that died": (_HEAD + _PASS + "[ RUN      ] A.Two\n", 139, None),
            "nothing": (_HEAD + _PASS + _PASS.replace("One", "Two") + _TAIL, 0, []),
        }
        for why, (output, status, want) in cases.items():
            with self.subTest(why):
                self.assertEqual(from_gtest("p", output, status).failed_tests("p"), want)

    def test_shows_a_second_try(self) -> None:
        first = from_gtest("p", _HEAD + _PASS + _FAIL + _TAIL + _SUMMARY, 1)
        one = _HEAD.replace("2 tests", "1 test")
        good = first.after_second_try("log", from_gtest("p", one + _PASS.replace("One", "Two"), 0))
        self.assertEqual((good.passed, good.failed, good.skipped), (2, 0, 1))
        self.assertIn("log", good.skips[0])
        bad = first.after_second_try("log", from_gtest("p", one + _FAIL, 1))
        self.assertEqual((bad.passed, bad.failed, bad.skipped), (1, 1, 0))


class FromUnittest(unittest.TestCase):
    """The same for Python's test programs."""

    def test_counts_each_test_once(self) -> None:
        ok = "test_a (m.C.test_a) ... ok\n"
        skip = "test_b (m.C.test_b) ... skipped 'no KVM here'\n"
        bad = ("test_c (m.C.test_c) ... \n  test_c (m.C.test_c) (i=1) ... FAIL\n"
               "  test_c (m.C.test_c) (i=2) ... FAIL\n\n"
               "FAIL: test_c (m.C.test_c) (i=1)\nTraceback\n"
               "FAIL: test_c (m.C.test_c) (i=2)\nTraceback\n")
        cases = {
            "all pass": (ok + "Ran 1 test in 0.1s\n\nOK\n", 0, (1, 0, 0)),
            "one is skipped": (ok + skip + "Ran 2 tests in 0.1s\n\nOK (skipped=1)\n", 0,
                               (1, 0, 1)),
            "one fails twice": (ok + bad + "Ran 2 tests in 0.1s\n\nFAILED (failures=2)\n", 1,
                                (1, 1, 0)),
            "an import fails": ("ERROR: m (unittest.loader._FailedTest.m)\nTraceback\n"
                                "Ran 1 test in 0.1s\n\nFAILED (errors=1)\n", 1, (0, 1, 0)),
            "it dies": (ok, -9, (0, 1, 0)),
            "there are none": ("Ran 0 tests in 0.0s\n\nOK\n", 0, (0, 1, 0)),
            "all pass and then it dies": (ok + "Ran 1 test in 0.1s\n\nOK\n", 1, (1, 1, 0)),
        }
        for why, (output, status, want) in cases.items():
            with self.subTest(why):
                counts = from_unittest("p", output, status)
                self.assertEqual((counts.passed, counts.failed, counts.skipped), want)
        self.assertEqual(from_unittest("p", *cases["one is skipped"][:2]).skips,
                         ["p: m.C.test_b: no KVM here"])


class FromFuzz(unittest.TestCase):
    """from_fuzz()."""

    def test_names_the_target_that_failed_and_what_it_found(self) -> None:
        """A run of three targets, one with a finding, says which and what."""
        output = ("fuzz_pci: 10 s, 1000 inputs, nothing found\n"
                  "==7== ERROR: libFuzzer: timeout after 11 seconds\n"
                  "SUMMARY: libFuzzer: timeout\n"
                  "fuzz_qmp: FAILED; the input is in build/fuzz/crashes/qmp\n"
                  "fuzz_scsi: 10 s, 5 inputs, nothing found\n")
        counts = from_fuzz(output, 1)
        self.assertEqual((counts.passed, counts.failed), (2, 1))
        self.assertEqual(counts.failures, ["fuzz_qmp: SUMMARY: libFuzzer: timeout"])

    def test_a_run_that_broke_off_is_a_failure(self) -> None:
        """Neither a failed build nor an end without a verdict looks like success."""
        self.assertEqual(from_fuzz("", 1).failed, 1)
        self.assertEqual(from_fuzz("", 0).failed, 1)
        self.assertEqual(from_fuzz("fuzz_pci: 10 s, 1 inputs, nothing found\n", 2).failed, 1)


if __name__ == "__main__":
    unittest.main()
