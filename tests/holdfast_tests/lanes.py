# SPDX-License-Identifier: Apache-2.0
"""The lanes: each builds what it needs, runs tests and returns their counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast_tests.results import Counts, finished, from_fuzz, from_gtest, from_unittest, is_whole

REPO = Path(__file__).resolve().parent.parent.parent
LAB_KERNELS = ("6.18", "newest")
# Built by the lab, for what no packaged kernel has; runs in the long form only.
OWN_LAB_KERNEL = "sw-protected"
# Programs that need /dev/kvm and have lanes of their own.
_KVM_PROGRAMS = ("kvm_test", "system_test")
SANITIZED = ("asan", "tsan")
# What is needed of the builds that tests do not need all of. TSan has nothing to find where there
# is one thread; both programs are in the fuzz build for clang's warnings.
TARGETS = {"asan": ("holdfast", "unit_tests"),
           "tsan": ("holdfast", "base_test", "block_test", "control_test", "devices_test",
                    "machine_test", "memory_test", "migration_test", "net_test", "pci_test",
                    "virtio_test"),
           "fuzz": ("holdfast", "holdfastctl", "fuzz_targets")}
# A sanitizer's report must end the program with a status of its own, also in children.
_SANITIZER_ENV = {"ASAN_OPTIONS": "abort_on_error=0:exitcode=99",
                  "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
                  "TSAN_OPTIONS": "halt_on_error=1:exitcode=99"}


@dataclass(frozen=True)
class Plan:
    """How much to run: the short form (make test) or the long one (make soak)."""

    long: bool

    @property
    def fuzz_seconds(self) -> int:
        """For each fuzz target."""
        return 600 if self.long else 10


def _run(command: list[str], log: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Runs a command, keeps its output in `log`, returns exit status and output."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        status = subprocess.run(command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=out,
                                stderr=subprocess.STDOUT, check=False,
                                env={**os.environ, **(env or {})}).returncode
    return status, log.read_text(encoding="utf-8", errors="replace")


def _log(name: str) -> Path:
    return REPO / "build" / "test-logs" / f"{name}.log"


def build(preset: str) -> None:
    """Builds a preset; ends the run if that fails, for then no count means anything.

    Of the sanitizer builds only what runs sanitized: unit tests and the monitor. The programs that
    drive the monitor are the optimised build's.
    """
    command = [str(REPO / "tools/build"), preset]
    if preset in TARGETS:
        command = [str(REPO / "tools/build"), "--only", preset, *TARGETS[preset]]
    if subprocess.run(command, check=False).returncode != 0:
        print("the build failed, so no test was run")
        print("0 passed, 1 failed, 0 skipped")
        sys.exit(1)


def _monitor_env(preset: str, monitor: str, slowness: tuple[int, int]) -> dict[str, str]:
    """The environment of tests that drive the monitor of a preset; slowness plain and sanitized."""
    env = {"HOLDFAST": monitor, **_SANITIZER_ENV,
           "HOLDFAST_TEST_SLOWNESS": str(slowness[preset in SANITIZED])}
    if preset in SANITIZED:
        env["HOLDFAST_TEST_SANITIZED"] = "1"
    return env


def _plain(name: str, command: list[str], env: dict[str, str] | None = None) -> Counts:
    """A check that is one test: it passes when the command does."""
    counts = Counts()
    status, output = _run(command, _log(name), env)
    if status == 0:
        counts.passed = 1
    else:
        counts.fail(f"{name}: {' '.join(command)} ended with {status}")
        print(output[-6000:])
    return counts


def lint(plan: Plan) -> Counts:
    """Formatting, layers, headers, scripts; in the long form clang-tidy too."""
    # clang-tidy alone takes as long as everything else here: `make lint` is for that.
    quick = [] if plan.long else ["--quick"]
    status, output = _run([str(REPO / "tools/lint"), *quick], _log("lint"))
    counts = Counts()
    closing = re.search(r"^lint: (\d+) passed, (\d+) failed", output, re.MULTILINE)
    if closing is None:
        counts.fail(f"lint: did not finish (exit status {status})")
    else:
        counts.passed = int(closing.group(1))
        for _ in range(int(closing.group(2))):
            counts.fail("lint: see above")
    if status != 0:
        print(output[-6000:])
    return counts


def _unit(preset: str) -> Counts:
    """All unit test programs of a preset."""
    build(preset)
    counts = Counts()
    programs = sorted((REPO / "build" / preset / "tests").glob("*_test"))
    for program in programs:
        if program.name in _KVM_PROGRAMS:
            continue
        name = f"{preset}/{program.name}"
        status, output = _run([str(program)], _log(name.replace("/", "-")), _SANITIZER_ENV)
        one = from_gtest(name, output, status)
        if one.failed:
            print(output[-6000:])
        counts.add(one)
    if not programs:
        counts.fail(f"{preset}: no test programs in build/{preset}/tests")
    return counts


def unit_release(plan: Plan) -> Counts:
    """Unit tests, optimised; and those of the runner and the lab themselves."""
    del plan
    counts = _plain("runner", ["/usr/bin/python3", "-B", "-m", "unittest",
                               "holdfast_tests.results_test", "holdfast_lab.source_kernel_test"],
                    {"PYTHONPATH": f"{REPO}/tests:{REPO}/lab"})
    counts.add(_unit("release"))
    return counts


def unit_asan(plan: Plan) -> Counts:
    """Unit tests under AddressSanitizer and UndefinedBehaviorSanitizer."""
    del plan
    return _unit("asan")


def unit_tsan(plan: Plan) -> Counts:
    """Unit tests under ThreadSanitizer."""
    del plan
    return _unit("tsan")


def _qmp(build_name: str, plan: Plan) -> Counts:
    """The control protocol, driven by a client that shares no code with the monitor.

    Not in the lab: its guest has no Python.
    """
    env = {**_monitor_env(build_name, str(REPO / "build" / build_name / "bin/holdfast"), (1, 4)),
           "HOLDFAST_GUESTS": str(REPO / "build/release/guests"),
           "PYTHONPATH": str(REPO / "tests/qmp")}
    if plan.long:
        env["HOLDFAST_TEST_LONG"] = "1"
    counts = Counts()
    for program in ("session_test", "abuse_test"):
        name = f"native/{build_name}/qmp/{program}"
        status, output = _run(["/usr/bin/python3", "-B", "-m", "unittest", "-v", program],
                              _log(name.replace("/", "-")), env)
        one = from_unittest(name, output, status)
        if one.failed:
            print(output[-6000:])
        counts.add(one)
    return counts


def _conformance(plan: Plan) -> Counts:
    """This machine's kernel, and each engine that it can run, against the model."""
    program = str(REPO / "build/release/bin/holdfast-conformance")
    counts = _plain("native-conformance", [program])
    for engine, operations in (("", 10_000_000), ("kernel", 1_000_000), ("guard", 1_000_000),
                               ("attributes", 1_000_000)):
        # In the short form always the same ones: who changes something else learns nothing new.
        how = ["--fuzz", str(operations)] if plan.long else ["--fuzz", "50000", "--seed", "1"]
        if engine:
            how += ["--engine", engine]
        counts.add(_plain(f"native-fuzz-{engine or 'model'}", [program, *how]))
    return counts


