// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/mapping.h>
#include <holdfast/unique_fd.h>

#include "migration/cpr_state.h"

namespace holdfast::migration {

/// A word in memory that two monitors share, which says whose the guest is: decided once, by
/// whoever comes first, whatever becomes of the connection or of either process.
///
/// Thread-safety: any thread.
class CprOwner {
 public:
  static Result<CprOwner> Create();
  /// @return kMalformed for what is no such memory
  static Result<CprOwner> Adopt(UniqueFd fd);

  int fd() const noexcept { return fd_.get(); }
  /// Whether the guest is the destination's, or the source's, from now on and for good.
  bool ClaimForDestination() const noexcept { return Claim(kDestination); }
  bool ClaimForSource() const noexcept { return Claim(kSource); }

 private:
  enum Owner : std::uint32_t { kUndecided = 0, kDestination = 1, kSource = 2 };
  CprOwner(UniqueFd fd, Mapping page) : fd_(std::move(fd)), page_(std::move(page)) {}
  static Result<CprOwner> Map(UniqueFd fd);
  bool Claim(Owner owner) const noexcept;

  UniqueFd fd_;
  Mapping page_;
};

/// What the destination says to the source.
enum class CprAnswer : std::uint32_t {
  kBuilt = 1,    ///< its machine is there
  kLoaded = 2,   ///< and has the state
  kRunning = 3,  ///< and the guest
  kError = 255,  ///< it gives up: a sentence follows
};

/// The connection by which a guest goes from one monitor to another on the same host. Nothing that
/// the other side says is believed unseen, and nobody waits longer than a minute for it.
///
/// Thread-safety: one thread; Shutdown() any.
class CprSocket {
 public:
  explicit CprSocket(UniqueFd socket) : socket_(std::move(socket)) {}

  /// @return why there is no connection
  static Result<CprSocket> Connect(const std::string& path);
  /// Waits for one connection, as long as it takes; the socket's name is gone afterwards.
  static Result<CprSocket> Accept(const std::string& path);

  Status SendState(CprState state);
  Result<CprState> ReceiveState();
  /// Descriptors, in order.
  Status SendFds(std::span<const KeptFd> fds);
  /// As many as `count`. @return kMalformed if others come, or more
  Result<std::vector<UniqueFd>> ReceiveFds(std::size_t count);

  Status SendAnswer(CprAnswer answer, std::string_view sentence = {});
  /// Waits for `expected`. @return the other side's sentence if it gives up
  Status ReceiveAnswer(CprAnswer expected);
  /// The source has let go of everything.
  Status SendGo();
  Status ReceiveGo();

  /// Says no more, and waits until the other side has closed.
  void WaitForClose() const noexcept;
  /// Whoever waits stops waiting.
  void Shutdown() const noexcept;

 private:
  Status Send(std::span<const std::byte> bytes) const;
  Status Receive(std::span<std::byte> bytes) const;

  UniqueFd socket_;
};

}  // namespace holdfast::migration
