// SPDX-License-Identifier: Apache-2.0
// What two monitors of one host tell each other when a guest changes hands: what comes through as
// it was sent, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/hash.h"
#include "migration/cpr_exec.h"
#include "migration/cpr_socket.h"
#include "migration/cpr_state.h"
#include "migration/cpr_transfer.h"

namespace holdfast::migration {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CprState Example() {
  return {.creator = "holdfast 9",
          .stopped_at = 77,
          .fds = {{"ram/pc.ram", 12}, {"netdev/n0/0", 13}},
          .sections = {{"a", 2, std::vector<std::byte>(3000, std::byte{7})}, {"b", 1, {}}}};
}

Result<CprState> Decode(std::span<const std::byte> bytes) {
  HF_TRY(const CprHead head, DecodeCprHead(bytes));
  return DecodeCprState(head, bytes.subspan(CprHead::kSize));
}

TEST(CprStateTest, ComesBackAsItWas) {
  const auto back = Decode(EncodeCprState(Example()));
  ASSERT_TRUE(back) << back.error().ToString();
  EXPECT_EQ(back->creator, "holdfast 9");
  EXPECT_EQ(back->stopped_at, 77U);
  ASSERT_EQ(back->fds.size(), 2U);
  EXPECT_EQ(back->fds[1].name, "netdev/n0/0");
  EXPECT_EQ(back->fds[1].number, 13U);
  ASSERT_EQ(back->sections.size(), 2U);
  EXPECT_EQ(back->sections[0].version, 2U);
  EXPECT_EQ(back->sections[0].bytes.size(), 3000U);
  EXPECT_EQ(back->sections[0].bytes[2999], std::byte{7});
}

TEST(CprStateTest, EveryCutAndEveryChangedByteIsFound) {
  const std::vector<std::byte> good = EncodeCprState(Example());
  for (std::size_t size = 0; size < good.size(); ++size) {
    ASSERT_FALSE(Decode(std::span(good).first(size))) << size;
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{0x40};
    ASSERT_FALSE(Decode(bad)) << at;
  }
}

TEST(CprStateTest, SizesAndVersionsThatCannotBeAreRefused) {
  const struct {
    std::size_t offset;
    std::uint64_t value;
    const char* words;
  } kCases[] = {{16, 0, "cannot have 0 bytes"},
                {16, kMostCprBytes + 1, "cannot have 268435457 bytes"},
                {16, ~0ULL, "cannot have"},
                {8, 0x0000000100000002, "version 2.1"},
                {8, 0x0000000200000001, "version 1.2"},
                {32, 1, "not the state of a monitor"},
                {0, 0, "not the state of a monitor"}};
  for (const auto& c : kCases) {
    std::vector<std::byte> bytes = EncodeCprState(Example());
    std::memcpy(bytes.data() + c.offset, &c.value, sizeof c.value);
    const auto head = DecodeCprHead(bytes);
    ASSERT_FALSE(head) << c.words;
    EXPECT_THAT(head.error().message(), HasSubstr(c.words));
  }
}

TEST(InheritedFdsTest, ANameHasOneDescriptorAndGivesItOnce) {
  InheritedFds fds;
  EXPECT_TRUE(fds.Add("a", UniqueFd(::dup(0))));
  EXPECT_FALSE(fds.Add("a", UniqueFd(::dup(0))));
  EXPECT_FALSE(fds.Add("", UniqueFd(::dup(0))));
  EXPECT_THAT(fds.names(), ElementsAre("a"));
  EXPECT_TRUE(fds.Take("a"));
  EXPECT_FALSE(fds.Take("a"));
  EXPECT_FALSE(fds.Take("b"));
}

TEST(CprOwnerTest, TheGuestIsWhosesClaimsItFirst) {
  for (const bool source_first : {false, true}) {
    const auto source = CprOwner::Create();
    ASSERT_TRUE(source) << source.error().ToString();
    const auto destination = CprOwner::Adopt(UniqueFd(::dup(source->fd())));
    ASSERT_TRUE(destination) << destination.error().ToString();
    if (source_first) {
      EXPECT_TRUE(source->ClaimForSource());
    }
    EXPECT_EQ(destination->ClaimForDestination(), !source_first);
    EXPECT_EQ(source->ClaimForSource(), source_first);
    EXPECT_EQ(destination->ClaimForDestination(), !source_first) << "for good";
  }
}

TEST(CprOwnerTest, MemoryThatCouldVanishIsRefused) {
  UniqueFd plain(::memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(plain.get(), 4096), 0);
  EXPECT_FALSE(CprOwner::Adopt(std::move(plain)));
  EXPECT_FALSE(CprOwner::Adopt(UniqueFd(::dup(0))));
  EXPECT_FALSE(CprOwner::Adopt(UniqueFd()));
}

class CprSocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    raw_ = ends[0];
    left_ = std::make_unique<CprSocket>(UniqueFd(ends[0]));
    right_ = std::make_unique<CprSocket>(UniqueFd(ends[1]));
  }
  void SendRaw(std::span<const std::byte> bytes) const {
    ASSERT_EQ(::send(raw_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  int raw_ = -1;
  std::unique_ptr<CprSocket> left_;
  std::unique_ptr<CprSocket> right_;
};

TEST_F(CprSocketTest, StateAndDescriptorsArrive) {
  const UniqueFd memfd(::memfd_create("it", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(memfd.get(), 12345), 0);
  std::vector<KeptFd> many(150, KeptFd{"x", memfd.get()});  // more than go at once
  std::thread sender([&] {
    EXPECT_TRUE(left_->SendState(Example()));
    EXPECT_TRUE(left_->SendFds(many));
    EXPECT_TRUE(left_->SendGo());
  });
  const auto state = right_->ReceiveState();
  ASSERT_TRUE(state) << state.error().ToString();
  EXPECT_EQ(state->sections.size(), 2U);
  const auto fds = right_->ReceiveFds(many.size());
  ASSERT_TRUE(fds) << fds.error().ToString();
  EXPECT_EQ(fds->size(), 150U);
  EXPECT_EQ(::lseek(fds->back().get(), 0, SEEK_END), 12345);
  EXPECT_TRUE(right_->ReceiveGo());
  sender.join();
}

TEST_F(CprSocketTest, OtherDescriptorsThanNamedAreRefused) {
  const std::vector<KeptFd> two(2, KeptFd{"x", 0});
  ASSERT_TRUE(left_->SendFds(two));
  EXPECT_FALSE(right_->ReceiveFds(1));
  ASSERT_TRUE(left_->SendFds(two));
  EXPECT_FALSE(right_->ReceiveFds(3));
  ASSERT_TRUE(left_->SendGo());
  EXPECT_FALSE(right_->ReceiveFds(1)) << "no descriptors at all";
}

TEST_F(CprSocketTest, AnswersAreThoseThatWereAskedFor) {
  ASSERT_TRUE(left_->SendAnswer(CprAnswer::kLoaded));
  EXPECT_TRUE(right_->ReceiveAnswer(CprAnswer::kLoaded));
  ASSERT_TRUE(left_->SendAnswer(CprAnswer::kError, "the disk\x1b[2J is taken"));
  const Status told = right_->ReceiveAnswer(CprAnswer::kRunning);
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().message(), "the other monitor says: the disk [2J is taken");
  ASSERT_TRUE(left_->SendAnswer(CprAnswer::kRunning));
  EXPECT_FALSE(right_->ReceiveAnswer(CprAnswer::kBuilt));
  const std::uint32_t huge[2] = {255, 0xffffffff};
  SendRaw(std::as_bytes(std::span(huge)));
  EXPECT_FALSE(right_->ReceiveAnswer(CprAnswer::kBuilt)) << "nothing is allocated for it";
}

TEST_F(CprSocketTest, APeerThatGoesIsNoticed) {
  std::vector<std::byte> bytes = EncodeCprState(Example());
  SendRaw(std::span(bytes).first(bytes.size() - 1));
  left_.reset();
  const auto cut = right_->ReceiveState();
  ASSERT_FALSE(cut);
  EXPECT_THAT(cut.error().message(), HasSubstr("closed the connection"));
  right_->WaitForClose();
}

TEST(CprArrivalTest, WhatIsNotTakenStaysAndTheOtherSideHearsWhy) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("cpr-test-" + std::to_string(::getpid())))
          .string();
  const auto owner = CprOwner::Create();
  ASSERT_TRUE(owner);
  std::thread source([&] {
    auto socket = CprSocket::Connect(path);
    for (int i = 0; !socket && i < 60'000; ++i) {
      std::this_thread::yield();
      ::usleep(1000);  // it does not listen yet
      socket = CprSocket::Connect(path);
    }
    ASSERT_TRUE(socket) << socket.error().ToString();
    EXPECT_TRUE(socket->SendState({.fds = {{"ram/m", 0}, {"owner", 0}}}));
    const KeptFd fds[] = {{"ram/m", owner->fd()}, {"owner", owner->fd()}};
    EXPECT_TRUE(socket->SendFds(fds));
    EXPECT_TRUE(socket->ReceiveAnswer(CprAnswer::kBuilt));
    EXPECT_TRUE(socket->SendState(Example()));
    EXPECT_TRUE(socket->ReceiveAnswer(CprAnswer::kLoaded));
    EXPECT_TRUE(owner->ClaimForSource());
    EXPECT_TRUE(socket->SendGo());
    const Status told = socket->ReceiveAnswer(CprAnswer::kRunning);
    ASSERT_FALSE(told);
    EXPECT_THAT(told.error().message(), HasSubstr("too late"));
  });
  {
    InheritedFds fds;
    auto arrival = CprArrival::Wait(path, fds);
    ASSERT_TRUE(arrival) << arrival.error().ToString();
    EXPECT_THAT(fds.names(), ElementsAre("ram/m"));
    EXPECT_FALSE(std::filesystem::exists(path));
    const auto state = (*arrival)->ReceiveState();
    ASSERT_TRUE(state) << state.error().ToString();
    EXPECT_TRUE((*arrival)->Loaded());
    EXPECT_FALSE((*arrival)->Claim()) << "the source was first";
    (*arrival)->Failed(Error(Errc::kSystem, "too late"));
  }
  source.join();
}

