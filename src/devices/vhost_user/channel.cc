// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost_user/channel.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/fd_passing.h"

namespace holdfast::devices::vhost_user {
namespace {

bool Again(int error) {
  return error == EAGAIN || error == EINTR;
}

}  // namespace

Status Channel::Wait(short events, Clock::time_point deadline) const {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  pollfd ready{.fd = socket_.get(), .events = events, .revents = 0};
  const int wait = static_cast<int>(std::max<std::int64_t>(left.count(), 0));
  const int count = ::poll(&ready, 1, wait);
  if (count < 0 && errno != EINTR) return FailErrno("poll");
  if (count == 0 && Clock::now() >= deadline) {
    return Fail(Errc::kSystem,
                fmt::format("the vhost-user back end has not answered for {} seconds",
                            std::chrono::ceil<std::chrono::seconds>(patience_).count()));
  }
  return {};
}

Status Channel::Send(std::uint32_t request, std::span<const std::byte> payload,
                     std::span<const int> fds, std::uint32_t flags) {
  if (payload.size() > kMaxPayload || fds.size() > kMaxFds) {
    return Fail(Errc::kInvalidArgument, "a vhost-user message is too long");
  }
  const Header header{.request = request,
                      .flags = kVersion | flags,
                      .size = static_cast<std::uint32_t>(payload.size())};
  std::vector<std::byte> bytes(sizeof header + payload.size());
  std::memcpy(bytes.data(), &header, sizeof header);
  std::ranges::copy(payload, bytes.begin() + sizeof header);
  const auto deadline = Clock::now() + patience_;
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count =
        SendWithFds(socket_.get(), std::span(bytes).subspan(sent),
                    sent == 0 ? fds : std::span<const int>(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
    } else if (!Again(errno)) {
      return FailErrno("sending to the vhost-user back end");
    } else {
      HF_TRY_STATUS(Wait(POLLOUT, deadline));
    }
  }
  return {};
}

Status Channel::ReadAll(std::span<std::byte> to, std::vector<UniqueFd>* fds,
                        Clock::time_point deadline) {
  while (!to.empty()) {
    WithFds got = ReceiveWithFds(socket_.get(), to, kMaxFds, MSG_DONTWAIT);
    if (got.size < 0 && Again(errno)) {
      HF_TRY_STATUS(Wait(POLLIN, deadline));
      continue;
    }
    if (got.size < 0) return FailErrno("receiving from the vhost-user back end");
    if (got.more_fds || (fds == nullptr && !got.fds.empty())) {
      return Fail(Errc::kMalformed, "the vhost-user back end sent descriptors that belong nowhere");
    }
    if (got.size == 0) {
      return Fail(Errc::kSystem, "the vhost-user back end has closed the connection");
    }
    if (fds != nullptr) *fds = std::move(got.fds);
    fds = nullptr;
    to = to.subspan(static_cast<std::size_t>(got.size));
  }
  return {};
}

Result<Message> Channel::Receive() {
  const auto deadline = Clock::now() + patience_;
  Message message;
  HF_TRY_STATUS(
      ReadAll(std::as_writable_bytes(std::span(&message.header, 1)), &message.fds, deadline));
  const Header& header = message.header;
  if ((header.flags & kVersionMask) != kVersion) {
    return Fail(Errc::kMalformed,
                fmt::format("a vhost-user message of version {}", header.flags & kVersionMask));
  }
  if (header.size > kMaxPayload) {
    return Fail(Errc::kMalformed, fmt::format("a vhost-user message of {} bytes", header.size));
  }
  message.payload.resize(header.size);
  HF_TRY_STATUS(ReadAll(message.payload, nullptr, deadline));
  return message;
}

}  // namespace holdfast::devices::vhost_user
