// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost_user/front_end.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>
#include <thread>

#include <holdfast/conversion.h>
#include <holdfast/ram_block.h>

#include "base/fd_passing.h"

namespace holdfast::devices::vhost_user {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::milliseconds kShort{200};

std::vector<std::byte> Bytes64(std::uint64_t value) {
  std::vector<std::byte> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::vector<std::byte> RawMessage(std::uint32_t request, std::uint32_t flags, std::uint32_t size,
                                  std::span<const std::byte> payload) {
  const Header header{request, flags, size};
  std::vector<std::byte> bytes(sizeof header);
  std::memcpy(bytes.data(), &header, sizeof header);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

// A back end that does what its script says, on a thread of its own.
class ScriptedBackend {
 public:
  using Script = std::function<void(Channel&)>;
  explicit ScriptedBackend(Script script) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) std::abort();
    front_.reset(ends[0]);
    thread_ = std::thread([script = std::move(script), fd = ends[1]] {
      Channel channel{UniqueFd(fd)};
      script(channel);
    });
  }
  ~ScriptedBackend() { thread_.join(); }
  UniqueFd front() { return std::move(front_); }

 private:
  UniqueFd front_;
  std::thread thread_;
};

// Answers as a complete back end does, until the front end has gone. @return what it was told
struct Seen {
  std::vector<std::uint32_t> requests;
  std::vector<MemoryRegion> regions;
  std::vector<UniqueFd> memory;
  std::uint64_t features = 0;
};
void Answer(Channel& channel, std::uint64_t protocol, Seen& seen) {
  for (;;) {
    auto message = channel.Receive();
    if (!message) return;
    const auto request = static_cast<Request>(message->header.request);
    seen.requests.push_back(message->header.request);
    std::vector<std::byte> reply;
    bool replies = (message->header.flags & kFlagNeedReply) != 0;
    if (replies) reply = Bytes64(0);
    switch (request) {
      case Request::kGetFeatures:
        reply = Bytes64(kFeatureProtocol | (1ULL << 32));
        replies = true;
        break;
      case Request::kGetProtocolFeatures:
        reply = Bytes64(protocol);
        replies = true;
        break;
      case Request::kGetQueueNum:
        reply = Bytes64(4);
        replies = true;
        break;
      case Request::kGetConfig:
        reply = message->payload;
        for (std::size_t i = sizeof(ConfigHead); i < reply.size(); ++i) reply[i] = std::byte{7};
        replies = true;
        break;
      case Request::kGetVringBase:
        reply = message->payload;
        replies = true;
        break;
      case Request::kSetFeatures:
        std::memcpy(&seen.features, message->payload.data(), sizeof seen.features);
        break;
      case Request::kSetMemTable:
        seen.regions.resize((message->payload.size() - 8) / sizeof(MemoryRegion));
        std::memcpy(seen.regions.data(), message->payload.data() + 8,
                    seen.regions.size() * sizeof(MemoryRegion));
        seen.memory = std::move(message->fds);
        break;
      default:
        break;
    }
    if (replies && !channel.Send(message->header.request, reply, {}, kFlagReply)) return;
  }
}

constexpr std::uint64_t kAll = kProtocolMq | kProtocolReplyAck | kProtocolConfig | kProtocolStatus;

TEST(FrontEndTest, AgreesOnWhatBothKnow) {
  Seen seen;
  {
    ScriptedBackend backend([&](Channel& channel) { Answer(channel, kAll | (1ULL << 60), seen); });
    const auto front =
        FrontEnd::Connect(backend.front(), {.protocol_features = kProtocolMq | kProtocolConfig});
    ASSERT_TRUE(front) << front.error().ToString();
    EXPECT_TRUE((*front)->has(kProtocolConfig));
    EXPECT_FALSE((*front)->has(kProtocolStatus));
    EXPECT_EQ((*front)->max_queues(), 4U);
    const auto config = (*front)->GetConfig(60);
    ASSERT_TRUE(config);
    EXPECT_EQ(*config, std::vector(60, std::byte{7}));
    EXPECT_TRUE((*front)->StopQueue(0));
    // The bit that says that there are protocol features stays, or queues start by themselves.
    EXPECT_TRUE((*front)->SetFeatures(1ULL << 32));
  }
  EXPECT_EQ(seen.features, kFeatureProtocol | (1ULL << 32));
}

TEST(FrontEndTest, GivesTheMemorysDescriptorsAway) {
  auto block = RamBlock::CreateMemfd("ram", 8 << 20);
  ASSERT_TRUE(block);
  AddressSpace space(nullptr);
  ASSERT_TRUE(space.AddRam(GuestAddress(0), 2 << 20, **block, 0));
  ASSERT_TRUE(space.AddRam(GuestAddress(1ULL << 32), 6 << 20, **block, 2 << 20));
  Seen seen;
  {
    ScriptedBackend backend([&](Channel& channel) { Answer(channel, kAll, seen); });
    const auto front = FrontEnd::Connect(backend.front(), {.protocol_features = kAll});
    ASSERT_TRUE(front);
    const Status set = (*front)->SetMemory(space);
    ASSERT_TRUE(set) << set.error().ToString();
  }
  ASSERT_EQ(seen.regions.size(), 2U);
  ASSERT_EQ(seen.memory.size(), 2U);
  EXPECT_EQ(seen.regions[1].guest_address, 1ULL << 32);
  EXPECT_EQ(seen.regions[1].size, 6U << 20);
  EXPECT_EQ(seen.regions[1].mmap_offset, 2U << 20);
  // What one writes the other sees.
  void* const theirs = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, seen.memory[1].get(), 2 << 20);
  ASSERT_NE(theirs, MAP_FAILED);
  const std::byte mark{42};
  ASSERT_TRUE(space.Write(GuestAddress(1ULL << 32), {&mark, 1}));
  EXPECT_EQ(*static_cast<const std::byte*>(theirs), mark);
  ::munmap(theirs, 4096);
}

