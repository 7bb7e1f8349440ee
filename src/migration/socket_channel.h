// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include <holdfast/unique_fd.h>

#include "migration/channel.h"

namespace holdfast::migration {

/// A channel over a descriptor: a connected socket, a pipe, a file.
class SocketChannel final : public Channel {
 public:
  /// Takes the descriptor over. A socket keeps its flags; anything else becomes non-blocking.
  /// @param peer  for messages
  static Result<std::unique_ptr<SocketChannel>> Create(UniqueFd fd, std::string peer);

  Result<std::size_t> ReadSome(std::span<std::byte> data) override;
  Result<bool> WaitReadable(std::chrono::milliseconds timeout) override;
  using Channel::WriteAll;
  Status WriteAll(std::span<const Bytes> parts) override;
  void Shutdown() noexcept override;
  /// Over TCP the kernel watches, too: a peer that is gone is noticed without anything to send.
  void SetStallTimeout(std::chrono::milliseconds timeout) override;
  const std::string& peer() const noexcept override { return peer_; }
  int fd() const noexcept override { return fd_.get(); }

  /// Passes a descriptor on with one byte of the stream. @return kInvalidArgument where the channel
  /// is no Unix socket
  Status SendFd(int fd);
  /// Waits for the byte that a descriptor comes with. @return kMalformed if it comes without, or
  /// with several
  Result<UniqueFd> ReceiveFd();

 private:
  SocketChannel(UniqueFd fd, UniqueFd stop, std::string peer, int domain)
      : fd_(std::move(fd)), stop_(std::move(stop)), peer_(std::move(peer)), domain_(domain) {}
  bool socket() const noexcept { return domain_ >= 0; }
  // Waits for `events`, or anything that ends the stream. Negative: no limit. @return whether in
  // time
  Result<bool> Wait(short events, std::chrono::milliseconds timeout) const;
  Status WaitForProgress(short events) const;
  // What a call that failed with `os_errno` means: success, it can be made again.
  Status AfterFailure(int os_errno, short events) const;
  Error Closed() const;
  Error Cancelled() const;

  const UniqueFd fd_;
  const UniqueFd stop_;  // eventfd: Shutdown() was called
  const std::string peer_;
  const int domain_;  // AF_…; -1: no socket
  std::atomic<bool> stopped_ = false;
  std::chrono::milliseconds stall_timeout_{0};
};

}  // namespace holdfast::migration
