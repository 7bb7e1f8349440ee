// SPDX-License-Identifier: Apache-2.0
#include "devices/block/nbd_flusher.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace holdfast::devices::block {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using ::testing::HasSubstr;

const std::string kGreeting = "NBDMAGICIHAVEOPT\0\3"s;  // fixed newstyle, no zeroes
// What is asked for the export "e": the flags, and one option.
const std::string kAsked = "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\1e"s;
const std::string kAbout = "\0\0\0\0\0\1\0\0\0\5"s;  // 64 KiB; has flags, can flush
const std::string kFlushAsked = "\x25\x60\x95\x13\0\0\0\3\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0"s;

std::string Reply(std::string_view error, char cookie = 1) {
  return "\x67\x44\x66\x98"s + std::string(error) + "\0\0\0\0\0\0\0"s + cookie;
}

// A server that says something, expects something, and so on, and then closes.
struct Step {
  std::string says;
  std::string expects = {};
};

class NbdFlusherTest : public ::testing::Test {
 protected:
  UniqueFd Serve(std::vector<Step> steps, bool stays = false) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    UniqueFd theirs(ends[0]);
    EXPECT_EQ(::fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    if (stays) kept_ = UniqueFd(::fcntl(theirs.get(), F_DUPFD_CLOEXEC, 0));
    server_ = std::jthread([fd = std::move(theirs), steps = std::move(steps)] {
      for (const Step& step : steps) {
        if (!step.says.empty() &&
            ::send(fd.get(), step.says.data(), step.says.size(), MSG_NOSIGNAL) < 0)
          return;
        std::string got(step.expects.size(), '\0');
        if (got.empty()) continue;
        if (::recv(fd.get(), got.data(), got.size(), MSG_WAITALL) <= 0) return;
        EXPECT_EQ(got, step.expects);
      }
    });
    return UniqueFd(ends[1]);
  }
  // All of it. @return what went wrong
  std::string Use(UniqueFd fd, std::chrono::milliseconds limit = 60s) {
    auto flusher = NbdFlusher::Connect(std::move(fd), "e", limit);
    if (!flusher) return "connect: " + flusher.error().message();
    const Status flushed = flusher->Flush();
    return flushed ? "" : flushed.error().message();
  }

 private:
  UniqueFd kept_;
  std::jthread server_;
};

TEST_F(NbdFlusherTest, AFlushIsAskedForAndWaitedFor) {
  EXPECT_EQ(Use(Serve({{kGreeting, kAsked}, {kAbout, kFlushAsked}, {Reply("\0\0\0\0"s)}})), "");
  // A server that sends zeroes behind what it says of an export.
  const std::string zeroes = "NBDMAGICIHAVEOPT\0\1"s;
  std::string asked = kAsked;
  asked[3] = 1;
  EXPECT_EQ(
      Use(Serve(
          {{zeroes, asked}, {kAbout + std::string(124, '\0'), kFlushAsked}, {Reply("\0\0\0\0"s)}})),
      "");
}

TEST_F(NbdFlusherTest, WhatIsWrongIsSaid) {
  const struct {
    std::vector<Step> steps;
    const char* says;
  } cases[] = {
      {{}, "connect: the storage daemon is gone"},
      {{{"NBDMAGIC"}}, "connect: the storage daemon is gone"},
      {{{"NBDMAGICIHAVEOPX\0\3"s}}, "connect: the storage daemon answers with something else"},
      {{{"NBDMAGICIHAVEOPT\0\2"s}}, "connect: the storage daemon answers with something else"},
      {{{kGreeting, kAsked}}, "connect: the storage daemon is gone"},
      {{{kGreeting, kAsked}, {"\0\0\0\0\0\1\0\0\0\1"s}},
       "connect: the storage daemon cannot flush"},
      {{{kGreeting, kAsked}, {kAbout, kFlushAsked}}, "the storage daemon is gone"},
      {{{kGreeting, kAsked}, {kAbout, kFlushAsked}, {Reply("\0\0\0\5"s)}},
       "the storage daemon cannot flush it: Input/output error"},
      {{{kGreeting, kAsked}, {kAbout, kFlushAsked}, {Reply("\xff\xff\xff\xff"s)}},
       "the storage daemon cannot flush it: Input/output error"},
      {{{kGreeting, kAsked}, {kAbout, kFlushAsked}, {Reply("\0\0\0\0"s, 2)}},
       "the storage daemon answers with something else"},
  };
  for (const auto& c : cases) EXPECT_THAT(Use(Serve(c.steps)), HasSubstr(c.says));
}

TEST_F(NbdFlusherTest, AServerThatSaysNothingIsNotWaitedForForever) {
  EXPECT_THAT(Use(Serve({{"NBD"}}, true), 20ms), HasSubstr("does not answer"));
  EXPECT_THAT(Use(Serve({{kGreeting, kAsked}, {kAbout}}, true), 500ms),
              HasSubstr("does not answer"));
}

}  // namespace
}  // namespace holdfast::devices::block