// Converts nothing, but says that it could.
class IdleEngine final : public ConversionEngine {
 public:
  ConversionEngineKind kind() const noexcept override { return ConversionEngineKind::kGuard; }
  bool contents_survive() const noexcept override { return true; }
  Result<Busy> Apply(std::uint64_t, std::uint64_t, MemoryAttribute) override { return Busy(); }
};

TEST(FrontEndTest, MemoryThatMayBecomePrivateIsNeverHandedOut) {
  auto block = RamBlock::CreateMemfd("ram", 1 << 20);
  ASSERT_TRUE(block);
  ASSERT_TRUE((*block)->EnableConversion(std::make_unique<IdleEngine>()));
  AddressSpace space(nullptr);
  ASSERT_TRUE(space.AddRam(GuestAddress(0), 1 << 20, **block, 0));
  const Status checked = CheckMemory(space);
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().message(), HasSubstr("pages of 'ram' may become private"));
}

TEST(FrontEndTest, ARefusalIsAnError) {
  auto block = RamBlock::CreateMemfd("ram", 1 << 20);
  ASSERT_TRUE(block);
  AddressSpace space(nullptr);
  ASSERT_TRUE(space.AddRam(GuestAddress(0), 1 << 20, **block, 0));
  ScriptedBackend backend([](Channel& channel) {
    for (;;) {
      auto message = channel.Receive();
      if (!message) return;
      const bool greeting = message->header.request != 5;
      const bool asks = message->header.request == 1 || message->header.request == 15 ||
                        (message->header.flags & kFlagNeedReply) != 0;
      const auto value = message->header.request == 1    ? kFeatureProtocol
                         : message->header.request == 15 ? std::uint64_t{kProtocolReplyAck}
                                                         : std::uint64_t{greeting ? 0U : 1U};
      if (asks) (void)channel.Send(message->header.request, Bytes64(value), {}, kFlagReply);
    }
  });
  const auto front = FrontEnd::Connect(backend.front(), {.protocol_features = kAll});
  ASSERT_TRUE(front);
  const Status set = (*front)->SetMemory(space);
  ASSERT_FALSE(set);
  EXPECT_THAT(set.error().message(), HasSubstr("refuses request 5"));
}

