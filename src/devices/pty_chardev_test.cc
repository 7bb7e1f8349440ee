// SPDX-License-Identifier: Apache-2.0
#include "devices/pty_chardev.h"

#include <gtest/gtest.h>

#include "devices/chardev_test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;
using testing::Pattern;
using testing::Printer;
using testing::ReadSome;

class PtyChardevTest : public testing::ChardevTest {
 protected:
  void SetUp() override {
    auto made = MakeChardev(*loop_, "pty");
    ASSERT_TRUE(made) << made.error().message();
    chardev_ = *std::move(made);
    ASSERT_TRUE(chardev_->Describe().starts_with("pty:/dev/"));
    Collect(*chardev_);
  }
  UniqueFd OpenSlave() const {
    return UniqueFd(
        ::open(chardev_->Describe().substr(4).c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  }
  // Output before the opener has been noticed is dropped, so repeat it.
  void PrintUntilSeen(const UniqueFd& slave) {
    std::string got;
    EXPECT_TRUE(Until([&] {
      chardev_->Write(Bytes("."));
      ReadSome(slave.get(), got);
      return !got.empty();
    }));
  }

  std::unique_ptr<Chardev> chardev_;
};

TEST_F(PtyChardevTest, WithNobodyThereItDropsOutputAndIsQuiet) {
  Printer printer(*chardev_, Pattern(1'000'000), 1000);
  EXPECT_TRUE(Until([&] { return printer.done(); }));
  EXPECT_LE(TurnsWithin(std::chrono::milliseconds(300)), 10) << "no busy loop on the hang-up";
}

TEST_F(PtyChardevTest, BothDirectionsWorkAndNothingIsTranslated) {
  const UniqueFd slave = OpenSlave();
  ASSERT_TRUE(slave);
  EXPECT_EQ(::write(slave.get(), "a\r\x03\x04z", 5), 5);
  EXPECT_TRUE(Until([&] { return input_.size() == 5; }));
  EXPECT_EQ(input_, "a\r\x03\x04z");
  std::string got;
  chardev_->Write(Bytes("1\n2\r3"));
  EXPECT_TRUE(Until([&] {
    ReadSome(slave.get(), got);
    return got.size() == 5;
  }));
  EXPECT_EQ(got, "1\n2\r3");
  EXPECT_EQ(input_.size(), 5U) << "no echo";
}

TEST_F(PtyChardevTest, ASlowReaderLosesNothing) {
  const UniqueFd slave = OpenSlave();
  EXPECT_EQ(::write(slave.get(), "x", 1), 1);
  ASSERT_TRUE(Until([&] { return input_ == "x"; }));
  const std::string text = Pattern(500'000);
  Printer printer(*chardev_, text, 16);
  EXPECT_TRUE(Until([&] { return printer.stalled(); }));
  std::string got;
  EXPECT_TRUE(Until([&] {
    ReadSome(slave.get(), got);
    return got.size() == text.size();
  }));
  EXPECT_EQ(got, text);
}

TEST_F(PtyChardevTest, TheSlaveMayBeClosedAndOpenedAgain) {
  for (int i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    UniqueFd slave = OpenSlave();
    ASSERT_TRUE(slave);
    PrintUntilSeen(slave);
    input_.clear();
    EXPECT_EQ(::write(slave.get(), "hi", 2), 2);
    EXPECT_TRUE(Until([&] { return input_ == "hi"; }));
    slave.reset();
    Printer printer(*chardev_, Pattern(300'000), 1000);
    EXPECT_TRUE(Until([&] { return printer.done(); })) << "nobody there again";
  }
  EXPECT_LE(TurnsWithin(std::chrono::milliseconds(300)), 10);
}

TEST_F(PtyChardevTest, AQuickVisitorIsHeard) {
  UniqueFd slave = OpenSlave();
  EXPECT_EQ(::write(slave.get(), "in and out", 10), 10);
  slave.reset();
  EXPECT_TRUE(Until([&] { return input_ == "in and out"; }));
}

}  // namespace
}  // namespace holdfast::devices
