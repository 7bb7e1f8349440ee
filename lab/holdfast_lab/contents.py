# SPDX-License-Identifier: Apache-2.0
"""What the lab's base image, its initrd and its payload image hold."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

from holdfast_lab.common import REPO, LabError, cache_dir, digest, find_tool, run_tool, stamp
from holdfast_lab.ext4 import Tree
from holdfast_lab.kernels import Kernel

_GUEST_FILES = Path(__file__).resolve().parent.parent / "inside"
_BUSYBOX = Path("/bin/busybox")
# Programs that tests use in the lab, with the libraries they need.
_PROGRAMS = ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-img",
             "/usr/bin/qemu-storage-daemon", "/usr/lib/qemu/virtiofsd", "/usr/bin/bash",
             "/usr/bin/setpriv", "/usr/bin/taskset", "/usr/bin/ssh", "/usr/sbin/e2fsck")
_FIRMWARE_FOLDERS = ("/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu")
_FIRMWARE = ("bios-256k.bin", "bios-microvm.bin", "qboot.rom", "linuxboot.bin", "linuxboot_dma.bin",
             "multiboot.bin", "multiboot_dma.bin", "pvh.bin", "kvmvapic.bin", "vgabios-stdvga.bin",
             "efi-e1000e.rom", "efi-virtio.rom")
# Loaded before the agent starts: the disks, the writable root, the hypervisor, and what the kernel
# does for network cards and sockets of guests.
_BOOT_MODULES = ("virtio_blk", "overlay", "kvm-amd", "tun", "vhost_net", "vhost_vsock")


def shared_libraries(programs: list[Path]) -> list[Path]:
    """Returns the loader and all shared libraries that the programs need."""
    done = subprocess.run([find_tool("ldd"), *map(str, programs)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    missing = sorted(set(re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE)))
    if missing:
        raise LabError(f"shared libraries are missing on this machine: {', '.join(missing)}")
    return sorted({Path(p) for p in re.findall(r"(/\S+) \(0x", done.stdout)})


def _add_with_libraries(tree: Tree, programs: list[Path]) -> None:
    for path in [*programs, *shared_libraries(programs)]:
        dest = str(path)
        # /lib and /bin are links into /usr in the image, as on the machine.
        if re.match(r"/(lib|lib64|bin|sbin)/", dest):
            dest = "/usr" + dest
        tree.add(path, dest)


@cache
def busybox_applets() -> tuple[str, ...]:
    """Returns the names busybox answers to."""
    if not _BUSYBOX.is_file():
        raise LabError("busybox is missing; run tools/setup")
    return tuple(run_tool([str(_BUSYBOX), "--list"]).decode().split())


def base_tree(kernels: dict[str, Kernel], initrds: dict[str, Path]) -> Tree:
    """The root file system: busybox, QEMU with firmware, the kernels and initrds for guests."""
    tree = Tree()
    programs = [Path(p) for p in _PROGRAMS]
    for program in programs:
        if not program.is_file():
            raise LabError(f"{program} is missing; run tools/setup")
    tree.links |= {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
    tree.add(_BUSYBOX, "usr/bin/busybox")
    tree.links |= {f"usr/bin/{name}": "busybox" for name in busybox_applets()
                   if name != "busybox"}
    for program in programs:
        tree.links.pop(str(program).strip("/"), None)
    _add_with_libraries(tree, programs)
    for name in _FIRMWARE:
        found = [Path(f) / name for f in _FIRMWARE_FOLDERS if (Path(f) / name).is_file()]
        if found:
            tree.add(found[0], f"usr/share/qemu/{name}")
    for name, kernel in kernels.items():
        if kernel.guests:
            tree.links[f"boot/lab/{name}"] = kernel.guests
            continue
        tree.add(kernel.vmlinuz, f"boot/lab/{name}/vmlinuz")
        tree.add(kernel.vmlinux, f"boot/lab/{name}/vmlinux")
        tree.add(initrds[name], f"boot/lab/{name}/initrd")
    tree.folders |= {"dev", "mnt", "proc", "sys", "tmp", "run", "root", "payload", "etc", "var/tmp",
                     "usr/sbin", "usr/lib64", "sys"}
    tree.add(_GUEST_FILES / "agent", "usr/lib/holdfast-lab/agent")
    tree.texts |= {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
                                 "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
                   "etc/group": "root:x:0:\nkvm:x:104:\nnogroup:x:65534:\n",
                   "etc/ssh/ssh_config": "Host *\n  IdentityFile /root/.ssh/key\n"
                                       "  StrictHostKeyChecking no\n"
                                       "  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n",
                   "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
                   "etc/profile": "PS1='lab:\\w\\$ '\n"}
    return tree


def module_files(kernel: Kernel, names: tuple[str, ...]) -> list[Path]:
    """Returns the module files in the order to load them, unpacked into the cache."""
    ordered: list[Path] = []
    if not kernel.modules.is_dir():  # everything is built in
        return ordered
    for name in names:
        out = run_tool(["modprobe", "-d", kernel.folder, "-S", kernel.release,
                        "--show-depends", name]).decode()
        for line in out.splitlines():
            word = line.split()
            if word[0] == "insmod" and Path(word[1]) not in ordered:
                ordered.append(Path(word[1]))
    return [_unpacked(path) for path in ordered]


def _unpacked(path: Path) -> Path:
    tools = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-qdc"], ".gz": ["gzip", "-dc"]}
    if path.suffix not in tools:
        return path
    out = cache_dir() / "modules" / f"{path.stem.removesuffix('.ko')}-{digest([stamp(path)])}.ko"
    if not out.exists():
        out.parent.mkdir(exist_ok=True)
        fresh = out.with_suffix(".new")
        fresh.write_bytes(run_tool([*tools[path.suffix], str(path)]))
        fresh.rename(out)
    return out


def initrd_tree(kernel: Kernel) -> Tree:
    """The lab's own initrd: busybox, the modules for the disks and KVM, and ./inside/init."""
    tree = Tree(folders={"dev", "proc", "sys", "base", "payload", "rw", "root"})
    tree.add(_GUEST_FILES / "init", "init")
    tree.add(_BUSYBOX, "bin/busybox")
    tree.links |= {f"bin/{name}": "busybox" for name in
                   ("sh", "mount", "insmod", "mkdir", "switch_root", "sysctl", "ip", "umount")}
    for number, path in enumerate(module_files(kernel, _BOOT_MODULES)):
        tree.add(path, f"modules/{number:02d}.ko")
    return tree


