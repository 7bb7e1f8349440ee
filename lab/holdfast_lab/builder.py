# SPDX-License-Identifier: Apache-2.0
"""Puts together everything a lab needs before QEMU starts."""

from __future__ import annotations

from pathlib import Path

from holdfast_lab import contents, debian, kernels
from holdfast_lab.common import REPO, LabError, cache_dir, locked, prune, run_tool
from holdfast_lab.ext4 import cpio_archive, ext4_image
from holdfast_lab.vm import Machine

# How many images of a kind stay: enough for a few checkouts that share the cache.
_KEEP = 6
# Payload images hold a whole build each.
_KEEP_PAYLOADS = 2


def guest_initrd(kernel: kernels.Kernel) -> Path:
    """Returns the initrd of the Linux test guest for a kernel; the caller holds the lock."""
    folder = cache_dir() / "images"
    folder.mkdir(exist_ok=True)
    path = folder / f"guest-{contents.guest_initrd_key(kernel)}.cpio"
    if not path.exists():
        run_tool([str(REPO / "guests/linux/mkinitrd"), str(path), kernel.folder])
        prune(folder, "guest-*.cpio", 2 * _KEEP)
    return path


def default_payload(build: Path | None) -> list[tuple[Path, str]]:
    """Returns what of the build goes into the lab when nobody said: programs and tests."""
    folders = [build] if build else [REPO / "build" / name for name in ("release", "debug")]
    found = next((f for f in folders if f.is_dir()), None)
    if found is None:
        if build:
            raise LabError(f"--build {build}: no such folder")
        return []
    items = []
    for path in sorted(found.rglob("*")):
        parts = path.relative_to(found).parts
        if any(part in ("CMakeFiles", "_deps", "Testing") or part.startswith(".")
               for part in parts):
            continue
        if path.is_file() and not path.is_symlink() and _wanted(path):
            items.append((path, f"payload/{path.relative_to(found)}"))
    return items


def _wanted(path: Path) -> bool:
    """Tells programs, guests and shared libraries from the build's leftovers."""
    if path.suffix in (".a", ".o", ".ninja", ".cmake", ".gcno", ".gcda"):
        return False
    return path.stat().st_mode & 0o111 != 0 or path.suffix in (".elf", ".bin")


def parse_payload(texts: list[str]) -> list[tuple[Path, str]]:
    """Parses PATH[:DEST]; DEST is absolute in the lab, or relative to /payload."""
    items = []
    for text in texts:
        source, _, dest = text.partition(":")
        name = dest or Path(source).resolve().name
        items.append((Path(source).resolve(),
                      name.strip("/") if name.startswith("/") else f"payload/{name}"))
    return items


def prepare(kernel_name: str | None, payload: list[tuple[Path, str]],
            with_debian: bool) -> tuple[str, Machine]:
    """Builds what is out of date; returns the kernel's name and the machine to start."""
    disk = debian.image() if with_debian else None
    kernel, packaged = kernels.choose(kernel_name)
    everything = {**packaged, kernel.name: kernel}
    with locked("images"):
        folder = cache_dir() / "images"
        initrds = {name: guest_initrd(k) for name, k in everything.items() if not k.guests}
        base = contents.base_tree(everything, initrds)
        base_image = ext4_image(base, folder, "lab-base", keep=3)
        initrd = cpio_archive(contents.initrd_tree(kernel), folder, "lab-initrd", keep=_KEEP)
        payload_image = ext4_image(contents.payload_tree(payload, base), folder, "lab-payload",
                                   keep=_KEEP_PAYLOADS)
    return kernel.name, Machine(kernel.vmlinuz, initrd, base_image, payload_image, disk)
