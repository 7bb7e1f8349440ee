// SPDX-License-Identifier: Apache-2.0
// A PVH guest that converts its memory by the hypercall KVM_HC_MAP_GPA_RANGE and looks at what
// comes of it. The kernel command line is the size of its RAM in MiB.
#include "pvh32.h"

namespace {

using namespace guests32;

constexpr u32 kPage = 4096;
constexpr u32 kFree = 8U << 20;  // RAM that nobody uses
constexpr u32 kShared = 0;
constexpr u32 kPrivate = 1U << 4;
constexpr u32 kMapGpaRange = 12;
constexpr int kInvalid = -22;  // EINVAL

struct Cpuid {
  u32 eax, ebx, ecx, edx;
};
Cpuid AskCpuid(u32 leaf) {
  Cpuid answer;
  asm volatile("cpuid"
               : "=a"(answer.eax), "=b"(answer.ebx), "=c"(answer.ecx), "=d"(answer.edx)
               : "a"(leaf), "c"(0));
  return answer;
}

// Which of the two instructions the processor has.
bool amd = false;

int Map(u32 address, u32 pages, u32 attribute) {
  int result;
  if (amd) {
    asm volatile("vmmcall"
                 : "=a"(result)
                 : "a"(kMapGpaRange), "b"(address), "c"(pages), "d"(attribute)
                 : "memory");
  } else {
    asm volatile("vmcall"
                 : "=a"(result)
                 : "a"(kMapGpaRange), "b"(address), "c"(pages), "d"(attribute)
                 : "memory");
  }
  return result;
}

u32 wrong = 0;

void Check(const char* what, int found, int expected) {
  if (found == expected) return;
  ++wrong;
  Print(what);
  Print(": -");
  PrintNumber(static_cast<u32>(-found));
  Print(" instead of -");
  PrintNumber(static_cast<u32>(-expected));
  Print("\n");
}

u32 Pattern(u32 address, u32 round) {
  return (address + round) * 0x9e3779b9U;
}
void Write(u32 start, u32 pages, u32 round) {
  for (u32 at = start; at != start + pages * kPage; at += 512) Word(at) = Pattern(at, round);
}
void Read(const char* what, u32 start, u32 pages, u32 round) {
  for (u32 at = start; at != start + pages * kPage; at += 512) {
    if (Word(at) == Pattern(at, round)) continue;
    ++wrong;
    Print(what);
    Print(": other contents\n");
    return;
  }
}

}  // namespace

extern "C" [[noreturn]] void GuestMain(const char* command_line) {
  const u32 ram_pages = Number(command_line) << 8;
  amd = AskCpuid(0).ebx == 0x68747541;  // "Auth"
  const bool offered = (AskCpuid(0x40000001).eax >> 16 & 1) != 0;
  Print(offered ? "hypercall offered\n" : "hypercall not offered\n");

  Write(kFree, 16, 1);
  Check("to private", Map(kFree, 16, kPrivate), 0);
  Read("private now", kFree, 16, 1);
  Write(kFree, 16, 2);
  Check("some to shared", Map(kFree + 4 * kPage, 4, kShared), 0);
  Read("some shared", kFree, 16, 2);
  Check("again", Map(kFree + 4 * kPage, 4, kShared), 0);

  const struct {
    const char* what;
    u32 address, pages, attribute;
  } bad[] = {
      {"unaligned", kFree + 1, 1, kPrivate},
      {"nothing", kFree, 0, kPrivate},
      {"beyond RAM", ram_pages * kPage, 1, kPrivate},
      {"over the end of RAM", (ram_pages - 1) * kPage, 2, kPrivate},
      {"MMIO", 0xfee00000, 1, kPrivate},
      {"more than there is", 0, ~0U, kPrivate},
  };
  for (const auto& one : bad) Check(one.what, Map(one.address, one.pages, one.attribute), kInvalid);
  Check("MMIO is shared", Map(0xfee00000, 1, kShared), 0);

  Check("all of it to private", Map(0, ram_pages, kPrivate), 0);
  Read("all private", kFree, 16, 2);
  Check("all of it to shared", Map(0, ram_pages, kShared), 0);
  Read("all shared", kFree, 16, 2);

  // For the host to look at: 16 pages, private.
  Check("to private for the host", Map(kFree, 16, kPrivate), 0);
  Print(wrong == 0 ? "conversions: right\n" : "conversions: wrong\n");
  End(wrong == 0 ? 0 : 1);
}
