// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/error.h>

#include "migration/cpr_state.h"
#include "migration/inherited_fds.h"
#include "migration/save_job.h"

namespace holdfast::migration {

/// `mode=cpr-exec`: this process becomes another monitor, which goes on with the guest. RAM stays
/// where it is.
///
/// Thread-safety: the main thread.
class CprExec {
 public:
  /// @param command  `cpr-exec-command`: the program, looked for in PATH, and what it is given
  /// @return what is in the way, with nothing changed
  static Result<CprExec> Prepare(const Subject& subject, std::vector<std::string> command);

  /// The guest stands, its state is saved, and the program is executed with the descriptors of
  /// KeptFds() left open. Returns only if this process goes on: the guest then runs again if it
  /// ran. Everything up to the execve itself can fail so.
  Error Run() const;

 private:
  CprExec(const Subject& subject, std::string program, std::vector<std::string> command)
      : subject_(subject), program_(std::move(program)), command_(std::move(command)) {}
  Status Become(std::uint64_t stopped_at) const;

  Subject subject_;
  std::string program_;
  std::vector<std::string> command_;
};

class CprArrival;

/// What a monitor takes over from the program that this process was before, or over a socket.
struct Takeover {
  CprState state;  ///< over a socket: comes when the machine is there
  InheritedFds fds;
  std::shared_ptr<CprArrival> arrival = nullptr;  ///< over a socket
};
/// Whether this process is to take over a guest: reads what CprExec::Run() left, once, before any
/// thread exists. @return kMalformed for damage; empty for a process that starts like any other
Result<std::optional<Takeover>> TakeoverFromEnvironment();

}  // namespace holdfast::migration
