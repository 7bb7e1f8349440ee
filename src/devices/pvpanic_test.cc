// SPDX-License-Identifier: Apache-2.0
#include "devices/pvpanic.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace holdfast::devices {
namespace {

using enum Pvpanic::Event;

TEST(Pvpanic, ReportsTheEventTheGuestWrites) {
  const struct {
    const char* why;
    std::uint8_t events;
    std::uint64_t offset;
    std::uint8_t in;
    std::vector<Pvpanic::Event> want;
  } kCases[] = {
      {"panic", 3, 0, 1, {kPanicked}},
      {"crash kernel", 3, 0, 2, {kCrashLoaded}},
      {"of two the graver", 3, 0, 3, {kPanicked}},
      {"unknown bits", 3, 0, 0xfc, {}},
      {"an event that was not offered", 2, 0, 1, {}},
      {"wrong offset", 3, 1, 1, {}},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    std::vector<Pvpanic::Event> got;
    Pvpanic device(c.events, [&](Pvpanic::Event event) { got.push_back(event); });
    device.Write(c.offset, std::array{std::byte{c.in}});
    EXPECT_EQ(got, c.want);
  }
}

TEST(Pvpanic, ReadsAsTheEventsOfferedThatExist) {
  Pvpanic device(0xff, {});
  std::array<std::byte, 2> data{};
  device.Read(0, data);
  EXPECT_EQ(data, (std::array{std::byte{3}, std::byte{0xff}}));
  device.Write(0, std::array{std::byte{1}});  // nobody listens: nothing happens
}

}  // namespace
}  // namespace holdfast::devices
