// SPDX-License-Identifier: Apache-2.0
#include "system/relay.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace holdfast::test {
namespace {

sockaddr_un At(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  EXPECT_LT(path.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  return address;
}

UniqueFd Socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

}  // namespace

Relay::Relay(const std::string& path, std::string target, Break when)
    : target_(std::move(target)),
      break_(std::move(when)),
      listener_(Socket()),
      stop_(::eventfd(0, EFD_CLOEXEC)) {
  const sockaddr_un address = At(path);
  constexpr int kBacklog = 16;
  EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
      << path;
  EXPECT_EQ(::listen(listener_.get(), kBacklog), 0);
  thread_ = std::thread([this] { Run(); });
}

Relay::~Relay() {
  (void)::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void Relay::Run() {
  while (true) {
    std::vector<pollfd> waits{{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const Line& line : lines_) {
      // A stalled line is not even heard of when it ends.
      const short events = stalled_ ? 0 : POLLIN;
      waits.push_back({stalled_ ? -1 : line.near.get(), events, 0});
      waits.push_back({stalled_ ? -1 : line.far.get(), events, 0});
    }
    if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) return;
    if (waits[0].revents != 0) return;
    const std::size_t count = lines_.size();
    std::size_t gone = count;
    for (std::size_t i = 0; i < count && !stalled_; ++i) {
      Line& line = lines_[i];
      const bool stands = (waits[2 + 2 * i].revents == 0 || Pass(line, line.near, line.far)) &&
                          (waits[3 + 2 * i].revents == 0 || Pass(line, line.far, line.near));
      if (!stands) gone = i;
      if (!stands) break;
    }
    // One that ends ends all: it is one cable.
    if (gone != count) lines_.clear();
    if (waits[1].revents != 0) Take();
  }
}

void Relay::Take() {
  Line line{UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)), Socket()};
  const sockaddr_un address = At(target_);
  if (::connect(line.far.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    lines_.push_back(std::move(line));
}

// docs/formats/migration.md: the header of a frame has 40 bytes, type and size among them.
std::size_t Relay::Look(Line& line, std::string_view bytes) {
  constexpr std::size_t kHeader = 40;
  constexpr int kRunning = 19;
  constexpr int kRequest = 20;
  constexpr int kResumed = 22;
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t skipped = std::min(line.skip, bytes.size() - at);
    at += skipped;
    line.skip -= skipped;
    if (line.skip != 0) break;
    if (line.requests == cut_after_) return at;
    const std::size_t more = std::min(kHeader - line.header.size(), bytes.size() - at);
    line.header += bytes.substr(at, more);
    at += more;
    if (line.header.size() != kHeader) break;
    const int type = static_cast<unsigned char>(line.header[4]);
    std::uint32_t size = 0;
    std::memcpy(&size, line.header.data() + 8, sizeof size);
    line.skip = size;
    line.header.clear();
    if (type == kRunning || type == kResumed) line.asks = true;
    if (type == kRequest && line.asks) ++line.requests;
  }
  return at;
}

bool Relay::Pass(Line& line, const UniqueFd& from, const UniqueFd& to) {
  std::array<char, 64 * 1024> buffer;
  const ssize_t got = ::recv(from.get(), buffer.data(), buffer.size(), 0);
  if (got <= 0) return false;
  std::string_view bytes(buffer.data(), static_cast<std::size_t>(got));
  const bool back = &from == &line.far;
  if (back) bytes = bytes.substr(0, Look(line, bytes));
  const std::uint64_t left = break_.after - std::min(break_.after, passed_.load());
  bytes = bytes.substr(0, std::min<std::uint64_t>(left, bytes.size()));
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t sent = ::send(to.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (sent < 0) return false;
    at += static_cast<std::size_t>(sent);
  }
  const bool whole = passed_ < break_.after;
  passed_ += bytes.size();
  if (whole && passed_ == break_.after) {
    if (break_.also) break_.also();
    return false;
  }
  if (!back || line.requests != cut_after_ || line.skip != 0) return true;
  cut_after_ = -1;
  stalled_ = stall_;
  return stalled_;
}

}  // namespace holdfast::test
