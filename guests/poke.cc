// SPDX-License-Identifier: Apache-2.0
// Writes a word at an address and reads another from the next: RAM or a device's registers.
// Reports: what it read.
#include "guest.h"

GUEST_ENTRY Start(unsigned long address, unsigned long value) {
  guests::Word(address) = value;
  guests::Report(guests::Word(address + 8));
  guests::End(0);
}
