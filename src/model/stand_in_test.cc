// SPDX-License-Identifier: Apache-2.0
#include "model/stand_in.h"

#include <gtest/gtest.h>
#include <holdfast/kvm_abi.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include <holdfast/unique_fd.h>

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

constexpr unsigned long kNumber = 0xc080aed2;  // as the kernel has it
constexpr std::uint64_t kStandInPages = 8;

class StandIn : public testing::Test {
 protected:
  StandIn() : fd_(::memfd_create("stands for a guest_memfd", MFD_CLOEXEC)) {
    EXPECT_TRUE(stand_in_.Register(fd_.get(), kStandInPages * kPageSize).has_value());
  }
  // The struct as 16 words: what a test of bytes looks at.
  int Set(int fd, std::array<std::uint64_t, 16>& words) {
    const int answer = kvm::internal::Ioctl(fd, kNumber, reinterpret_cast<unsigned long>(&words));
    return answer < 0 ? -errno : answer;
  }
  KernelStandIn stand_in_;
  UniqueFd fd_;
};

TEST_F(StandIn, WritesTheErrorOffsetAndNothingElseOnlyWhenAPageIsBusy) {
  ASSERT_TRUE(stand_in_.Pin(fd_.get(), 5 * kPageSize));
  std::array<std::uint64_t, 16> words{2 * kPageSize, 6 * kPageSize, 8, 0, 0x1234};
  EXPECT_EQ(Set(fd_.get(), words), -EAGAIN);
  std::array<std::uint64_t, 16> expected{2 * kPageSize, 6 * kPageSize, 8, 0, 5 * kPageSize};
  EXPECT_EQ(words, expected);
  EXPECT_EQ(stand_in_.IsPrivate(fd_.get(), 2 * kPageSize), false);
  ASSERT_TRUE(stand_in_.Unpin(fd_.get(), 5 * kPageSize));
  words[4] = expected[4] = 0x1234;
  EXPECT_EQ(Set(fd_.get(), words), 0);
  EXPECT_EQ(words, expected);
  EXPECT_EQ(stand_in_.IsPrivate(fd_.get(), 2 * kPageSize), true);
  EXPECT_EQ(stand_in_.IsPrivate(fd_.get(), kPageSize), false);
  words[15] = expected[15] = 1;  // the last reserved word
  EXPECT_EQ(Set(fd_.get(), words), -EINVAL);
  EXPECT_EQ(words, expected);
  EXPECT_EQ(stand_in_.asked(), 3U);
  EXPECT_EQ(stand_in_.refused(), 2U);
}

TEST_F(StandIn, KnowsAFileByItsDuplicate) {
  const auto other = fd_.Duplicate();
  ASSERT_TRUE(other.has_value());
  std::array<std::uint64_t, 16> words{0, kPageSize, 8};
  EXPECT_EQ(Set(other->get(), words), 0);
  EXPECT_EQ(stand_in_.IsPrivate(fd_.get(), 0), true);
}

TEST_F(StandIn, FailsAsOftenAsItIsTold) {
  stand_in_.FailNext(2, EAGAIN);
  std::array<std::uint64_t, 16> words{0, kPageSize, 0};
  EXPECT_EQ(Set(fd_.get(), words), 0) << "shared already: nothing to fail";
  words = {kPageSize, kPageSize, 8};
  EXPECT_EQ(Set(fd_.get(), words), -EAGAIN);
  EXPECT_EQ(words[4], kPageSize);
  EXPECT_EQ(Set(fd_.get(), words), -EAGAIN);
  EXPECT_EQ(Set(fd_.get(), words), 0);
}

TEST_F(StandIn, LeavesOtherFilesToTheKernel) {
  const UniqueFd other(::memfd_create("something else", MFD_CLOEXEC));
  std::array<std::uint64_t, 16> words{0, kPageSize, 8};
  EXPECT_EQ(Set(other.get(), words), -ENOTTY);
  EXPECT_FALSE(stand_in_.IsPrivate(other.get(), 0).has_value());
  EXPECT_FALSE(stand_in_.Pin(fd_.get(), kStandInPages * kPageSize)) << "beyond the end";
}

TEST_F(StandIn, OffersTheCapability) {
  EXPECT_EQ(kvm::internal::Ioctl(-1, 0xae03, abi::kCapGuestMemfdMemoryAttributes), 8);
}

}  // namespace
}  // namespace holdfast::model