def payload_tree(items: list[tuple[Path, str]], base: Tree) -> Tree:
    """The build: each item at its place, with the libraries that the base image lacks."""
    tree = Tree(folders={"payload"})
    for source, dest in items:
        if not source.exists():
            raise LabError(f"--payload {source}: no such file or folder")
        tree.add(source, dest)
    programs = [path for path in tree.files.values() if _is_dynamic(path)]
    if programs:
        extra = Tree()
        _add_with_libraries(extra, programs)
        own = {str(path).strip("/") for path in programs}
        tree.files |= {dest: path for dest, path in extra.files.items()
                       if dest not in base.files and dest not in own}
    return tree


def _is_dynamic(path: Path) -> bool:
    """Tells whether a file is an ELF program or library with an interpreter or dependencies."""
    with open(path, "rb") as handle:
        head = handle.read(64)
    if len(head) < 64 or head[:5] != b"\x7fELF\x02" or head[16] not in (2, 3):
        return False
    with open(path, "rb") as handle:
        handle.seek(int.from_bytes(head[32:40], "little"))
        table = handle.read(56 * int.from_bytes(head[56:58], "little"))
    return any(int.from_bytes(table[i:i + 4], "little") == 2 for i in range(0, len(table), 56))


def guest_initrd_key(kernel: Kernel) -> str:
    """Names the contents of the Linux test guest's initrd for a kernel."""
    folder = REPO / "guests/linux"
    sources = [stamp(path) for path in [folder / "init", folder / "mkinitrd",
                                        *sorted((folder / "tools").iterdir())]]
    return digest([sources, stamp(_BUSYBOX), kernel.folder])
