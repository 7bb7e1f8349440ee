// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>

#include "control/human_format.h"

namespace holdfast::control {
namespace {

// Bits of RFLAGS, CR0 and EFER. Spec: AMD64 Architecture Programmer's Manual 2, chapters 3 and 4.
constexpr std::uint64_t kEferLongModeActive = 1U << 10;
struct Flag {
  char letter;
  unsigned bit;
};
constexpr std::array<Flag, 7> kFlags = {Flag{'D', 10}, {'O', 11}, {'S', 7}, {'Z', 6},
                                        {'A', 4},      {'P', 2},  {'C', 0}};

// Type bits of a code or data segment.
constexpr unsigned kCode = 8;
constexpr unsigned kConformingOrExpandDown = 4;
constexpr unsigned kReadableOrWritable = 2;
constexpr unsigned kAccessed = 1;

std::string_view SystemType(unsigned type, bool long_mode) {
  constexpr std::array<std::string_view, 16> kShort = {
      "Reserved",   "TSS16-avl",  "LDT",       "TSS16-busy", "CallGate16", "TaskGate",
      "IntGate16",  "TrapGate16", "Reserved",  "TSS32-avl",  "Reserved",   "TSS32-busy",
      "CallGate32", "Reserved",   "IntGate32", "TrapGate32"};
  constexpr std::array<std::string_view, 16> kLong = {
      "<hiword>",   "Reserved", "LDT",       "Reserved",  "Reserved", "Reserved",
      "Reserved",   "Reserved", "Reserved",  "TSS64-avl", "Reserved", "TSS64-busy",
      "CallGate64", "Reserved", "IntGate64", "TrapGate64"};
  return (long_mode ? kLong : kShort)[type & 15];
}

// The descriptor's second word without its base and limit, as QEMU keeps it.
std::uint32_t DescriptorFlags(const kvm_segment& s) {
  return (std::uint32_t{s.type} & 15) << 8 | std::uint32_t{s.s} << 12 | std::uint32_t{s.dpl} << 13 |
         std::uint32_t{s.present} << 15 | std::uint32_t{s.avl} << 20 | std::uint32_t{s.l} << 21 |
         std::uint32_t{s.db} << 22 | std::uint32_t{s.g} << 23;
}

std::string Segment(std::string_view name, const kvm_segment& s, bool long_mode) {
  std::string text = fmt::format("{:<3}={:04x} {:016x} {:08x} {:08x}", name, s.selector, s.base,
                                 s.limit, DescriptorFlags(s));
  if (s.present == 0) return text + '\n';
  text += fmt::format(" DPL={} ", s.dpl);
  const auto letter = [&](unsigned bit, char c) { return (s.type & bit) != 0 ? c : '-'; };
  if (s.s == 0) {
    text += SystemType(s.type, long_mode);
  } else if ((s.type & kCode) != 0) {
    text += fmt::format("{} [{}{}{}]",
                        s.l != 0    ? "CS64"
                        : s.db != 0 ? "CS32"
                                    : "CS16",
                        letter(kConformingOrExpandDown, 'C'), letter(kReadableOrWritable, 'R'),
                        letter(kAccessed, 'A'));
  } else {
    text += fmt::format("{} [{}{}{}]", s.db != 0 || long_mode ? "DS  " : "DS16",
                        letter(kConformingOrExpandDown, 'E'), letter(kReadableOrWritable, 'W'),
                        letter(kAccessed, 'A'));
  }
  return text + '\n';
}

}  // namespace

std::string FormatRegisters(unsigned index, const machine::VcpuRegisters& set) {
  const kvm_regs& r = set.regs;
  const kvm_sregs& s = set.sregs;
  const bool long_mode = (s.efer & kEferLongModeActive) != 0;
  std::string flags;
  for (const Flag& flag : kFlags) flags += (r.rflags >> flag.bit & 1) != 0 ? flag.letter : '-';

  std::string text = fmt::format("\nCPU#{}\n", index);
  text +=
      fmt::format("RAX={:016x} RBX={:016x} RCX={:016x} RDX={:016x}\n", r.rax, r.rbx, r.rcx, r.rdx);
  text +=
      fmt::format("RSI={:016x} RDI={:016x} RBP={:016x} RSP={:016x}\n", r.rsi, r.rdi, r.rbp, r.rsp);
  text +=
      fmt::format("R8 ={:016x} R9 ={:016x} R10={:016x} R11={:016x}\n", r.r8, r.r9, r.r10, r.r11);
  text +=
      fmt::format("R12={:016x} R13={:016x} R14={:016x} R15={:016x}\n", r.r12, r.r13, r.r14, r.r15);
  text += fmt::format("RIP={:016x} RFL={:08x} [{}] CPL={} II=0 A20=1 SMM=0 HLT={}\n", r.rip,
                      r.rflags, flags, s.ss.dpl, set.halted ? 1 : 0);
  const std::array<std::pair<std::string_view, const kvm_segment*>, 8> segments = {{{"ES", &s.es},
                                                                                    {"CS", &s.cs},
                                                                                    {"SS", &s.ss},
                                                                                    {"DS", &s.ds},
                                                                                    {"FS", &s.fs},
                                                                                    {"GS", &s.gs},
                                                                                    {"LDT", &s.ldt},
                                                                                    {"TR", &s.tr}}};
  for (const auto& [name, segment] : segments) text += Segment(name, *segment, long_mode);
  text += fmt::format("GDT=     {:016x} {:08x}\n", s.gdt.base, s.gdt.limit);
  text += fmt::format("IDT=     {:016x} {:08x}\n", s.idt.base, s.idt.limit);
  text +=
      fmt::format("CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x}\n", s.cr0, s.cr2, s.cr3, s.cr4);
  text += fmt::format("DR0={:016x} DR1={:016x} DR2={:016x} DR3={:016x}\n", set.debug.db[0],
                      set.debug.db[1], set.debug.db[2], set.debug.db[3]);
  text += fmt::format("DR6={:016x} DR7={:016x}\n", set.debug.dr6, set.debug.dr7);
  text += fmt::format("EFER={:016x}\n", s.efer);
  return text;
}

}  // namespace holdfast::control
