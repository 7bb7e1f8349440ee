// SPDX-License-Identifier: Apache-2.0
#include "devices/console_mux.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "devices/test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;
using testing::FakeChardev;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using testing::Text;

class ConsoleMuxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    mux_.serial().SetReceiver([this](std::span<const std::byte> data) {
      const std::size_t taken = std::min(data.size(), guest_room_);
      guest_room_ -= taken;
      guest_ += Text(data.first(taken));
      return taken;
    });
    mux_.monitor().SetReceiver([this](std::span<const std::byte> data) {
      monitor_ += Text(data);
      return data.size();
    });
  }
  std::size_t Type(std::string_view text) { return terminal_.receive(Bytes(text)); }

  FakeChardev terminal_;
  std::string hooks_;
  std::string guest_;
  std::string monitor_;
  std::size_t guest_room_ = SIZE_MAX;
  ConsoleMux mux_{terminal_,
                  {.quit = [this] { hooks_ += "quit "; },
                   .send_break = [this] { hooks_ += "break "; },
                   .focus_changed =
                       [this](ConsoleMux::Focus focus) {
                         hooks_ += focus == ConsoleMux::Focus::kMonitor ? "monitor " : "serial ";
                       }}};
};

TEST_F(ConsoleMuxTest, EscapesAreObeyedAndTheRestGoesToTheGuest) {
  const struct {
    const char* why;
    std::string_view typed;
    const char* guest;
    const char* monitor;
    const char* hooks;
  } kCases[] = {
      {"plain", "ls\r", "ls\r", "", ""},
      {"quit", "a\x01x", "a", "", "quit "},
      {"a doubled escape is one", "\x01\x01z", "\x01z", "", ""},
      {"escape, then quit", "\x01\x01\x01x", "\x01", "", "quit "},
      {"break",
       "\x01"
       "b",
       "", "", "break "},
      {"an unknown command is dropped", "\x01qw", "w", "", ""},
      {"to the monitor and back",
       "1\x01"
       "c23\x01"
       "c4",
       "14", "23", "monitor serial "},
      {"no break for the monitor",
       "\x01"
       "c\x01"
       "b\x01"
       "c",
       "", "", "monitor serial "},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    guest_.clear();
    monitor_.clear();
    hooks_.clear();
    EXPECT_EQ(Type(c.typed), c.typed.size());
    EXPECT_EQ(guest_, c.guest);
    EXPECT_EQ(monitor_, c.monitor);
    EXPECT_EQ(hooks_, c.hooks);
    // A byte at a time it is the same.
    guest_.clear();
    hooks_.clear();
    for (const char key : c.typed) Type(std::string_view(&key, 1));
    EXPECT_EQ(guest_, c.guest);
    EXPECT_EQ(hooks_, c.hooks);
  }
}

TEST_F(ConsoleMuxTest, HelpNamesEveryCommand) {
  Type("\x01h");
  for (const char* line : {"C-a h", "C-a x", "C-a s", "C-a t", "C-a b", "C-a c", "C-a C-a"})
    EXPECT_THAT(terminal_.output, HasSubstr(line));
}

TEST_F(ConsoleMuxTest, OutputOfBothIsWritten) {
  EXPECT_EQ(mux_.serial().Write(Bytes("guest ")), 6U);
  EXPECT_EQ(mux_.monitor().Write(Bytes("monitor")), 7U);
  EXPECT_EQ(terminal_.output, "guest monitor");
}

TEST_F(ConsoleMuxTest, AGuestThatReadsNothingDoesNotBlockTheCommands) {
  guest_room_ = 0;
  EXPECT_EQ(Type("typed ahead"), 11U);
  Type("\x01x");
  EXPECT_EQ(hooks_, "quit ");
  guest_room_ = 100;
  Type("");  // what the backend does after ReceiverReady()
  EXPECT_EQ(guest_, "typed ahead");
}

TEST_F(ConsoleMuxTest, BeyondTheTypeAheadInputWaitsAndNothingIsLost) {
  guest_room_ = 0;
  const std::string long_text(ConsoleMux::kTypeAhead + 1, 'x');
  EXPECT_EQ(Type(long_text), ConsoleMux::kTypeAhead);
  EXPECT_EQ(Type("\x01\x01y"), 1U) << "the escape alone is taken";
  guest_room_ = SIZE_MAX;
  EXPECT_EQ(Type("\x01y"), 2U);
  EXPECT_EQ(guest_, std::string(ConsoleMux::kTypeAhead, 'x') + "\x01y");
}

TEST_F(ConsoleMuxTest, TheGuestGetsItsTypeAheadAlsoOutOfFocus) {
  guest_room_ = 0;
  Type(
      "abc\x01"
      "c");
  guest_room_ = 100;
  mux_.serial().ReceiverReady();
  EXPECT_EQ(terminal_.receiver_ready, 3) << "two for the receivers set, one now";
  Type("");
  EXPECT_EQ(guest_, "abc");
}

TEST_F(ConsoleMuxTest, BothHearThatThereIsRoom) {
  std::string heard;
  mux_.serial().SetWritable([&] { heard += 's'; });
  mux_.monitor().SetWritable([&] { heard += 'm'; });
  terminal_.writable();
  EXPECT_EQ(heard, "sm");
}

TEST_F(ConsoleMuxTest, TimestampsStandAtLineStarts) {
  Type("\x01t");
  mux_.serial().Write(Bytes("rest\none\ntwo"));
  mux_.serial().Write(Bytes("2\n"));
  EXPECT_THAT(terminal_.output, MatchesRegex("rest\n\\[00:00:0.\\....\\] one\n"
                                             "\\[00:00:0.\\....\\] two2\n"));
  Type("\x01t");
  terminal_.output.clear();
  mux_.serial().Write(Bytes("plain\n"));
  EXPECT_EQ(terminal_.output, "plain\n");
}

TEST_F(ConsoleMuxTest, ATimestampThatDoesNotFitIsFinishedLater) {
  Type("\x01t");
  const std::string text = "\nx\ny";
  std::size_t sent = 0;
  // One byte of room at a time: what the caller is told it wrote must be all it wrote.
  while (sent < text.size()) {
    terminal_.room = 1;
    sent += mux_.serial().Write(Bytes(std::string_view(text).substr(sent)));
  }
  EXPECT_THAT(terminal_.output, MatchesRegex("\n\\[00:00:0.\\....\\] x\n\\[00:00:0.\\....\\] y"));
}

}  // namespace
}  // namespace holdfast::devices
