// SPDX-License-Identifier: Apache-2.0
// Writes a pattern to the first and last word of each page of a range, then reads it all back.
// Reports: the number of pages that did not hold it; if any, the address of the first one.
#include "guest.h"

GUEST_ENTRY Start(unsigned long start, unsigned long pages, unsigned long seed) {
  using namespace guests;
  const unsigned long end = start + pages * kPageSize;
  for (unsigned long page = start; page != end; page += kPageSize) {
    const unsigned long last = page + kPageSize - 8;
    Word(page) = Pattern(seed, page);
    Word(last) = Pattern(seed, last);
  }
  unsigned long wrong = 0;
  unsigned long first = 0;
  for (unsigned long page = start; page != end; page += kPageSize) {
    const unsigned long last = page + kPageSize - 8;
    if (Word(page) == Pattern(seed, page) && Word(last) == Pattern(seed, last)) continue;
    if (wrong++ == 0) first = page;
  }
  Report(wrong);
  if (wrong != 0) Report(first);
  End(wrong == 0 ? 0 : 1);
}