// What a back end may answer to the first request, and what is said about it.
TEST(FrontEndTest, TrustsNoAnswer) {
  const auto number = Bytes64(0);
  const struct {
    const char* name;
    std::vector<std::byte> answer;
    const char* error;
  } cases[] = {
      {"nothing at all", {}, "closed the connection"},
      {"half a header", {std::byte{1}, std::byte{0}}, "closed the connection"},
      {"another request's answer", RawMessage(2, 5, 8, number), "answers 2 to request 1"},
      {"a request", RawMessage(1, 1, 8, number), "answers 1 to request 1"},
      {"version 0", RawMessage(1, 4, 8, number), "version 0"},
      {"version 3", RawMessage(1, 7, 8, number), "version 3"},
      {"too short", RawMessage(1, 5, 4, std::span(number).first(4)), "with 4 bytes"},
      {"too long", RawMessage(1, 5, 16, std::vector<std::byte>(16)), "with 16 bytes"},
      {"far too long", RawMessage(1, 5, 0xffffffff, number), "4294967295 bytes"},
      {"less than it says", RawMessage(1, 5, 8, std::span(number).first(5)),
       "closed the connection"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    const UniqueFd theirs(ends[1]);
    ASSERT_EQ(::write(theirs.get(), c.answer.data(), c.answer.size()),
              static_cast<ssize_t>(c.answer.size()));
    ::shutdown(theirs.get(), SHUT_WR);
    const auto front = FrontEnd::Connect(UniqueFd(ends[0]), {.protocol_features = kAll});
    ASSERT_FALSE(front);
    EXPECT_THAT(front.error().message(), HasSubstr(c.error));
  }
}

TEST(FrontEndTest, DoesNotWaitForeverNorTakeManyDescriptors) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const UniqueFd silent(ends[1]);
  const auto front =
      FrontEnd::Connect(UniqueFd(ends[0]), {.protocol_features = kAll, .patience = kShort});
  ASSERT_FALSE(front);
  EXPECT_THAT(front.error().message(), HasSubstr("has not answered"));

  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  Channel sender{UniqueFd(ends[0])};
  Channel receiver{UniqueFd(ends[1])};
  // One more than there is room for: some are dropped by the kernel, and the message is refused.
  std::array<int, kMaxFds + 1> fds{};
  fds.fill(silent.get());
  const auto bytes = RawMessage(1, 5, 8, Bytes64(0));
  ASSERT_GT(SendWithFds(sender.fd(), bytes, fds, 0), 0);
  const auto received = receiver.Receive();
  ASSERT_FALSE(received);
  EXPECT_EQ(received.error().code(), Errc::kMalformed);
}

TEST(FrontEndTest, HearsOfAChangedConfigurationAndOfNothingElse) {
  constexpr std::uint64_t kProtocol = kProtocolBackendReq | kProtocolReplyAck;
  UniqueFd backend_end;
  ScriptedBackend backend([&](Channel& channel) {
    for (;;) {
      auto message = channel.Receive();
      if (!message) return;
      const std::uint32_t request = message->header.request;
      if (request == 21) {
        backend_end = std::move(message->fds.at(0));
        const std::vector<std::byte> none;
        const auto known = RawMessage(2, kVersion | kFlagNeedReply, 0, none);
        const auto unknown = RawMessage(99, kVersion | kFlagNeedReply, 0, none);
        (void)!::write(backend_end.get(), known.data(), known.size());
        (void)!::write(backend_end.get(), unknown.data(), unknown.size());
      }
      if (request == 1 || request == 15 || (message->header.flags & kFlagNeedReply) != 0) {
        const auto value = request == 1 ? kFeatureProtocol : request == 15 ? kProtocol : 0;
        (void)channel.Send(request, Bytes64(value), {}, kFlagReply);
      }
    }
  });
  auto front = FrontEnd::Connect(backend.front(), {.protocol_features = kProtocol});
  ASSERT_TRUE(front) << front.error().ToString();
  ASSERT_GE((*front)->backend_fd(), 0);
  const auto first = (*front)->ServeBackend();
  ASSERT_TRUE(first);
  EXPECT_TRUE(*first);
  const auto second = (*front)->ServeBackend();
  ASSERT_TRUE(second);
  EXPECT_FALSE(*second);
  // Its answers: done, and refused.
  Channel theirs(std::move(backend_end));
  for (const std::uint64_t expected : {0U, 1U}) {
    const auto answer = theirs.Receive();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->payload, Bytes64(expected));
  }
  front->reset();
}

}  // namespace
}  // namespace holdfast::devices::vhost_user
