// SPDX-License-Identifier: Apache-2.0
#include "base/uuid.h"

#include <gtest/gtest.h>

namespace holdfast {
namespace {

TEST(UuidTest, FirmwareStoresTheFirstPartsLittleEndian) {
  const std::array<std::uint8_t, 16> want = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                             0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
  EXPECT_EQ(FirmwareUuid("00112233-4455-6677-8899-aabbccddeeff"), want);
}

TEST(UuidTest, RandomOnesDifferAndSayTheirVersion) {
  const auto a = RandomUuid();
  const auto b = RandomUuid();
  ASSERT_TRUE(a && b);
  EXPECT_NE(*a, *b);
  EXPECT_EQ(a->size(), 36U);
  EXPECT_EQ((*a)[14], '4');
  EXPECT_EQ((*a)[8], '-');
  EXPECT_EQ((*a)[23], '-');
}

}  // namespace
}  // namespace holdfast
