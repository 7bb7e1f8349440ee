// SPDX-License-Identifier: Apache-2.0
// Rings the doorbell `rounds` times for one page, private and shared in turn; with `page` 0 for
// nothing at all. Reports nothing.
#include "guest.h"

GUEST_ENTRY Start(unsigned long page, unsigned long rounds, unsigned long mailbox_page) {
  using namespace guests;
  volatile Mailbox& mailbox = *reinterpret_cast<volatile Mailbox*>(mailbox_page);
  mailbox.address = page;
  mailbox.pages = page == 0 ? 0 : 1;
  for (unsigned long round = 0; round != rounds; ++round) {
    mailbox.to_private = (round & 1) ^ 1;
    Out32(kDoorbellPort, static_cast<unsigned>(mailbox_page / kPageSize));
    if (mailbox.result != kConverted) End(1);
  }
  End(0);
}
