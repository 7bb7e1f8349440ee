// SPDX-License-Identifier: Apache-2.0
#include "net_peer.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace holdfast::bench {
namespace {

constexpr std::size_t kPiece = 1 << 18;

Result<UniqueFd> Listen(std::uint16_t& port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (!fd || ::bind(fd.get(), generic, size) != 0 || ::listen(fd.get(), 4) != 0 ||
      ::getsockname(fd.get(), generic, &size) != 0) {
    return FailErrno("a TCP port for the benchmarks");
  }
  port = ntohs(address.sin_port);
  return fd;
}

// Serves one connection after the other until the listener is shut down.
template <typename Serve>
void AcceptAll(int listener, const Serve& serve) {
  for (;;) {
    const UniqueFd client(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) return;
    serve(client.get());
  }
}

}  // namespace

Result<std::unique_ptr<NetPeer>> NetPeer::Start(std::uint64_t bytes) {
  std::unique_ptr<NetPeer> peer(new NetPeer);
  HF_TRY(peer->sink_, Listen(peer->sink_port_));
  HF_TRY(peer->source_, Listen(peer->source_port_));
  peer->sink_thread_ = std::jthread([listener = peer->sink_.get()] {
    AcceptAll(listener, [](int client) {
      std::vector<char> buffer(kPiece);
      while (::recv(client, buffer.data(), buffer.size(), 0) > 0) {
      }
    });
  });
  peer->source_thread_ = std::jthread([listener = peer->source_.get(), bytes] {
    AcceptAll(listener, [bytes](int client) {
      const std::vector<char> buffer(kPiece, 'x');
      for (std::uint64_t left = bytes; left > 0;) {
        const ssize_t sent =
            ::send(client, buffer.data(), std::min<std::uint64_t>(left, kPiece), MSG_NOSIGNAL);
        if (sent <= 0) return;
        left -= static_cast<std::uint64_t>(sent);
      }
    });
  });
  return peer;
}

NetPeer::~NetPeer() {
  // Wakes accept(2).
  for (const UniqueFd* const listener : {&sink_, &source_}) {
    if (listener->valid()) ::shutdown(listener->get(), SHUT_RDWR);
  }
}

}  // namespace holdfast::bench
