// SPDX-License-Identifier: Apache-2.0
#include "memory/host_writes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <functional>
#include <vector>

namespace holdfast {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kSize = 64 * kPageSize;

class HostWritesTest : public ::testing::Test {
 protected:
  HostWritesTest() : block_(RamBlock::CreateMemfd("ram", kSize).value()) {
    EXPECT_TRUE(memory_.AddRam(GuestAddress(0), kSize / 2, *block_, 0));
    EXPECT_TRUE(memory_.AddRam(GuestAddress(kGiB), kSize / 2, *block_, kSize / 2));
  }
  // Page numbers in the block.
  std::vector<std::uint64_t> Collect() {
    DirtyPages dirty(memory_);
    memory_.host_writes().Collect(dirty);
    std::vector<std::uint64_t> pages;
    for (std::uint64_t page = 0; page < kSize / kPageSize; ++page) {
      if (dirty.Find(*block_)->Test(page)) pages.push_back(page);
    }
    return pages;
  }
  static GuestAddress Page(std::uint64_t page) { return GuestAddress(page * kPageSize); }

  std::unique_ptr<RamBlock> block_;
  AddressSpace memory_{nullptr};
};

TEST_F(HostWritesTest, EachWayToWriteCountsItsPagesOnce) {
  std::array<std::byte, 2 * kPageSize> buffer{};
  const UniqueFd file(::memfd_create("file", MFD_CLOEXEC));
  ASSERT_EQ(::write(file.get(), buffer.data(), buffer.size()), static_cast<ssize_t>(buffer.size()));
  struct Case {
    const char* name;
    std::function<Status()> write;
    std::vector<std::uint64_t> pages;
  };
  const Case cases[] = {
      {"Write", [&] { return memory_.Write(Page(3) + 4095, std::span(buffer).first(2)); }, {3, 4}},
      {"Write in another region",
       [&] { return memory_.Write(GuestAddress(kGiB), std::span(buffer).first(1)); },
       {32}},
      {"Fill", [&] { return memory_.Fill(Page(7), 2 * kPageSize, std::byte{1}); }, {7, 8}},
      {"ReadFile",
       [&] { return memory_.ReadFile(file.get(), 0, Page(9), kPageSize + 1); },
       {9, 10}},
      {"ReadFile that ends early",
       [&] {
         EXPECT_FALSE(memory_.ReadFile(file.get(), 0, Page(12), 3 * kPageSize));
         return Status();
       },
       {12, 13, 14}},
      {"Discard", [&] { return memory_.Discard(Page(20), 2 * kPageSize); }, {20, 21}},
      {"Read", [&] { return memory_.Read(Page(1), buffer); }, {}},
      {"Pin to read",
       [&] {
         GuestIoVec pin;
         return memory_.Pin(Page(1), kPageSize, MemoryAccess::kRead, pin);
       },
       {}},
      {"an empty Write", [&] { return memory_.Write(Page(1), {}); }, {}},
  };
  memory_.host_writes().Enable(memory_);
  for (const Case& each : cases) {
    SCOPED_TRACE(each.name);
    ASSERT_TRUE(each.write());
    EXPECT_THAT(Collect(), ::testing::ElementsAreArray(each.pages));
    EXPECT_THAT(Collect(), IsEmpty());
  }
}

TEST_F(HostWritesTest, NothingIsCountedBeforeAndAfter) {
  const std::array<std::byte, 8> word{};
  ASSERT_TRUE(memory_.Write(Page(1), word));
  memory_.host_writes().Enable(memory_);
  EXPECT_THAT(Collect(), IsEmpty());
  ASSERT_TRUE(memory_.Write(Page(2), word));
  memory_.host_writes().Disable();
  EXPECT_THAT(Collect(), IsEmpty());
  memory_.host_writes().Enable(memory_);
  EXPECT_THAT(Collect(), IsEmpty()) << "what was left from the last time";
}

TEST_F(HostWritesTest, WhatIsPinnedCountsWhenItIsPinnedAndWhenItIsLetGo) {
  GuestIoVec early;
  ASSERT_TRUE(memory_.Pin(Page(2), kPageSize, MemoryAccess::kWrite, early));
  memory_.host_writes().Enable(memory_);
  EXPECT_THAT(Collect(), IsEmpty());
  {
    GuestIoVec pin;
    ASSERT_TRUE(memory_.Pin(Page(5), 2 * kPageSize, MemoryAccess::kWrite, pin));
    EXPECT_THAT(Collect(), ElementsAre(5, 6));
    GuestIoVec moved = std::move(pin);
    EXPECT_THAT(Collect(), IsEmpty());
  }
  EXPECT_THAT(Collect(), ElementsAre(5, 6));
  early = GuestIoVec();
  EXPECT_THAT(Collect(), ElementsAre(2)) << "a device may have written it since";
}

TEST_F(HostWritesTest, ARingCountsForAsLongAsItIsHeld) {
  GuestIoVec ring;
  ASSERT_TRUE(memory_.Pin(Page(4), kPageSize, MemoryAccess::kKeepWriting, ring));
  memory_.host_writes().Enable(memory_);
  EXPECT_THAT(Collect(), ElementsAre(4));
  EXPECT_THAT(Collect(), ElementsAre(4));
  ring = GuestIoVec();
  EXPECT_THAT(Collect(), ElementsAre(4));
  EXPECT_THAT(Collect(), IsEmpty());
}

TEST_F(HostWritesTest, WithAnExternalWriterEveryPageCounts) {
  memory_.host_writes().Enable(memory_);
  EXPECT_THAT(Collect(), IsEmpty());
  {
    const auto access = memory_.GrantExternalAccess("vhost");
    ASSERT_TRUE(access);
    EXPECT_THAT(memory_.host_writes().Externals(), ElementsAre("vhost"));
    EXPECT_EQ(Collect().size(), kSize / kPageSize);
    EXPECT_EQ(Collect().size(), kSize / kPageSize);
  }
  EXPECT_EQ(Collect().size(), kSize / kPageSize) << "until it ended";
  EXPECT_THAT(Collect(), IsEmpty());
}

}  // namespace
}  // namespace holdfast
