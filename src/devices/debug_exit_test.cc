// SPDX-License-Identifier: Apache-2.0
#include "devices/debug_exit.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace holdfast::devices {
namespace {

TEST(DebugExit, StatusIsTheValueDoubledPlusOne) {
  const struct {
    const char* why;
    std::vector<std::byte> in;
    int want;
  } kCases[] = {
      {"zero is never success", {std::byte{0}}, 1},
      {"one byte", {std::byte{0x10}}, 0x21},
      {"two bytes, little endian", {std::byte{0x34}, std::byte{0x12}}, 0x2469},
      {"the top bit is shifted out",
       {std::byte{1}, std::byte{0}, std::byte{0}, std::byte{0x80}},
       3},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    std::vector<int> got;
    DebugExit device([&](int status) { got.push_back(status); });
    device.Write(0, c.in);
    EXPECT_EQ(got, std::vector<int>{c.want});
  }
}

TEST(DebugExit, ReadsAsZeroAndDoesNotExit) {
  DebugExit device([](int) { FAIL(); });
  std::array<std::byte, 2> data{std::byte{1}, std::byte{1}};
  device.Read(0, data);
  EXPECT_EQ(data, (std::array<std::byte, 2>{}));
}

}  // namespace
}  // namespace holdfast::devices
