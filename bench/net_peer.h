// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include <cstdint>
#include <memory>
#include <thread>

namespace holdfast::bench {

/// The other side of a guest's network benchmarks: TCP ports of all of this host's addresses, one
/// that takes whatever it is sent until the end, one that sends a fixed amount.
class NetPeer {
 public:
  /// @param bytes  what the second port sends. @return the failed system call
  static Result<std::unique_ptr<NetPeer>> Start(std::uint64_t bytes);
  NetPeer(const NetPeer&) = delete;
  NetPeer& operator=(const NetPeer&) = delete;
  ~NetPeer();

  std::uint16_t sink_port() const noexcept { return sink_port_; }
  std::uint16_t source_port() const noexcept { return source_port_; }

 private:
  NetPeer() = default;

  std::uint16_t sink_port_ = 0, source_port_ = 0;
  UniqueFd sink_, source_;
  std::jthread sink_thread_, source_thread_;  // last: they use the others
};

}  // namespace holdfast::bench
