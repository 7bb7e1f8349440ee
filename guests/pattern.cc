// SPDX-License-Identifier: Apache-2.0
// A PVH guest that keeps writing a known pattern to its memory, and checks all of it each time
// round: whoever stops it, copies it and lets it go on shows by its output whether a page was lost.
// The kernel command line is how many MiB it uses, from 16 MiB on.
#include "pvh32.h"

namespace {

using namespace guests32;

constexpr u32 kPage = 4096;
constexpr u32 kStart = 16U << 20;

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
  }
}
