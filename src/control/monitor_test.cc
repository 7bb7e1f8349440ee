// SPDX-License-Identifier: Apache-2.0
#include "control/monitor.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "devices/chardev.h"

namespace holdfast::control {
namespace {

// A chardev whose host end is the test.
class FakeChardev final : public devices::Chardev {
 public:
  std::size_t Write(std::span<const std::byte> data) noexcept override {
    const std::size_t take = std::min(data.size(), room);
    output.append(reinterpret_cast<const char*>(data.data()), take);
    room -= take;
    return take;
  }
  void SetReceiver(Receiver new_receiver) override { receiver = std::move(new_receiver); }
  void SetWritable(WritableCallback callback) override { writable = std::move(callback); }
  void ReceiverReady() noexcept override {}
  void Flush() noexcept override {}
  std::string Describe() const override { return "fake"; }

  void Type(std::string_view text) { receiver(std::as_bytes(std::span(text))); }

  std::string output;
  std::size_t room = 1U << 20;
  Receiver receiver;
  WritableCallback writable;
};

class MonitorTest : public ::testing::Test {
 protected:
  FakeChardev front_;
  std::string lines_;  // what the monitor was asked to run
  Monitor monitor_{front_, "0.1.0", [this](std::string_view line) {
                     lines_ += fmt::format("[{}]", line);
                     return std::string(line == "two" ? "first\nsecond\n" : "");
                   }};
};

TEST_F(MonitorTest, GreetsWithVersionAndPrompt) {
  monitor_.Greet();
  EXPECT_EQ(front_.output,
            "Holdfast 0.1.0 monitor - type 'help' for more information\r\n(holdfast) ");
}

TEST_F(MonitorTest, RunsEachLineAndPromptsAgain) {
  front_.Type("  two words \rtwo\r\r");
  EXPECT_EQ(lines_, "[  two words ][two][]");
  EXPECT_EQ(front_.output,
            "  two words \r\n(holdfast) two\r\nfirst\r\nsecond\r\n(holdfast) \r\n(holdfast) ");
}

TEST_F(MonitorTest, ControlCDropsTheLine) {
  front_.Type("qui\x03");
  EXPECT_EQ(lines_, "");
  EXPECT_TRUE(front_.output.ends_with("(holdfast) ")) << front_.output;
}

TEST_F(MonitorTest, OutputThatDoesNotFitFollowsWhenThereIsRoom) {
  front_.room = 5;
  monitor_.Greet();
  EXPECT_EQ(front_.output, "Holdf");
  front_.room = 1000;
  front_.writable();
  EXPECT_TRUE(front_.output.ends_with("(holdfast) "));
}

}  // namespace
}  // namespace holdfast::control
