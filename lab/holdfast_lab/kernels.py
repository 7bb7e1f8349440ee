# SPDX-License-Identifier: Apache-2.0
"""The kernels the lab boots: found in Debian's index, unpacked into the cache."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from holdfast_lab import bzimage, source_kernel
from holdfast_lab.apt import Package, PrivateApt
from holdfast_lab.common import LabError, cache_dir, locked, run_tool, say, scratch_dir

NAMES = ("6.18", "newest")
# Built by the lab; Linux guests in it run the newest packaged kernel, which has their modules.
SW_PROTECTED = "sw-protected"
_GUESTS_OF_SW_PROTECTED = "newest"
_DAY = 24 * 3600
_KINDS = ("linux-image", "linux-binary", "linux-binary-unsigned", "linux-modules", "linux-base")
_RELEASE = re.compile(r"^(?P<kind>[a-z-]+?)-(?P<release>(?P<number>\d+(?:\.\d+)+)\+deb\d+"
                      r"-cloud-amd64)$")
_SEARCH = r"^linux-(image|binary|binary-unsigned|modules|base)-[0-9].*-cloud-amd64$"
# Below this a linux-image package is only a meta-package (from 6.19 on they are).
_WHOLE_IMAGE = 10 << 20


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel. `folder` holds vmlinuz, vmlinux, config and lib/modules/RELEASE.

    Where `guests` is set, it has neither vmlinux nor modules, and that kernel is what guests boot.
    """

    name: str
    release: str
    version: str
    folder: str
    compression: str
    pvh_entry: int
    guests: str = ""

    @property
    def vmlinuz(self) -> Path:
        """The bzImage."""
        return Path(self.folder) / "vmlinuz"

    @property
    def vmlinux(self) -> Path:
        """The ELF kernel with the PVH entry."""
        return Path(self.folder) / "vmlinux"

    @property
    def modules(self) -> Path:
        """The folder that holds modules.dep."""
        return Path(self.folder) / "lib" / "modules" / self.release


@dataclass(frozen=True)
class Candidate:
    """A kernel that the index offers whole: everything needed to boot it is there."""

    number: tuple[int, ...]
    release: str
    version: str
    packages: list[str]


def candidates(packages: list[Package]) -> list[Candidate]:
    """Groups packages by kernel release and drops the releases that are not complete."""
    groups: dict[str, dict[str, Package]] = {}
    numbers: dict[str, tuple[int, ...]] = {}
    for package in packages:
        match = _RELEASE.match(package.name)
        if match and match["kind"] in _KINDS:
            groups.setdefault(match["release"], {})[match["kind"]] = package
            numbers[match["release"]] = tuple(int(n) for n in match["number"].split("."))
    result = []
    for release, kinds in groups.items():
        wanted = _complete_set(kinds)
        if wanted:
            result.append(Candidate(numbers[release], release, kinds[wanted[0]].version,
                                    [kinds[kind].name for kind in wanted]))
    return sorted(result, key=lambda c: (c.number, c.release))


def _complete_set(kinds: dict[str, Package]) -> list[str]:
    """Returns which packages of one release make a kernel with modules (none: not complete)."""
    if "linux-image" in kinds and kinds["linux-image"].size >= _WHOLE_IMAGE:
        return ["linux-image"]
    for binary in ("linux-binary", "linux-binary-unsigned"):
        if binary in kinds and "linux-modules" in kinds:
            return [binary, "linux-modules", *(["linux-base"] if "linux-base" in kinds else [])]
    return []


def pick(name: str, offered: list[Candidate]) -> Candidate:
    """Returns the newest release that the name ('6.18' or 'newest') stands for."""
    fitting = [c for c in offered if name == "newest" or c.number[:2] == (6, 18)]
    if not fitting:
        raise LabError(f"the mirror offers no complete kernel for '{name}'")
    return fitting[-1]


def _unpack(candidate: Candidate, apt: PrivateApt) -> Path:
    """Downloads and unpacks a kernel into the cache unless it is there."""
    target = cache_dir() / "kernels" / f"{candidate.release}_{candidate.version}"
    if (target / "info.json").is_file():
        return target
    say(f"downloading kernel {candidate.release} ({candidate.version})")
    with scratch_dir(target.parent) as scratch:
        (scratch / "debs").mkdir()
        for deb in apt.download(candidate.packages, scratch / "debs"):
            run_tool(["dpkg", "-x", str(deb), str(scratch / "tree")])
        _lay_out(scratch / "tree", scratch / "kernel", candidate)
        shutil.rmtree(target, ignore_errors=True)
        (scratch / "kernel").rename(target)
    return target


