// SPDX-License-Identifier: Apache-2.0
#include "devices/block/nbd_flusher.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

namespace holdfast::devices::block {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kServerMagic = 0x4e42444d41474943;  // "NBDMAGIC"
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
constexpr std::uint16_t kFixedNewstyle = 1U << 0;
constexpr std::uint16_t kNoZeroes = 1U << 1;
constexpr std::uint32_t kExportName = 1;
constexpr std::uint16_t kSendFlush = 1U << 2;
constexpr std::uint32_t kRequestMagic = 0x25609513;
constexpr std::uint32_t kReplyMagic = 0x67446698;
constexpr std::uint16_t kFlush = 3;

// Numbers go most significant byte first.
template <typename T>
void Put(std::vector<std::byte>& bytes, T value) {
  for (std::size_t i = sizeof value; i-- > 0;)
    bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
}

template <typename T>
T Get(std::span<const std::byte> bytes, std::size_t at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + i]);
  return static_cast<T>(value);
}

Status Foreign() {
  return Fail(Errc::kSystem, "the storage daemon answers with something else than NBD");
}

}  // namespace

Result<NbdFlusher> NbdFlusher::Connect(UniqueFd fd, std::string_view name, milliseconds limit) {
  NbdFlusher flusher(std::move(fd), limit);
  HF_TRY_STATUS(flusher.Negotiate(name));
  return flusher;
}

Status NbdFlusher::Negotiate(std::string_view name) {
  std::array<std::byte, 18> greeting{};
  HF_TRY_STATUS(Receive(greeting));
  if (Get<std::uint64_t>(greeting, 0) != kServerMagic ||
      Get<std::uint64_t>(greeting, 8) != kOptionMagic)
    return Foreign();
  const auto server = Get<std::uint16_t>(greeting, 16);
  if ((server & kFixedNewstyle) == 0) return Foreign();
  const bool no_zeroes = (server & kNoZeroes) != 0;
  std::vector<std::byte> asked;
  Put<std::uint32_t>(asked, server & (kFixedNewstyle | kNoZeroes));
  Put(asked, kOptionMagic);
  Put(asked, kExportName);
  Put(asked, static_cast<std::uint32_t>(name.size()));
  for (const char letter : name) asked.push_back(static_cast<std::byte>(letter));
  HF_TRY_STATUS(Send(asked));
  // Its size, what it can do, and zeroes.
  std::array<std::byte, 134> about{};
  HF_TRY_STATUS(Receive(std::span(about).first(no_zeroes ? 10 : about.size())));
  if ((Get<std::uint16_t>(about, 8) & kSendFlush) != 0) return {};
  return Fail(Errc::kUnsupported, "the storage daemon cannot flush the image");
}

Status NbdFlusher::Flush() {
  const std::uint64_t cookie = ++cookie_;
  std::vector<std::byte> asked;
  Put(asked, kRequestMagic);
  Put<std::uint16_t>(asked, 0);
  Put(asked, kFlush);
  Put(asked, cookie);
  Put<std::uint64_t>(asked, 0);  // offset and length: there are none
  Put<std::uint32_t>(asked, 0);
  HF_TRY_STATUS(Send(asked));
  std::array<std::byte, 16> reply{};
  HF_TRY_STATUS(Receive(reply));
  if (Get<std::uint32_t>(reply, 0) != kReplyMagic || Get<std::uint64_t>(reply, 8) != cookie)
    return Foreign();
  const auto error = Get<std::uint32_t>(reply, 4);
  if (error == 0) return {};
  // The protocol's numbers are those of Linux.
  constexpr std::uint32_t kMostErrno = 4095;
  return Fail(Error::FromErrno("the storage daemon cannot flush it",
                               error <= kMostErrno ? static_cast<int>(error) : EIO));
}

Status NbdFlusher::Wait(short events, steady_clock::time_point deadline) const {
  for (;;) {
    const auto left = duration_cast<milliseconds>(deadline - steady_clock::now()).count();
    pollfd ready{.fd = fd_.get(), .events = events, .revents = 0};
    const int count = ::poll(&ready, 1, static_cast<int>(std::max<std::int64_t>(left, 0)));
    if (count > 0) return {};
    if (count < 0 && errno != EINTR) return FailErrno("poll");
    if (count == 0) return Fail(Error::FromErrno("the storage daemon does not answer", ETIMEDOUT));
  }
}

Status NbdFlusher::Send(std::span<const std::byte> bytes) const {
  const auto deadline = steady_clock::now() + limit_;
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return FailErrno("the storage daemon is gone");
    HF_TRY_STATUS(Wait(POLLOUT, deadline));
  }
  return {};
}

Status NbdFlusher::Receive(std::span<std::byte> bytes) const {
  const auto deadline = steady_clock::now() + limit_;
  while (!bytes.empty()) {
    const ssize_t got = ::recv(fd_.get(), bytes.data(), bytes.size(), 0);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(got));
      continue;
    }
    if (got == 0) return Fail(Errc::kSystem, "the storage daemon is gone");
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return FailErrno("the storage daemon is gone");
    HF_TRY_STATUS(Wait(POLLIN, deadline));
  }
  return {};
}

}  // namespace holdfast::devices::block
