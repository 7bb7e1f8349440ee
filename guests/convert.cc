// SPDX-License-Identifier: Apache-2.0
// Converts random ranges of its own pages both ways, `rounds` times, and writes and checks every
// page meanwhile: what a page holds survives, whatever it is. Reports: pages that held something
// else, conversions done, conversions refused because a page was busy.
//
// The mailbox's page also holds how often each page was written, a byte each: 3 Ki pages at most.
#include "guest.h"

namespace guests {
namespace {

// Marsaglia's xorshift with 64 bits: shifts 13, 7 and 17.
class Random {
 public:
  explicit Random(unsigned long seed) : state_(seed * 2 + 1) {}
  unsigned long Below(unsigned long limit) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return (state_ >> 11) % limit;
  }

 private:
  unsigned long state_;
};

class Pages {
 public:
  Pages(unsigned long start, unsigned char* versions) : start_(start), versions_(versions) {}

  void Write(unsigned long index) {
    const unsigned long page = start_ + index * kPageSize;
    if (++versions_[index] == 0) versions_[index] = 1;  // 0 is for pages that were never written
    const unsigned long stamp = Stamp(page, versions_[index]);
    Word(page) = stamp;
    Word(page + kPageSize - 8) = stamp;
  }
  bool IsRight(unsigned long index) const {
    const unsigned long page = start_ + index * kPageSize;
    // Never written: zeroes.
    const unsigned long stamp = versions_[index] == 0 ? 0 : Stamp(page, versions_[index]);
    return Word(page) == stamp && Word(page + kPageSize - 8) == stamp;
  }

 private:
  unsigned long start_;
  unsigned char* versions_;
};

}  // namespace
}  // namespace guests

GUEST_ENTRY Start(unsigned long start, unsigned long pages, unsigned long rounds,
                  unsigned long mailbox_page, unsigned long seed) {
  using namespace guests;
  volatile Mailbox& mailbox = *reinterpret_cast<volatile Mailbox*>(mailbox_page);
  Pages all(start, reinterpret_cast<unsigned char*>(mailbox_page + 1024));
  Random random(seed);
  unsigned long wrong = 0;
  unsigned long converted = 0;
  unsigned long busy = 0;
  for (unsigned long round = 0; round != rounds; ++round) {
    const unsigned long first = random.Below(pages);
    const unsigned long most = random.Below(8) == 0 ? pages - first : 16;
    const unsigned long room = pages - first;
    const unsigned long count = 1 + random.Below(most < room ? most : room);
    mailbox.address = start + first * kPageSize;
    mailbox.pages = count;
    mailbox.to_private = random.Below(2);
    Out32(kDoorbellPort, static_cast<unsigned>(mailbox_page / kPageSize));
    if (mailbox.result == kConverted) {
      ++converted;
    } else if (mailbox.result == kBusy) {
      ++busy;
    } else {
      End(2);
    }
    for (unsigned long i = first; i != first + count; ++i) {
      if (!all.IsRight(i)) ++wrong;
      all.Write(i);
    }
    if (!all.IsRight(random.Below(pages))) ++wrong;
  }
  for (unsigned long i = 0; i != pages; ++i) {
    if (!all.IsRight(i)) ++wrong;
  }
  Report(wrong);
  Report(converted);
  Report(busy);
  End(wrong == 0 ? 0 : 1);
}
