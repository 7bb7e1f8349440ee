// SPDX-License-Identifier: Apache-2.0
#include "apps/prealloc_progress.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <array>
#include <string>

#include <holdfast/unique_fd.h>

namespace holdfast::apps {
namespace {

constexpr object::AllocateProgress kHalf{.id = "m", .done = 1 << 20, .total = 2 << 20};

TEST(PreallocProgressTest, GivesUpAsSoonAsSomebodyWantsTheEnd) {
  bool interrupted = false;
  PreallocProgress progress([&] { return interrupted; }, -1);
  EXPECT_TRUE(progress.Report(kHalf));
  interrupted = true;
  EXPECT_FALSE(progress.Report(kHalf));
}

// What a terminal shows, read from its other end.
class PreallocTerminalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int master = -1;
    int slave = -1;
    ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    theirs_.reset(master);
    ours_.reset(slave);
  }
  // Reads up to and with `text`; a terminal hands things on in pieces.
  std::string ReadUntil(std::string_view text) {
    std::string all;
    std::array<char, 256> piece{};
    while (all.find(text) == std::string::npos) {
      const ssize_t got = ::read(theirs_.get(), piece.data(), piece.size());
      if (got <= 0) break;
      all.append(piece.data(), static_cast<std::size_t>(got));
    }
    return all;
  }

  UniqueFd theirs_;
  UniqueFd ours_;
};

TEST_F(PreallocTerminalTest, ShowsHowFarItIsAndWipesItAgain) {
  using std::chrono::steady_clock;
  {
    PreallocProgress progress({}, ours_.get(), steady_clock::now() - std::chrono::seconds(2));
    EXPECT_TRUE(progress.Report(kHalf));
  }
  EXPECT_EQ(ReadUntil("\r\x1b[K"), "\rpreallocating 'm':  50 % of 2 MiB\x1b[K\r\x1b[K");
}

TEST_F(PreallocTerminalTest, IsSilentInTheFirstSecond) {
  using std::chrono::steady_clock;
  {
    PreallocProgress progress({}, ours_.get(), steady_clock::now() + std::chrono::hours(1));
    EXPECT_TRUE(progress.Report(kHalf));
  }
  ASSERT_EQ(::write(ours_.get(), "end", 3), 3);
  EXPECT_EQ(ReadUntil("end"), "end");
}

}  // namespace
}  // namespace holdfast::apps
