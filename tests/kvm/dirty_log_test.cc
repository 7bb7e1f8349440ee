// SPDX-License-Identifier: Apache-2.0
// KVM's dirty log on a guest_memfd: exact for an unbound slot, refused for a bound one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <guest_images.h>
#include <holdfast/units.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <vector>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

constexpr std::uint64_t kRam = 64 * kMiB;

class DirtyLog : public KvmTest {
 protected:
  // Pages written since the last call, of the free RAM only: stacks are none of our business.
  std::vector<std::uint64_t> TakeDirtyPages(const GuestVm& guest) {
    std::vector<std::uint64_t> bitmap(kRam / kPageSize / 64);
    kvm_dirty_log log{};
    log.slot = guest.RamSlot(false).slot;
    log.dirty_bitmap = bitmap.data();
    EXPECT_EQ(::ioctl(guest.vm().fd(), KVM_GET_DIRTY_LOG, &log), 0) << "errno " << errno;
    std::vector<std::uint64_t> pages;
    for (std::uint64_t page = GuestVm::kFreeRam / kPageSize; page < kRam / kPageSize; ++page)
      if ((bitmap[page / 64] >> page % 64 & 1) != 0) pages.push_back(page * kPageSize);
    return pages;
  }
};

TEST_F(DirtyLog, OfAnUnboundSlotIsExact) {
  auto made = GuestVm::Create({.ram_size = kRam});
  ASSERT_OK(made);
  GuestVm& guest = **made;
  // Everything is mapped writable before tracking begins: the hard case.
  constexpr std::uint64_t kAll = (kRam - GuestVm::kFreeRam) / kPageSize;
  RunWell(guest, guests::kMemwalk, {GuestVm::kFreeRam, kAll, 1});
  ASSERT_OK(guest.vm().SetMemslot(guest.RamSlot(false, KVM_MEM_LOG_DIRTY_PAGES)));
  EXPECT_THAT(TakeDirtyPages(guest), IsEmpty());

  std::vector<std::uint64_t> written;
  for (const std::uint64_t page : {0U, 1U, 63U, 64U, 700U, 12345U}) {
    const std::uint64_t address = GuestVm::kFreeRam + page * kPageSize;
    RunWell(guest, guests::kMemwalk, {address, 1, 2});
    written.push_back(address);
  }
  EXPECT_THAT(TakeDirtyPages(guest), ElementsAreArray(written));
  EXPECT_THAT(TakeDirtyPages(guest), IsEmpty()) << "reading the log clears it";

  // Reading does not dirty; a second write does again.
  RunWell(guest, guests::kMemcheck, {GuestVm::kFreeRam, 0, 0});
  RunWell(guest, guests::kPoke, {written[2], 1});
  EXPECT_THAT(TakeDirtyPages(guest), ElementsAreArray({written[2]}));
}

TEST_F(DirtyLog, DoesNotCountWhatTheHostWritesThroughItsView) {
  auto made = GuestVm::Create({.ram_size = kRam});
  ASSERT_OK(made);
  GuestVm& guest = **made;
  ASSERT_OK(guest.vm().SetMemslot(guest.RamSlot(false, KVM_MEM_LOG_DIRTY_PAGES)));
  guest.SetWord(GuestVm::kFreeRam, 1);
  EXPECT_THAT(TakeDirtyPages(guest), IsEmpty());
}

TEST_F(DirtyLog, WorksOnASlotThatWasBoundBefore) {
  auto made = GuestVm::Create({.ram_size = kRam, .bound = true});
  ASSERT_OK(made);
  GuestVm& guest = **made;
  RunWell(guest, guests::kMemwalk, {GuestVm::kFreeRam, 512, 1});
  ASSERT_OK(guest.vm().DeleteMemslot(guest.RamSlot(true).slot));
  ASSERT_OK(guest.vm().SetMemslot(guest.RamSlot(false, KVM_MEM_LOG_DIRTY_PAGES)));
  constexpr std::uint64_t kPage = GuestVm::kFreeRam + 100 * kPageSize;
  RunWell(guest, guests::kPoke, {kPage, 1});
  EXPECT_THAT(TakeDirtyPages(guest), ElementsAreArray({kPage}));
}

TEST_F(DirtyLog, OfABoundSlotDoesNotExist) {
  auto made = GuestVm::Create({.ram_size = kRam, .bound = true});
  ASSERT_OK(made);
  std::vector<std::uint64_t> bitmap(kRam / kPageSize / 64);
  kvm_dirty_log log{};
  log.dirty_bitmap = bitmap.data();
  EXPECT_EQ(::ioctl((*made)->vm().fd(), KVM_GET_DIRTY_LOG, &log), -1);
  EXPECT_EQ(errno, ENOENT);
}

}  // namespace
}  // namespace holdfast::test