TEST(TakeoverTest, OnlyAStateThatIsWholeIsTakenFromTheEnvironment) {
  const auto take = [](const std::string& value) {
    ::setenv("HOLDFAST_TAKEOVER_FD", value.c_str(), 1);
    auto taken = TakeoverFromEnvironment();
    EXPECT_EQ(::getenv("HOLDFAST_TAKEOVER_FD"), nullptr) << "children must not find it";
    return taken;
  };
  ::unsetenv("HOLDFAST_TAKEOVER_FD");
  const auto none = TakeoverFromEnvironment();
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_value());
  for (const char* const value : {"", "x", "-1", "99999", "3 ", "99999999999999999999"}) {
    EXPECT_FALSE(take(value)) << value;
  }
  const auto memfd = [](CprState state) {
    const int fd = ::memfd_create("state", 0);
    const auto bytes = EncodeCprState(std::move(state));
    EXPECT_EQ(::write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    return std::to_string(fd);
  };
  CprState standard = Example();
  standard.fds = {{"ram/m", 1}};
  EXPECT_FALSE(take(memfd(standard))) << "standard output is nobody's RAM";
  EXPECT_FALSE(take(memfd(Example()))) << "descriptors that are not open";
  const int ram = ::memfd_create("ram", 0);
  CprState twice = Example();
  twice.fds = {{"ram/a", static_cast<std::uint32_t>(ram)},
               {"ram/b", static_cast<std::uint32_t>(ram)}};
  EXPECT_FALSE(take(memfd(twice)));
  const int good = ::memfd_create("ram", 0);
  CprState right = Example();
  right.fds = {{"ram/a", static_cast<std::uint32_t>(good)}};
  auto taken = take(memfd(right));
  ASSERT_TRUE(taken) << taken.error().ToString();
  ASSERT_TRUE(taken->has_value());
  EXPECT_EQ((*taken)->fds.Take("ram/a").get(), good);
  EXPECT_EQ((*taken)->state.sections.size(), 2U);
}

}  // namespace
}  // namespace holdfast::migration
