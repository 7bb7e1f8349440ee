// SPDX-License-Identifier: Apache-2.0
#include "base/hash.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace holdfast {
namespace {

std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// From the algorithm's own description: files are read by other programs too.
TEST(Hash, IsXxh3With64BitsAndSeedZero) {
  EXPECT_EQ(Hash64({}), 0x2d06800538d394c2U);
  EXPECT_EQ(Hash64(BytesOf("a")), 0xe6c632b61e964e1fU);
  EXPECT_EQ(Hash64(BytesOf("abc")), 0x78af5f94892f3950U);
}

TEST(AllZero, FindsOneByteWhereverItIs) {
  for (const std::size_t size : {0U, 1U, 15U, 16U, 17U, 64U, 4096U}) {
    std::vector<std::byte> bytes(size);
    EXPECT_TRUE(AllZero(bytes)) << size;
    for (std::size_t at = 0; at < size; ++at) {
      bytes[at] = std::byte{1};
      EXPECT_FALSE(AllZero(bytes)) << size << " " << at;
      bytes[at] = std::byte{0};
    }
  }
}

}  // namespace
}  // namespace holdfast
