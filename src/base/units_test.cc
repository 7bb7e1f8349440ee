// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <holdfast/units.h>

namespace holdfast {
namespace {

TEST(ParseSize, FollowsQemusSizeSyntax) {
  const struct {
    const char* text;
    std::uint64_t default_unit;
    std::optional<std::uint64_t> want;
  } cases[] = {
      {"0", 1, 0},
      {"512", kMiB, 512 * kMiB},
      {"512", 1, 512},
      {"2G", kMiB, 2 * kGiB},
      {"2g", 1, 2 * kGiB},
      {"1.5G", 1, kGiB + 512 * kMiB},
      {"0.25k", 1, 256},
      {"4096b", kMiB, 4096},
      {"0x1000", 1, 4096},
      {"16E", 1, std::nullopt},                   // does not fit 64 bits
      {"18446744073709551616", 1, std::nullopt},  // nor this
      {"15E", 1, 15ULL << 60},
      {"", 1, std::nullopt},
      {"G", 1, std::nullopt},
      {"-1", 1, std::nullopt},
      {"+1", 1, std::nullopt},
      {" 1", 1, std::nullopt},
      {"1 ", 1, std::nullopt},
      {"1.G", 1, std::nullopt},
      {".5G", 1, std::nullopt},
      {"1.2.3", 1, std::nullopt},
      {"1GiB", 1, std::nullopt},
      {"12q", 1, std::nullopt},
      {"0x", 1, std::nullopt},
      {"0x10G", 1, std::nullopt},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    EXPECT_EQ(ParseSize(c.text, c.default_unit), c.want);
  }
}

TEST(FormatSize, IsExactWhereTheNumberIs) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(4096), "4 KiB");
  EXPECT_EQ(FormatSize(kGiB), "1 GiB");
  EXPECT_EQ(FormatSize(kGiB + 512 * kMiB), "1.5 GiB");
  EXPECT_EQ(FormatSize(1000), "1000 B");
  EXPECT_EQ(FormatSize(~0ULL), "16 EiB");
}

TEST(RangeFits, CannotBeFooledByOverflow) {
  EXPECT_TRUE(RangeFits(0, 10, 10));
  EXPECT_TRUE(RangeFits(10, 0, 10));
  EXPECT_FALSE(RangeFits(1, 10, 10));
  EXPECT_FALSE(RangeFits(11, 0, 10));
  EXPECT_FALSE(RangeFits(~0ULL, 2, 10));
  EXPECT_FALSE(RangeFits(2, ~0ULL, 10));
}

}  // namespace
}  // namespace holdfast
