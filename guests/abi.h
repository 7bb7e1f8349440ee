// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the freestanding test guests and the tests that run them agree on.
///
/// A guest is a flat binary that starts at its first byte, in ring 3 of 64-bit mode with IOPL 3, on
/// page tables that map guest physical memory one to one. Its arguments are in rdi, rsi, rdx, rcx
/// and r8; it leaves through port I/O only, so that it needs no code in ring 0 and runs at full
/// speed on a para-virtual KVM too.
namespace guests {

inline constexpr unsigned long kLoadAddress = 0x10000;  ///< where every guest is linked to run

inline constexpr unsigned short kConsolePort = 0x3f8;   ///< one byte: a character, as COM1 takes it
inline constexpr unsigned short kEndPort = 0x501;       ///< one byte: the end, as isa-debug-exit
inline constexpr unsigned short kDoorbellPort = 0x521;  ///< 4 bytes: page number of a Mailbox
inline constexpr unsigned short kReportPort = 0x520;  ///< 4 bytes: half of a value, low half first

/// What a guest in ring 3, which may make no hypercalls, asks of its memory instead: a page that
/// stays shared, whose number it writes to kDoorbellPort.
struct Mailbox {
  unsigned long address;     ///< guest physical, page aligned
  unsigned long pages;       ///< 4 KiB each; 0: nothing is asked, and that is done at once
  unsigned long to_private;  ///< 0: shared
  unsigned long result;      ///< the answer: one of the numbers below
};
inline constexpr unsigned long kConverted = 0;
inline constexpr unsigned long kBusy = 1;
inline constexpr unsigned long kRefused = 2;

/// What convert leaves in the first and last word of a page at its `version`th time. The host can
/// tell that it is of this page without knowing the version.
constexpr unsigned long Stamp(unsigned long page, unsigned char version) {
  return (page ^ 0x5a5a5a5a5a5a5000UL) | version;
}

/// The word that memwalk and memcheck expect at `address`.
constexpr unsigned long Pattern(unsigned long seed, unsigned long address) {
  return (address + seed) * 0x9e3779b97f4a7c15UL;
}

}  // namespace guests
