# SPDX-License-Identifier: Apache-2.0
"""A Debian system for guests: a raw ext4 image made of the mirror's packages, kept in the cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

from holdfast_lab.apt import KEYRING, release_and_mirror
from holdfast_lab.common import (REPO, LabError, cache_dir, digest, find_tool, locked, prune,
                                 run_tool, say, scratch_dir)

_SETUP = REPO / "lab/debian/setup"
_PACKAGES = ("systemd-sysv", "udev", "openssh-server", "iproute2", "e2fsprogs", "fio",
             "qemu-guest-agent")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*",
             "/usr/share/lintian/*", "/usr/share/bash-completion/*")
# Room for what tests write; the file has holes where nothing is.
_SIZE_MIB = 768
# Bump it when the same inputs have to give a different image.
_FORMAT = 1
_KEEP = 2


def image() -> Path:
    """Returns the image and makes it when there is none of this recipe (about a minute)."""
    folder = cache_dir() / "debian"
    folder.mkdir(exist_ok=True)
    release, mirror = release_and_mirror()
    key = digest([_FORMAT, release, _PACKAGES, _LEFT_OUT, _SIZE_MIB, _SETUP.read_bytes()])
    path = folder / f"debian-{key}.raw"
    with locked("debian"):
        if path.exists():
            os.utime(path)
            return path
        if os.environ.get("LAB_OFFLINE", "") not in ("", "0"):
            raise LabError("no Debian system in the cache yet, and the lab was told to be offline")
        say(f"making a Debian system ({release}) for guests")
        start = time.monotonic()
        with scratch_dir(folder) as scratch:
            # mmdebstrap works below it as another user.
            scratch.chmod(0o711)
            _bootstrap(release, mirror, scratch / "system.tar")
            _make_ext4(scratch)
            (scratch / "image").rename(path)
        say(f"the Debian system is ready after {time.monotonic() - start:.0f} s")
        prune(folder, "debian-*.raw", _KEEP)
    return path


def _bootstrap(release: str, mirror: str, out: Path) -> None:
    """Makes an archive of the installed system; without root in a user namespace."""
    source = f"deb [signed-by={KEYRING}] {mirror} {release} main"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}",
               "--format=tar", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
               *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
               "--aptopt=Acquire::Check-Valid-Until false", "--aptopt=Acquire::Retries 2",
               f"--customize-hook={_SETUP}", release, "-", source]
    out.write_bytes(run_tool(command))


def _make_ext4(folder: Path) -> None:
    """Turns the archive into a file system; fakeroot keeps owners and devices without root."""
    (folder / "tree").mkdir()
    script = ("tar -xpf system.tar -C tree --exclude='./dev/*' && "
              "mke2fs -q -t ext4 -m 0 -L debian -E root_owner=0:0,lazy_itable_init=0 "
              f"-d tree image {_SIZE_MIB}M")
    shell = ["sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {script}"]
    if os.geteuid() != 0:
        shell = [find_tool("fakeroot"), *shell]
    run_tool(shell, cwd=folder)
