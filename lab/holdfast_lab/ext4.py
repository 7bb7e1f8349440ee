# SPDX-License-Identifier: Apache-2.0
"""Disk images and initrds made from a list of files, without root and only when inputs changed."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_lab.common import digest, prune, run_tool, scratch_dir, stamp

# Bump it when the same inputs have to give a different image.
_FORMAT = 1


@dataclass
class Tree:
    """What goes into an image: paths inside it (without a leading slash) and where from."""

    files: dict[str, Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, source: Path, dest: str) -> None:
        """Adds a file, or everything below a folder."""
        if not source.is_dir():
            self.files[dest.strip("/")] = source
            return
        self.folders.add(dest.strip("/"))
        for folder, _, names in os.walk(source):
            for name in names:
                path = Path(folder) / name
                inside = f"{dest.strip('/')}/{path.relative_to(source)}"
                if path.is_symlink() and not path.exists():
                    continue
                self.files[inside] = path

    def key(self) -> str:
        """Names the contents; it changes when any input's size or time does."""
        return digest([_FORMAT, sorted((dest, *stamp(path)) for dest, path in self.files.items()),
                       sorted(self.links.items()), sorted(self.folders),
                       sorted(self.texts.items())])

    def stage(self, root: Path) -> None:
        """Puts everything below `root`; hard links where possible, so that nothing is copied."""
        for folder in self.folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
        for dest, source in self.files.items():
            target = _room(root, dest)
            try:
                os.link(source.resolve(), target)
            except OSError:  # another file system, or a file of another user's
                shutil.copy2(source, target)
        for dest, text in self.texts.items():
            target = _room(root, dest)
            target.write_text(text, encoding="utf-8")
            target.chmod(0o755)
        for dest, pointed in self.links.items():
            _room(root, dest).symlink_to(pointed)


def _room(root: Path, dest: str) -> Path:
    target = root / dest
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def ext4_image(tree: Tree, folder: Path, label: str, *, keep: int) -> Path:
    """Returns an ext4 image of the tree; the caller holds the lock of `folder`."""
    image = folder / f"{label}-{tree.key()}.ext4"
    if image.exists():
        os.utime(image)
        return image
    with scratch_dir(folder) as scratch:
        stage = scratch / "stage"
        stage.mkdir()
        tree.stage(stage)
        _make_ext4(tree, stage, scratch / "image", label)
        (scratch / "image").rename(image)
    prune(folder, f"{label}-*.ext4", keep)
    return image


def _make_ext4(tree: Tree, stage: Path, out: Path, label: str) -> None:
    blocks = sum(-(-path.stat().st_size // 4096) + 1 for path in tree.files.values())
    inodes = sum(1 for _ in stage.rglob("*")) + 64
    size = blocks * 4096 * 21 // 20 + inodes * 512 + (8 << 20)
    # Mounted read-only for its whole life: it needs no journal, no reserve, no room to grow.
    run_tool(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^resize_inode,^metadata_csum",
              "-m", "0", "-b", "4096", "-N", str(inodes), "-L", label[:16],
              "-E", "root_owner=0:0", "-d", str(stage), str(out), f"{size // 1024}k"])


def cpio_archive(tree: Tree, folder: Path, label: str, *, keep: int) -> Path:
    """Returns an uncompressed newc archive of the tree; the caller holds the lock of `folder`."""
    archive = folder / f"{label}-{tree.key()}.cpio"
    if archive.exists():
        os.utime(archive)
        return archive
    with scratch_dir(folder) as scratch:
        stage = scratch / "stage"
        stage.mkdir()
        tree.stage(stage)
        names = sorted(str(path.relative_to(stage)) for path in stage.rglob("*"))
        data = run_tool(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
                        stdin="\n".join(names).encode(), cwd=stage)
        (scratch / "archive").write_bytes(data)
        (scratch / "archive").rename(archive)
    prune(folder, f"{label}-*.cpio", keep)
    return archive
