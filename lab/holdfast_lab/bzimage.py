# SPDX-License-Identifier: Apache-2.0
"""Takes the ELF kernel out of a bzImage and looks at its notes."""

from __future__ import annotations

import struct

from holdfast_lab.common import LabError, run_tool

# Magic bytes of the payload -> the kernel's name for it, and the program that unpacks it.
_FORMATS: tuple[tuple[bytes, str, list[str]], ...] = (
    (b"\x28\xb5\x2f\xfd", "zstd", ["zstd", "-dc"]),
    (b"\xfd7zXZ\x00", "xz", ["xz", "-dc"]),
    (b"\x02\x21\x4c\x18", "lz4", ["lz4", "-dc"]),
    (b"\x1f\x8b", "gzip", ["gzip", "-dc"]),
)
_XEN_ELFNOTE_PHYS32_ENTRY = 18


def payload(image: bytes) -> bytes:
    """Returns the compressed kernel as the boot header (protocol 2.08 and later) gives it."""
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        raise LabError("not a bzImage: the boot header is missing")
    (protocol,) = struct.unpack_from("<H", image, 0x206)
    if protocol < 0x208:
        raise LabError(f"boot protocol {protocol:#x} has no payload fields")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    if length < 8 or start + length > len(image):
        raise LabError("the bzImage's payload lies outside the file")
    return image[start:start + length]


def compression(image: bytes) -> str:
    """Names the compression of a bzImage's payload."""
    data = payload(image)
    for magic, name, _ in _FORMATS:
        if data.startswith(magic):
            return name
    raise LabError(f"unknown payload compression (starts with {data[:6].hex()})")


def extract_vmlinux(image: bytes) -> bytes:
    """Returns the ELF kernel inside a bzImage; its size is checked against the build's record."""
    data = payload(image)
    # The kernel's build appends the unpacked size; gzip's own trailer serves as that.
    (size,) = struct.unpack_from("<I", data, len(data) - 4)
    name = compression(image)
    tool = next(command for _, format_name, command in _FORMATS if format_name == name)
    elf = run_tool(tool, stdin=data if name == "gzip" else data[:-4])
    if len(elf) != size or not elf.startswith(b"\x7fELF"):
        raise LabError(f"the {name} payload unpacks to {len(elf)} bytes that are no whole ELF")
    return elf


def pvh_entry(elf: bytes) -> int | None:
    """Returns the physical address of the PVH entry point, or None without the note."""
    phoff, phentsize, phnum = (struct.unpack_from("<Q", elf, 32)[0],
                               *struct.unpack_from("<HH", elf, 54))
    for index in range(phnum):
        kind, _, offset, _, _, filesz = struct.unpack_from("<IIQQQQ", elf,
                                                           phoff + index * phentsize)
        if kind != 4:  # PT_NOTE
            continue
        position, end = offset, offset + filesz
        while position + 12 <= end:
            namesz, descsz, note = struct.unpack_from("<III", elf, position)
            desc = position + 12 + (namesz + 3 & ~3)
            name = elf[position + 12:position + 12 + namesz]
            if name == b"Xen\x00" and note == _XEN_ELFNOTE_PHYS32_ENTRY:
                return int.from_bytes(elf[desc:desc + descsz], "little")
            position = desc + (descsz + 3 & ~3)
    return None
