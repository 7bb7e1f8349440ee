// SPDX-License-Identifier: Apache-2.0
#include "memory/content_hash.h"

#include <gtest/gtest.h>

#include <array>

namespace holdfast {
namespace {

alignas(64) std::array<std::byte, kPageSize> g_page;

TEST(ContentHash, OfZeroesIsZeroAndOfNothingElse) {
  g_page.fill(std::byte{0});
  EXPECT_EQ(HashPage(g_page, 1), ContentHash());
  for (std::size_t i = 0; i < kPageSize; ++i) {
    g_page[i] = std::byte{0x80};
    EXPECT_NE(HashPage(g_page, 1), ContentHash()) << i;
    g_page[i] = std::byte{0};
  }
}

TEST(ContentHash, DiffersForEachChangedBitAndForEachSeed) {
  g_page.fill(std::byte{0x5a});
  const ContentHash before = HashPage(g_page, 1);
  EXPECT_EQ(HashPage(g_page, 1), before);
  EXPECT_NE(HashPage(g_page, 2), before);
  for (std::size_t i = 0; i < kPageSize; i += 61) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      g_page[i] ^= std::byte{1} << bit;
      EXPECT_NE(HashPage(g_page, 1), before) << i << " " << bit;
      g_page[i] ^= std::byte{1} << bit;
    }
  }
}

}  // namespace
}  // namespace holdfast
