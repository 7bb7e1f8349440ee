// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "memory/page_pins.h"

namespace holdfast {
namespace {

TEST(PagePinsTest, NamesTheFirstPinnedPageOfARange) {
  auto pins = PagePins::Create(2000);
  ASSERT_TRUE(pins.has_value()) << pins.error().ToString();
  EXPECT_EQ(pins->FirstPinned(0, 2000), std::nullopt);
  pins->Pin(700, 3);
  pins->Pin(1999, 1);
  const struct {
    std::uint64_t first, count;
    std::optional<std::uint64_t> expected;
  } cases[] = {{0, 2000, 700}, {0, 700, std::nullopt},    {0, 701, 700},     {701, 10, 701},
               {702, 10, 702}, {703, 1296, std::nullopt}, {703, 1297, 1999}, {1999, 1, 1999}};
  for (const auto& c : cases)
    EXPECT_EQ(pins->FirstPinned(c.first, c.count), c.expected) << c.first << "+" << c.count;
}

TEST(PagePinsTest, APageIsPinnedUntilItsLastHolderLetsGo) {
  auto pins = PagePins::Create(1024);
  ASSERT_TRUE(pins.has_value());
  pins->Pin(500, 100);  // over the border of a group
  pins->Pin(511, 2);
  pins->Unpin(500, 100);
  EXPECT_EQ(pins->FirstPinned(0, 1024), 511U);
  EXPECT_EQ(pins->FirstPinned(512, 512), 512U);
  pins->Unpin(511, 2);
  EXPECT_EQ(pins->FirstPinned(0, 1024), std::nullopt);
}

TEST(PagePinsTest, NothingIsPinnedByAnEmptyRange) {
  auto pins = PagePins::Create(8);
  ASSERT_TRUE(pins.has_value());
  pins->Pin(0, 0);
  EXPECT_EQ(pins->FirstPinned(0, 8), std::nullopt);
  pins->Unpin(8, 0);
  EXPECT_EQ(pins->FirstPinned(8, 0), std::nullopt);
}

}  // namespace
}  // namespace holdfast
