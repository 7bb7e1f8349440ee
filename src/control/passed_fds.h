// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast::control {

/// The file descriptors that clients of the control protocol have passed (SCM_RIGHTS) and given
/// names to (`getfd`). All clients have the same names, where in QEMU each has its own.
///
/// Thread-safety: the main loop's thread.
class PassedFds {
 public:
  /// As many have a name at most.
  static constexpr std::size_t kMost = 256;

  PassedFds() = default;
  PassedFds(const PassedFds&) = delete;
  PassedFds& operator=(const PassedFds&) = delete;

  /// While a command of a client runs: what has come with it.
  class Turn {
   public:
    Turn(PassedFds& fds, std::deque<UniqueFd>& arrived) : fds_(fds) { fds_.arrived_ = &arrived; }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() { fds_.arrived_ = nullptr; }

   private:
    PassedFds& fds_;
  };

  /// `getfd`: the first descriptor that has come with the command under way gets this name, and the
  /// one that had it is closed. @return kInvalidArgument in QEMU's words: none has come, or a name
  /// that begins with a digit
  Status Name(std::string name);
  /// `closefd`. @return kNotFound in QEMU's words
  Status Close(std::string_view name);
  /// Hands the descriptor of this name out; the name is gone. @return kNotFound in QEMU's words
  Result<UniqueFd> Take(std::string_view name);

 private:
  std::deque<UniqueFd>* arrived_ = nullptr;  // during a Turn
  std::map<std::string, UniqueFd, std::less<>> named_;
};

}  // namespace holdfast::control
