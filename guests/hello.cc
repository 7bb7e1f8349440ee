// SPDX-License-Identifier: Apache-2.0
// Prints a line and ends.
#include "guest.h"

GUEST_ENTRY Start() {
  guests::Print("hello from ring 3\n");
  guests::End(0);
}
