// SPDX-License-Identifier: Apache-2.0
// Checks that every word of a range holds the pattern, which the host wrote.
// Reports: 0, or the address of the first word that does not and then what it holds.
#include "guest.h"

GUEST_ENTRY Start(unsigned long start, unsigned long pages, unsigned long seed) {
  using namespace guests;
  const unsigned long end = start + pages * kPageSize;
  for (unsigned long address = start; address != end; address += 8) {
    const unsigned long found = Word(address);
    if (found == Pattern(seed, address)) continue;
    Report(address);
    Report(found);
    End(1);
  }
  Report(0);
  End(0);
}