def _lay_out(tree: Path, out: Path, candidate: Candidate) -> None:
    """Turns an unpacked package tree into the lab's one layout."""
    modules = next((p for p in (tree / "usr/lib/modules" / candidate.release,
                                tree / "lib/modules" / candidate.release) if p.is_dir()), None)
    if modules is None:
        raise LabError(f"the packages of {candidate.release} hold no modules")
    images = [*tree.glob("boot/vmlinuz-*"), *modules.glob("vmlinuz*")]
    configs = [*tree.glob("boot/config-*"), *modules.glob("config")]
    if not images or not configs:
        raise LabError(f"the packages of {candidate.release} hold no kernel image")
    out.mkdir()
    images[0].rename(out / "vmlinuz")
    configs[0].rename(out / "config")
    (out / "lib/modules").mkdir(parents=True)
    modules.rename(out / "lib/modules" / candidate.release)
    run_tool(["depmod", "-b", str(out), candidate.release])
    image = (out / "vmlinuz").read_bytes()
    elf = bzimage.extract_vmlinux(image)
    entry = bzimage.pvh_entry(elf)
    if entry is None:
        raise LabError(f"kernel {candidate.release} has no PVH entry note")
    (out / "vmlinux").write_bytes(elf)
    info = {"release": candidate.release, "version": candidate.version,
            "compression": bzimage.compression(image), "pvh_entry": entry,
            "packages": candidate.packages}
    (out / "info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def _load(name: str, folder: Path) -> Kernel:
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    return Kernel(name, info["release"], info["version"], str(folder), info["compression"],
                  info["pvh_entry"])


def _recorded(record: Path) -> dict[str, Kernel]:
    """Reads which kernels were picked last; empty when one of them is gone."""
    try:
        picked = json.loads(record.read_text(encoding="utf-8"))
        return {name: _load(name, Path(picked[name]["folder"])) for name in NAMES}
    except (OSError, ValueError, KeyError):
        return {}


def packaged(*, refresh: bool = False, offline: bool = False) -> dict[str, Kernel]:
    """Returns the packaged kernels by name; asks the mirror at most once a day."""
    record = cache_dir() / "kernels" / "picked.json"
    record.parent.mkdir(exist_ok=True)
    apt = PrivateApt()
    with locked("kernels"):
        known = _recorded(record)
        offline = offline or os.environ.get("LAB_OFFLINE", "") not in ("", "0")
        if known and not refresh and (offline or apt.index_age() < _DAY):
            return known
        if offline:
            raise LabError("no kernels in the cache yet, and the lab was told to stay offline")
        try:
            apt.update()
            offered = candidates(apt.find(_SEARCH))
            found = {name: _load(name, _unpack(pick(name, offered), apt)) for name in NAMES}
        except LabError as error:
            if not known or refresh:
                raise
            say(f"{error}; going on with the kernels in the cache")
            return known
        text = json.dumps({name: asdict(kernel) for name, kernel in found.items()}, indent=2)
        fresh = record.with_suffix(".new")
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.rename(record)
        return found


def _own(path: Path) -> Kernel:
    """Takes a kernel of the user's: a folder with vmlinuz and lib/modules/RELEASE."""
    releases = sorted((path / "lib/modules").glob("*/modules.dep"))
    if not (path / "vmlinuz").is_file() or not releases:
        raise LabError(f"LAB_KERNEL={path}: a folder with 'vmlinuz' and "
                       "'lib/modules/RELEASE/modules.dep' (make modules_install) is needed")
    image = (path / "vmlinuz").read_bytes()
    elf = bzimage.extract_vmlinux(image)
    if not (path / "vmlinux").is_file():
        (path / "vmlinux").write_bytes(elf)
    release = releases[-1].parent.name
    return Kernel("own", release, release, str(path), bzimage.compression(image),
                  bzimage.pvh_entry(elf) or 0)


def _built() -> Kernel:
    """Returns the kernel that the lab builds itself; the caller has seen to apt's index."""
    offline = os.environ.get("LAB_OFFLINE", "") not in ("", "0")
    folder = source_kernel.folder_of(PrivateApt(), offline=offline)
    return replace(_load(SW_PROTECTED, folder), guests=_GUESTS_OF_SW_PROTECTED)


def choose(name: str | None) -> tuple[Kernel, dict[str, Kernel]]:
    """Returns the kernel to boot (argument, then LAB_KERNEL, then newest) and all packaged ones."""
    name = name or os.environ.get("LAB_KERNEL") or "newest"
    names = (*NAMES, SW_PROTECTED)
    if name not in names and not Path(name).is_dir():
        raise LabError(f"LAB_KERNEL={name}: neither one of {', '.join(names)} nor a folder")
    known = packaged()
    if name in NAMES:
        return known[name], known
    if name == SW_PROTECTED:
        return _built(), known
    return _own(Path(name).resolve()), known
