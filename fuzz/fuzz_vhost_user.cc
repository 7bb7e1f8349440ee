// SPDX-License-Identifier: Apache-2.0
// What a vhost-user back end says, on its two channels: the front end of the protocol takes it or
// refuses it. The first byte says how much of the input is for the back end's own channel, in
// 1/256 of it.
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <holdfast/ram_block.h>

#include "devices/vhost_user/front_end.h"

namespace {

using namespace holdfast;
using namespace holdfast::devices::vhost_user;

// Nothing waits: the whole input is there before it is read, and then the end of file.
constexpr std::chrono::milliseconds kNow{0};

struct Sockets {
  UniqueFd front;
  UniqueFd back;
};
Sockets MakeSockets() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) std::abort();
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

void SayAll(const UniqueFd& socket, std::span<const std::uint8_t> bytes) {
  (void)!::send(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  ::shutdown(socket.get(), SHUT_WR);
}

AddressSpace& Memory() {
  static const auto block = RamBlock::CreateMemfd("ram", 1 << 20);
  static AddressSpace space(nullptr);
  if (space.regions().empty() && (!block || !space.AddRam(GuestAddress(0), 1 << 20, **block, 0))) {
    std::abort();
  }
  return space;
}

// The back end's channel as the front end has given it away.
UniqueFd TakeBackendChannel(UniqueFd socket) {
  Channel channel(std::move(socket), kNow);
  for (;;) {
    auto message = channel.Receive();
    if (!message) return {};
    if (message->header.request == static_cast<std::uint32_t>(Request::kSetBackendReqFd)) {
      return message->fds.empty() ? UniqueFd() : std::move(message->fds.front());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::span<const std::uint8_t> input(data + 1, size - 1);
  const auto own = input.first(input.size() * data[0] / 256);
  input = input.subspan(own.size());

  Sockets sockets = MakeSockets();
  SayAll(sockets.back, input);
  auto connected =
      FrontEnd::Connect(std::move(sockets.front), {.protocol_features = ~0ULL, .patience = kNow});
  if (!connected) return 0;
  FrontEnd& front = **connected;
  if (front.backend_fd() >= 0) {
    const UniqueFd theirs = TakeBackendChannel(std::move(sockets.back));
    if (theirs) SayAll(theirs, own);
    while (front.ServeBackend()) {
    }
  }
  const devices::virtio::QueueLayout layout{.size = 64,
                                            .descriptors = GuestAddress(4096),
                                            .driver_area = GuestAddress(8192),
                                            .device_area = GuestAddress(12288)};
  // As a device does it; after the first error there is nothing more to be had.
  if (const auto config = front.GetConfig(60); config && config->size() != 60) std::abort();
  if (!front.SetMemory(Memory())) return 0;
  if (!front.SetMtu(1500)) return 0;
  constexpr std::array<std::uint8_t, 6> kMac = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
  if (front.has(kProtocolRarp) && !front.SendRarp(kMac)) return 0;
  (void)front.GetInflight(2, 64);  // the input has no descriptors, so there is none in the answer
  if (front.StartQueue(0, layout, 0, STDIN_FILENO, STDIN_FILENO)) (void)front.StopQueue(0);
  return 0;
}
