// SPDX-License-Identifier: Apache-2.0
#include "devices/net/tap_backend.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "devices/net/test_support.h"

namespace holdfast::devices::net {
namespace {

using testing::Bytes;
using testing::RunUntil;
using testing::TestGuest;

TEST(TapBackend, ALongNameIsAnError) {
  const auto made = TapBackend::Create("net0", {.name = std::string(16, 'x')});
  ASSERT_FALSE(made);
  EXPECT_FALSE(made.error().hint().empty());
}

TEST(TapBackend, WhatIsNoTapIsAnError) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto made = TapBackend::Create("net0", {.name = {}, .fds = {socket.get()}});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message().find(std::to_string(socket.get())), std::string::npos);
}

class RealTapTest : public ::testing::Test {
 protected:
  std::unique_ptr<TapBackend> Make(unsigned queues) {
    auto made = TapBackend::Create(
        "net0", {.name = fmt::format("hf{}", ::getpid() % 1000000), .queues = queues});
    if (!made) {
      reason_ = made.error().message();
      return nullptr;
    }
    return *std::move(made);
  }
  // Sets the interface's flags. @return whether that worked
  static bool BringUp(const std::string& name) {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::memcpy(request.ifr_name, name.c_str(), name.size());
    request.ifr_flags = IFF_UP;
    return ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
  }
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::string reason_;
};

TEST_F(RealTapTest, CarriesFramesBothWays) {
  const auto backend = Make(1);
  if (!backend) GTEST_SKIP() << "cannot make a tap: " << reason_;
  EXPECT_NE(backend->offloads(), 0U);
  EXPECT_TRUE(backend->SetOffloads(backend->offloads()));
  TestGuest guest(*backend, *loop_);
  ASSERT_TRUE(guest.attached());
  ASSERT_TRUE(BringUp(backend->interface()));
  EXPECT_TRUE(guest.Send(Bytes(60)));
  // The kernel itself has something to say on a new link (IPv6's neighbour discovery).
  if (::access("/proc/sys/net/ipv6", F_OK) != 0) GTEST_SKIP() << "no IPv6, so it says nothing";
  EXPECT_TRUE(RunUntil(*loop_, [&] { return !guest.frames().empty(); }));
}

TEST_F(RealTapTest, HasAsManyQueuesAsAskedFor) {
  const auto backend = Make(2);
  if (!backend) GTEST_SKIP() << "cannot make a tap: " << reason_;
  EXPECT_EQ(backend->queue_pairs(), 2U);
  const auto take = [](std::span<const iovec>) { return true; };
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(backend->Attach(0, *loop_, take));
    ASSERT_TRUE(backend->Attach(1, *loop_, take));
    backend->Detach(1);
    backend->Detach(0);
  }
}

}  // namespace
}  // namespace holdfast::devices::net
