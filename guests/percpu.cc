// SPDX-License-Identifier: Apache-2.0
// Work of one vCPU among several: adds 1 to the first word of each of its own pages and,
// atomically, to a word that all share, `rounds` times over. Reports: the sum over its own pages.
#include "guest.h"

GUEST_ENTRY Start(unsigned long start, unsigned long pages, unsigned long rounds,
                  unsigned long shared) {
  using namespace guests;
  const unsigned long end = start + pages * kPageSize;
  for (unsigned long round = 0; round != rounds; ++round) {
    for (unsigned long page = start; page != end; page += kPageSize) Word(page) = Word(page) + 1;
    __atomic_fetch_add(reinterpret_cast<unsigned long*>(shared), 1UL, __ATOMIC_SEQ_CST);
  }
  unsigned long sum = 0;
  for (unsigned long page = start; page != end; page += kPageSize) sum += Word(page);
  Report(sum);
  End(0);
}
