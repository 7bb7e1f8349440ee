// SPDX-License-Identifier: Apache-2.0
#include "object/launch_image.h"

#include <gmock/gmock.h>
#include <holdfast/ram_block.h>
#include <sys/mman.h>

#include <array>

namespace holdfast::object {
namespace {

using ::testing::ElementsAre;

class LaunchImage : public ::testing::Test {
 protected:
  void Map(std::uint64_t base, std::uint64_t size, std::uint64_t offset) {
    ASSERT_TRUE(memory.AddRam(GuestAddress(base), size, *ram, offset));
  }
  void Mark(std::uint64_t at) {
    constexpr std::array kByte = {std::byte{1}};
    ASSERT_TRUE(memory.Write(GuestAddress(at), kByte));
  }
  LaunchRun Run(std::uint64_t base, std::uint64_t size, bool zero) {
    return {.base = GuestAddress(base), .size = size, .zero = zero};
  }

  std::unique_ptr<RamBlock> ram = *RamBlock::CreateMemfd("ram", 16 * kMiB);
  AddressSpace memory{nullptr};
};

TEST_F(LaunchImage, AnEmptyGuestIsOneRunOfZeroes) {
  Map(0, 16 * kMiB, 0);
  const auto runs = FindLaunchRuns(memory);
  ASSERT_TRUE(runs);
  EXPECT_THAT(*runs, ElementsAre(Run(0, 16 * kMiB, true)));
}

TEST_F(LaunchImage, APageWithOneByteInItHasContents) {
  Map(0, 16 * kMiB, 0);
  Mark(5 * kPageSize + kPageSize - 1);
  Mark(6 * kPageSize);
  Mark(16 * kMiB - 1);
  const auto runs = FindLaunchRuns(memory);
  ASSERT_TRUE(runs);
  EXPECT_THAT(*runs,
              ElementsAre(Run(0, 5 * kPageSize, true), Run(5 * kPageSize, 2 * kPageSize, false),
                          Run(7 * kPageSize, 16 * kMiB - 8 * kPageSize, true),
                          Run(16 * kMiB - kPageSize, kPageSize, false)));
}

// Otherwise the measurement would tell how the loader went about it.
TEST_F(LaunchImage, APageThatExistsAndIsZeroIsLikeOneThatDoesNot) {
  Map(0, 16 * kMiB, 0);
  ASSERT_TRUE(memory.Fill(GuestAddress(kMiB), 4 * kMiB, std::byte{}));
  const auto runs = FindLaunchRuns(memory);
  ASSERT_TRUE(runs);
  EXPECT_THAT(*runs, ElementsAre(Run(0, 16 * kMiB, true)));
}

TEST_F(LaunchImage, LookingMakesNoPages) {
  Map(0, 16 * kMiB, 0);
  Mark(0);
  ASSERT_TRUE(FindLaunchRuns(memory));
  std::vector<unsigned char> resident(16 * kMiB / kPageSize);
  ASSERT_EQ(::mincore(ram->host_view().data(), 16 * kMiB, resident.data()), 0);
  const auto pages = std::count_if(resident.begin(), resident.end(),
                                   [](unsigned char page) { return (page & 1U) != 0; });
  EXPECT_EQ(pages, 1);
}

TEST_F(LaunchImage, RegionsLieWhereTheGuestHasThem) {
  Map(0, 4 * kMiB, 8 * kMiB);
  Map(4 * kGiB, 4 * kMiB, 0);
  Mark(kMiB);
  Mark(4 * kGiB + 2 * kMiB);
  const auto runs = FindLaunchRuns(memory);
  ASSERT_TRUE(runs);
  EXPECT_THAT(*runs,
              ElementsAre(Run(0, kMiB, true), Run(kMiB, kPageSize, false),
                          Run(kMiB + kPageSize, 3 * kMiB - kPageSize, true),
                          Run(4 * kGiB, 2 * kMiB, true), Run(4 * kGiB + 2 * kMiB, kPageSize, false),
                          Run(4 * kGiB + 2 * kMiB + kPageSize, 2 * kMiB - kPageSize, true)));
}

}  // namespace
}  // namespace holdfast::object
