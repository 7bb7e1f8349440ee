// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/vhost_user/protocol.h"

namespace holdfast::devices::vhost_user {

/// One message, with the descriptors that came along.
struct Message {
  Header header;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> fds;
};

/// A Unix socket that vhost-user messages go over. The other process is not trusted: each message
/// is checked for form and size, and nothing waits longer than the limit.
///
/// Thread-safety: one thread at a time.
class Channel {
 public:
  using Clock = std::chrono::steady_clock;
  /// How long a back end may take for one message. Far longer than a busy host needs.
  static constexpr std::chrono::milliseconds kPatience{30'000};

  explicit Channel(UniqueFd socket, std::chrono::milliseconds patience = kPatience)
      : socket_(std::move(socket)), patience_(patience) {}

  int fd() const noexcept { return socket_.get(); }
  /// @param flags  kFlagReply, kFlagNeedReply
  /// @return the failed call; kSystem when the peer takes nothing
  Status Send(std::uint32_t request, std::span<const std::byte> payload,
              std::span<const int> fds = {}, std::uint32_t flags = 0);
  /// Waits for the next message. @return kMalformed for one that breaks the rules (the channel is
  /// of no use then); kSystem when the peer has gone or says nothing
  Result<Message> Receive();

 private:
  Status Wait(short events, Clock::time_point deadline) const;
  // Fills `to`, perhaps in pieces; descriptors of the first go into `fds`.
  Status ReadAll(std::span<std::byte> to, std::vector<UniqueFd>* fds, Clock::time_point deadline);

  UniqueFd socket_;
  std::chrono::milliseconds patience_;
};

}  // namespace holdfast::devices::vhost_user
