// SPDX-License-Identifier: Apache-2.0
// A PVH guest that keeps writing a known pattern to its memory, and checks all of it each time
// round: whoever stops it, copies it and lets it go on shows by its output whether a page was lost.
// The kernel command line is how many MiB it uses, from 16 MiB on.
// 'h' on COM1 makes it stand between two rounds and print a hash of these (32-bit FNV-1a, of words
// instead of bytes), once for each 'h'; with 'g' it goes on.
#include "pvh32.h"

namespace {

using namespace guests32;

constexpr u32 kPage = 4096;
constexpr u32 kStart = 16U << 20;
constexpr u16 kCom1 = 0x3f8;

// What was typed; 0: nothing.
u8 Typed() {
  return (In8(kCom1 + 5) & 1) != 0 ? In8(kCom1) : u8{0};
}

void PrintHash(u32 end) {
  u32 hash = 2166136261U;
  asm volatile("" : : : "memory");
  // A KVM that emulates each of these instructions is slow enough without the loop's own.
  for (const u32* at = reinterpret_cast<const u32*>(kStart); at != reinterpret_cast<u32*>(end);
       at += 8) {
    hash = (hash ^ at[0]) * 16777619U;
    hash = (hash ^ at[1]) * 16777619U;
    hash = (hash ^ at[2]) * 16777619U;
    hash = (hash ^ at[3]) * 16777619U;
    hash = (hash ^ at[4]) * 16777619U;
    hash = (hash ^ at[5]) * 16777619U;
    hash = (hash ^ at[6]) * 16777619U;
    hash = (hash ^ at[7]) * 16777619U;
  }
  Print("pattern: hash ");
  PrintNumber(hash);
  Print("\n");
}

// Until it shall go on.
void Stand(u32 end) {
  PrintHash(end);
  for (;;) {
    const u8 typed = Typed();
    if (typed == 'h') PrintHash(end);
    if (typed == 'g') return;
  }
}

}  // namespace

extern "C" [[noreturn]] void GuestMain(const char* command_line) {
  const u32 end = kStart + (Number(command_line) << 20);
  Print("pattern: start\n");
  for (u32 round = 0;; ++round) {
    for (u32 page = kStart; page != end; page += kPage) {
      // Another word of the page each round, so that all of it counts in the end.
      const u32 word = page + (round % 1024) * 4;
      if (Word(page) != round || (round >= 1024 && Word(word) != round - 1024 && word != page)) {
        Print("pattern: WRONG page ");
        PrintNumber(page / kPage);
        Print(" round ");
        PrintNumber(round);
        Print("\n");
        End(1);
      }
      Word(word) = round;
      Word(page) = round + 1;
    }
    Print("pattern: round ");
    PrintNumber(round);
    Print(" ok\n");
    if (Typed() == 'h') Stand(end);
  }
}