def _lacks_natively() -> str:
    """Why guests cannot run on guest_memfd on this machine's own KVM; empty if they can."""
    probe = subprocess.run([str(REPO / "build/release/bin/holdfastctl"), "probe"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if probe.returncode == 0:
        return ""
    return (probe.stdout.strip().splitlines()[-1:] or ["holdfastctl probe failed"])[0]


def native(plan: Plan) -> Counts:
    """Memory, KVM and whole-monitor tests on this machine's own KVM, where it has guest_memfd."""
    build("release")
    counts = Counts()
    if lacking := _lacks_natively():
        counts.skip("native lane", lacking)
        return counts
    for build_name, program, gtest_filter in (
            ("release", "kvm_test", "*"), ("release", "system_test", "-Linux*:*/Linux*"),
            ("asan", "system_test", "-Linux*:*/Linux*"),
            ("tsan", "system_test", "-Linux*:*/Linux*")):
        build(build_name)
        name = f"native/{build_name}/{program}"
        command = [str(REPO / "build/release/tests" / program), f"--gtest_filter={gtest_filter}"]
        env = _monitor_env(build_name, str(REPO / "build" / build_name / "bin/holdfast"), (1, 4))
        status, output = _run(command, _log(name.replace("/", "-")), env)
        one = from_gtest(name, output, status)
        if one.failed:
            print(output[-6000:])
        # A host that others keep busy delays anything; what a sanitizer found it found.
        if not any(report in output for report in _SANITIZER_REPORTS):
            one = _second_try(name, one, lambda tests, program=command[0]: [
                program, f"--gtest_filter={tests}"], env)
        counts.add(one)
    for build_name in ("release", "asan"):
        counts.add(_qmp(build_name, plan))
    counts.add(_conformance(plan))
    return counts


# The exit status of lab/run when the lab hung or died.
_LAB_DIED = 124
_MOST_LABS = 3
# TCG's emulation of nested virtualisation errs now and then (docs/lab.md), and a machine whose KVM
# is shared is late now and then. What fails there is tried once more, and shown; more failures than
# this are not their doing.
_MOST_SECOND_TRIES = 3
_SANITIZER_REPORTS = ("WARNING: ThreadSanitizer", "ERROR: AddressSanitizer",
                      "ERROR: LeakSanitizer", "runtime error: ")


@dataclass(frozen=True)
class _Round:
    """A program to run in the lab, and the build of the monitor that it drives."""

    build: str
    program: str
    short: dict[str, str]  # GoogleTest filters by kernel; one without a filter has no such round
    long: str
    natively: str = ""  # what the native lane runs instead, where it can, of the short form


# The short form shares the work out: memory and what moves it on the oldest kernel that is served,
# devices on the newest, and a few boots on both.
_MEMORY = ("*LinuxBoot*bzimage*:*LinuxMemory*:*LinuxNuma*:*LinuxConversion*:*LinuxSnapshot*:"
           "*LinuxPatternSnapshot*:*LinuxMigration*:*LinuxLifecycle*:*LinuxPci*:*LinuxFirmware*")
_DEVICES = ("*LinuxBoot*pvh*:*LinuxDisk*:*LinuxDevices*:*LinuxNet*:*LinuxVhostUser*:*LinuxDebian*:"
            "*LinuxSnapshot.FourCpus*:*LinuxMigration.ALoadedGuestGoesOnWhileItsPagesFollow")
_BOOT = "*LinuxBoot*pvh_bound_4cpu_256M"
_LINUX = "*Linux*"
_LAB_ROUNDS = (
    _Round("release", "kvm_test", {"6.18": "*", "newest": "*"}, "*"),
    _Round("release", "system_test", {"6.18": _MEMORY, "newest": _DEVICES}, "*",
           natively="*Native*:CloneTest.*:Ctl.*:BadInput.*:*Garbage*"),
    _Round("asan", "system_test", {"6.18": _BOOT}, _LINUX),
    _Round("tsan", "system_test", {"newest": _BOOT}, _LINUX))


def _shares_work(kernel: str, plan: Plan) -> bool:
    """Whether a kernel runs its part of the short form; others that LAB_KERNEL names run all."""
    return kernel in LAB_KERNELS and not plan.long


def _lab_command(kernel: str, what: _Round, plan: Plan, gtest_filter: str) -> list[str]:
    # One payload for all rounds, so that its image is made once.
    command = [str(REPO / "lab/run"), "--kernel", kernel, "--debian",
               "--build", str(REPO / "build/release"),
               "--timeout", str(14400 if plan.long else 2400),
               "--silence", str(3600 if plan.long else 300)]
    for build_name in SANITIZED:
        command += ["--payload", f"{REPO}/build/{build_name}/bin/holdfast:{build_name}/holdfast"]
    program = "bin" if what.build == "release" else what.build
    env = _monitor_env(what.build, f"/payload/{program}/holdfast", (2, 4))
    if plan.long:
        env["HOLDFAST_TEST_LONG"] = "1"
    for key, value in env.items():
        command += ["--env", f"{key}={value}"]
    return command + [
        "--", "HOLDFAST_KERNEL=$LAB_BOOT/vmlinuz HOLDFAST_VMLINUX=$LAB_BOOT/vmlinux "
              f"HOLDFAST_INITRD=$LAB_BOOT/initrd HOLDFAST_DEBIAN=$DEBIAN exec tests/{what.program} "
              f"--gtest_filter='{gtest_filter}'"]


def _lab_round(kernel: str, what: _Round, plan: Plan) -> Counts:
    """Runs one program in the lab: what a lab that dies leaves over, in a new one."""
    name = f"lab-{kernel}/{what.build}/{what.program}"
    every = what.long
    if _shares_work(kernel, plan):
        every = what.short[kernel]
        if what.natively and kernel == LAB_KERNELS[-1] and _lacks_natively():
            every += f":{what.natively}"
    counts = Counts()
    done: list[str] = []
    for lab_number in range(1, _MOST_LABS + 1):
        log = _log(f"{name.replace('/', '-')}-{lab_number}")
        # In the short form Linux moves between processes only (LinuxSnapshot).
        left_out = done if plan.long else [*done, "LinuxStateTest.*"]
        rest = f"{every}-{':'.join(left_out)}" if left_out else every
        status, output = _run(_lab_command(kernel, what, plan, rest), log)
        died = status == _LAB_DIED and lab_number < _MOST_LABS and not is_whole(output)
        part = from_gtest(name, output, status, partial=died)
        part.skips_are_failures()
        counts.add(part)
        if not died:
            break
        done += finished(output)
        counts.skip(name, f"the lab died after {len(done)} tests; a new one ran the rest: {log}")
    counts = _second_try(name, counts, lambda tests: _lab_command(kernel, what, plan, tests),
                         may_skip=False)
    if counts.failed:
        print(f"--- {name}, the last of its output\n{output[-8000:]}")
    return counts


def _second_try(name: str, counts: Counts, command: Callable[[str], list[str]],
                env: dict[str, str] | None = None, may_skip: bool = True) -> Counts:
    """Runs the few tests of `name` that failed once more, and shows that it did."""
    tests = counts.failed_tests(name)
    if not tests or len(tests) > _MOST_SECOND_TRIES:
        return counts
    log = _log(name.replace("/", "-") + "-again")
    print(f"--- {name}: trying once more: {', '.join(tests)}")
    status, output = _run(command(":".join(tests)), log, env)
    second = from_gtest(name, output, status)
    if not may_skip:
        second.skips_are_failures()
    return counts.after_second_try(f"see {log}", second)


def lab_kernels(plan: Plan) -> list[tuple[str, ...]]:
    """The kernels of the lab lane; those of one group run side by side. LAB_KERNEL picks one."""
    if os.environ.get("LAB_KERNEL"):
        return [(os.environ["LAB_KERNEL"],)]
    return [LAB_KERNELS, (OWN_LAB_KERNEL,)] if plan.long else [LAB_KERNELS]


def lab(plan: Plan) -> Counts:
    """Everything with a real Linux guest, on the packaged kernels side by side."""
    for preset in ("release", *SANITIZED):
        build(preset)
    groups = lab_kernels(plan)
    results = {kernel: Counts() for group in groups for kernel in group}
    # Downloads, unpacks and builds the kernels before several labs ask for them at once.
    for kernel in results:
        if subprocess.run([str(REPO / "lab/kernels"), "--paths", kernel],
                          stdout=subprocess.DEVNULL, check=False).returncode != 0:
            results[kernel].fail(f"lab: lab/kernels could not get the kernel {kernel}")
            return results[kernel]

    def run_all(kernel: str) -> None:
        for what in _LAB_ROUNDS:
            if _shares_work(kernel, plan) and kernel not in what.short:
                continue
            # What sanitizers find they find on the packaged kernels.
            if kernel != OWN_LAB_KERNEL or what.build == "release":
                results[kernel].add(_lab_round(kernel, what, plan))

    for group in groups:
        threads = [threading.Thread(target=run_all, args=(kernel,)) for kernel in group]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    total = Counts()
    for counts in results.values():
        total.add(counts)
    return total


def fuzz(plan: Plan) -> Counts:
    """Every fuzz target for a while."""
    build("fuzz")
    status, output = _run([str(REPO / "fuzz/run"), str(plan.fuzz_seconds)], _log("fuzz"))
    counts = from_fuzz(output, status)
    if counts.failed:
        print(output[-20000:])
    return counts


def package(plan: Plan) -> Counts:
    """The Debian packages, and a program built against what they install."""
    del plan
    build("release")
    counts = _plain("package", [str(REPO / "tools/package")])
    counts.add(_plain("package-test", [str(REPO / "tests/package/run")]))
    return counts


LANES = {"unit": unit_release, "unit-asan": unit_asan, "unit-tsan": unit_tsan, "native": native,
         "lab": lab, "fuzz": fuzz, "package": package, "lint": lint}
