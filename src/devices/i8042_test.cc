// SPDX-License-Identifier: Apache-2.0
#include "devices/i8042.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace holdfast::devices {
namespace {

class I8042Test : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(controller_.MapOn(io_)); }

  std::uint8_t In(std::uint16_t port) {
    std::array<std::byte, 1> data{};
    EXPECT_TRUE(io_.Read(port, data));
    return std::to_integer<std::uint8_t>(data[0]);
  }
  void Out(std::uint16_t port, std::uint8_t value) {
    EXPECT_TRUE(io_.Write(port, std::array{std::byte{value}}));
  }
  void Command(std::uint8_t value) { Out(I8042::kCommandPort, value); }
  void Data(std::uint8_t value) { Out(I8042::kDataPort, value); }
  bool Full() { return (In(I8042::kCommandPort) & I8042::kStatusOutputFull) != 0; }

  int resets_ = 0;
  I8042 controller_{[this] { ++resets_; }};
  Bus io_;
};

TEST_F(I8042Test, IsEmptyAtFirst) {
  EXPECT_EQ(In(I8042::kCommandPort) & 0x03, 0) << "neither buffer is full";
  EXPECT_EQ(In(I8042::kSystemControlPort), 0x02) << "A20 is on";
}

TEST_F(I8042Test, AnswersCommandsOnce) {
  const struct {
    const char* why;
    std::uint8_t command;
    std::uint8_t want;
  } kCases[] = {
      {"self test", 0xaa, 0x55},
      {"no keyboard", 0xab, 0x01},
      {"no mouse", 0xa9, 0x01},
      {"configuration", 0x20, 0x74},
      {"output port: not in reset, A20 on", 0xd0, 0x03},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    Command(c.command);
    EXPECT_TRUE(Full());
    EXPECT_EQ(In(I8042::kDataPort), c.want);
    EXPECT_FALSE(Full());
  }
}

TEST_F(I8042Test, ConfigurationIsKept) {
  Command(0x60);
  Data(0x43);
  Command(0xad);
  Command(0x20);
  EXPECT_EQ(In(I8042::kDataPort), 0x53);
  Command(0xae);
  Command(0x20);
  EXPECT_EQ(In(I8042::kDataPort), 0x43);
}

TEST_F(I8042Test, BytesForTheKeyboardGetNoAnswer) {
  Data(0xff);  // keyboard reset
  EXPECT_FALSE(Full());
  Command(0xd4);
  Data(0xff);  // mouse reset
  EXPECT_FALSE(Full());
}

TEST_F(I8042Test, LoopbackWorksAsDriversProbeIt) {
  Command(0xd3);
  Data(0x5a);
  EXPECT_TRUE(Full());
  EXPECT_EQ(In(I8042::kDataPort), 0x5a);
}

TEST_F(I8042Test, ResetsOnlyWhenAsked) {
  using Writes = std::vector<std::pair<std::uint16_t, std::uint8_t>>;
  const struct {
    const char* why;
    Writes writes;
    int want;
  } kCases[] = {
      {"pulse the reset line", {{0x64, 0xfe}}, 1},
      {"pulse it with others", {{0x64, 0xf0}}, 1},
      {"pulse nothing", {{0x64, 0xff}}, 0},
      {"output port with reset low", {{0x64, 0xd1}, {0x60, 0x02}}, 1},
      {"output port, A20 only", {{0x64, 0xd1}, {0x60, 0xdf}}, 0},
      {"a data byte alone", {{0x60, 0xfe}}, 0},
      {"fast reset", {{0x92, 0x01}}, 1},
      {"fast reset, held", {{0x92, 0x01}, {0x92, 0x01}}, 1},
      {"A20 by port 0x92", {{0x92, 0x02}, {0x92, 0x00}}, 0},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    controller_.Reset();
    resets_ = 0;
    for (const auto& [port, value] : c.writes) Out(port, value);
    EXPECT_EQ(resets_, c.want);
    EXPECT_NE(In(I8042::kSystemControlPort) & 0x02, 0) << "A20 stays on";
  }
}

TEST_F(I8042Test, StateMoves) {
  Command(0xaa);
  I8042 other({});
  other.Restore(controller_.Save());
  std::array<std::byte, 1> data{};
  other.Read(0, data);
  EXPECT_EQ(data[0], std::byte{0x55});
}

}  // namespace
}  // namespace holdfast::devices
