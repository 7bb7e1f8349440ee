// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast::devices::block {

/// A client of an NBD server that asks for one thing: that all which was written is on disk. A
/// storage daemon has no other command for it that does not come from the guest.
///
/// What is sent and answered is in the NBD project's doc/proto.md: fixed newstyle negotiation with
/// NBD_OPT_EXPORT_NAME, then NBD_CMD_FLUSH and simple replies.
///
/// Thread-safety: one thread.
class NbdFlusher {
 public:
  /// Agrees with the server on an export.
  /// @param fd  a connected socket that does not block
  /// @param limit  how long the server may take for each answer
  /// @return kUnsupported for a server that cannot flush, kSystem for one that answers otherwise
  ///         than NBD does, closes the connection or takes too long
  static Result<NbdFlusher> Connect(UniqueFd fd, std::string_view name,
                                    std::chrono::milliseconds limit);

  /// Waits until all that the server has answered so far is on disk.
  /// @return the server's error; else as Connect()
  Status Flush();

 private:
  NbdFlusher(UniqueFd fd, std::chrono::milliseconds limit) : fd_(std::move(fd)), limit_(limit) {}
  Status Negotiate(std::string_view name);
  Status Send(std::span<const std::byte> bytes) const;
  Status Receive(std::span<std::byte> bytes) const;
  Status Wait(short events, std::chrono::steady_clock::time_point deadline) const;

  UniqueFd fd_;
  std::chrono::milliseconds limit_;
  std::uint64_t cookie_ = 0;
};

}  // namespace holdfast::devices::block
