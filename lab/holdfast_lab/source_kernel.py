# SPDX-License-Identifier: Apache-2.0
"""The kernel with software-protected VMs: no package has one, so it is built of Debian's source."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from holdfast_lab import bzimage
from holdfast_lab.apt import Package, PrivateApt
from holdfast_lab.common import (REPO, LabError, cache_dir, digest, find_tool, locked, run_tool,
                                 say, scratch_dir)

_CONFIG = REPO / "lab/kernel/sw-protected.config"
_SEARCH = r"^linux-source-[0-9]+\.[0-9]+$"
_NAME = re.compile(r"^linux-source-(?P<number>\d+\.\d+)$")
# Bump it when the same inputs have to give a different kernel.
_FORMAT = 1
_KEEP = 2


def newest(packages: list[Package]) -> Package:
    """Returns the source package of the newest release."""
    numbered = [(tuple(int(n) for n in match["number"].split(".")), package)
                for package in packages if (match := _NAME.match(package.name))]
    if not numbered:
        raise LabError("the mirror offers no linux-source package to build the kernel "
                       "'sw-protected' of")
    return max(numbered, key=lambda entry: entry[0])[1]


def missing_options(fragment: str, config: str) -> list[str]:
    """Returns the options that the fragment wants and the kernel's dependencies did not let be."""
    there = set(config.splitlines())
    return [line for line in fragment.splitlines()
            if re.match(r"CONFIG_\w+=", line) and line not in there]


def folder_of(apt: PrivateApt, *, offline: bool) -> Path:
    """Returns the built kernel's folder; builds it when this version and configuration have none.

    Without a network, the one that was used last and has this configuration.
    """
    key = digest([_FORMAT, _CONFIG.read_bytes()])
    parent = cache_dir() / "kernels"
    with locked("sw-protected"):
        built = sorted((path for path in parent.glob(f"sw-protected_*_{key}")
                        if (path / "info.json").is_file()), key=lambda path: path.stat().st_mtime)
        if offline and built:
            return built[-1]
        try:
            package = newest(apt.find(_SEARCH))
        except LabError as error:
            if not built:
                raise
            say(f"{error}; going on with {built[-1].name}")
            return built[-1]
        target = parent / f"sw-protected_{package.version}_{key}"
        if target not in built:
            if offline:
                raise LabError("no kernel 'sw-protected' in the cache yet, and the lab was told "
                               "to stay offline")
            _build(package, apt, target)
        os.utime(target)
        for old in sorted(parent.glob("sw-protected_*"), key=lambda path: path.stat().st_mtime,
                          reverse=True)[_KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
        return target


def _build(package: Package, apt: PrivateApt, target: Path) -> None:
    """Downloads, unpacks, configures and compiles."""
    run_tool([str(REPO / "tools/setup"), "--kernel"])
    say(f"building kernel {package.version} with software-protected VMs (about ten minutes)")
    start = time.monotonic()
    with scratch_dir(target.parent) as scratch:
        run_tool(["dpkg", "-x", str(apt.download([package.name], scratch)[0]),
                  str(scratch / "tree")])
        archives = list((scratch / "tree").glob("usr/src/linux-source-*.tar.*"))
        if len(archives) != 1:
            raise LabError(f"the package {package.name} holds no source archive")
        source = scratch / "source"
        source.mkdir()
        run_tool(["tar", "-xf", str(archives[0]), "-C", str(source), "--strip-components=1"])
        archives[0].unlink()
        _configure(source)
        _make(source, "-j", str(len(os.sched_getaffinity(0))), "bzImage")
        _lay_out(source, scratch / "kernel", package)
        shutil.rmtree(target, ignore_errors=True)
        (scratch / "kernel").rename(target)
    say(f"the kernel is ready after {time.monotonic() - start:.0f} s")


def _make(source: Path, *words: str) -> str:
    """Runs the kernel's make, away from what a make above this one left in the environment."""
    env = {name: value for name, value in os.environ.items()
           if name in ("PATH", "HOME", "TMPDIR")}
    env |= {"LC_ALL": "C", "KBUILD_BUILD_USER": "lab", "KBUILD_BUILD_HOST": "holdfast",
            "KBUILD_BUILD_VERSION": "1", "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970"}
    done = subprocess.run([find_tool("make"), "-s", *words], cwd=source, env=env,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise LabError(f"building the kernel: 'make {' '.join(words)}' failed:\n{last}")
    return done.stdout.strip()


def _configure(source: Path) -> None:
    """Writes .config: the smallest kernel there is and our fragment over it."""
    _make(source, "tinyconfig")
    config = source / ".config"
    fragment = _CONFIG.read_text(encoding="utf-8")
    # Of two lines about one option the last counts, but Kconfig warns of each.
    mentioned = set(re.findall(r"\b(CONFIG_\w+)(?:=| is not set)", fragment))
    kept = [line for line in config.read_text(encoding="utf-8").splitlines()
            if not mentioned.intersection(re.findall(r"CONFIG_\w+", line))]
    config.write_text("\n".join(kept) + "\n" + fragment, encoding="utf-8")
    _make(source, "olddefconfig")
    lost = missing_options(fragment, config.read_text(encoding="utf-8"))
    if lost:
        raise LabError(f"{_CONFIG}: this kernel does not take {', '.join(lost)}")


def _lay_out(source: Path, out: Path, package: Package) -> None:
    """Keeps what the lab boots; no modules, and no ELF kernel for guests."""
    out.mkdir()
    (source / "arch/x86/boot/bzImage").rename(out / "vmlinuz")
    (source / ".config").rename(out / "config")
    info = {"release": _make(source, "kernelrelease"), "version": package.version,
            "compression": bzimage.compression((out / "vmlinuz").read_bytes()), "pvh_entry": 0,
            "packages": [package.name]}
    (out / "info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
