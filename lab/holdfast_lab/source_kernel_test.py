# SPDX-License-Identifier: Apache-2.0
"""Tests of what is decided about the kernel that the lab builds."""

from __future__ import annotations

import unittest

from holdfast_lab.apt import Package
from holdfast_lab.common import LabError
from holdfast_lab.source_kernel import missing_options, newest


class NewestTest(unittest.TestCase):
    """Which source package is taken."""

    def test_compares_releases_as_numbers(self) -> None:
        """7.10 is newer than 7.9, whatever the package's own version says."""
        packages = [Package(name, version, 1) for name, version in
                    (("linux-source-7.9", "9:7.9.1-1"), ("linux-source-7.10", "7.10.2-1"),
                     ("linux-source-6.18", "6.18.15-1"), ("linux-source", "99"))]
        self.assertEqual(newest(packages).name, "linux-source-7.10")

    def test_says_what_is_missing(self) -> None:
        """A mirror without source packages is an error in a sentence."""
        with self.assertRaisesRegex(LabError, "no linux-source package"):
            newest([Package("linux-source", "7.3", 1)])


class MissingOptionsTest(unittest.TestCase):
    """An option that the kernel's dependencies drop must not go unnoticed."""

    def test_finds_what_did_not_survive(self) -> None:
        """Absent, off and of another value count; comments and what shall be off do not."""
        fragment = ("# About CONFIG_A=y\nCONFIG_KVM=y\nCONFIG_NUMA=y\nCONFIG_NR_CPUS=64\n"
                    "CONFIG_EXT4_FS=y\n# CONFIG_KVM_INTEL is not set\n")
        config = "CONFIG_KVM=y\n# CONFIG_NUMA is not set\nCONFIG_NR_CPUS=1\nCONFIG_KVM_INTEL=y\n"
        self.assertEqual(missing_options(fragment, config),
                         ["CONFIG_NUMA=y", "CONFIG_NR_CPUS=64", "CONFIG_EXT4_FS=y"])


if __name__ == "__main__":
    unittest.main()
