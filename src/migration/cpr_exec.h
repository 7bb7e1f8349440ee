// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/error.h>

#include "migration/cpr_state.h"
#include "migration/inherited_fds.h"
#include "migration/save_job.h"

namespace holdfast::migration {

/// `mode=cpr-exec`: this process becomes another monitor, which goes on with the guest. Soon, from
/// the loop: the guest stands, its state is saved, and `command` is executed with the descriptors
/// of KeptFds() left open. RAM stays where it is.
///
/// @param command  `cpr-exec-command`: the program, looked for in PATH, and what it is given
/// @param failed   called on the main thread if this process goes on: the guest then runs again if
///                 it ran. Everything up to the execve itself can fail so.
/// @return what is in the way, with nothing changed; then `failed` is not called
Status StartCprExec(const Subject& subject, std::vector<std::string> command,
                    std::function<void(Status)> failed);

class CprArrival;

/// What a monitor takes over from the program that this process was before, or over a socket.
struct Takeover {
  CprState state;  ///< over a socket: comes when the machine is there
  InheritedFds fds;
  std::shared_ptr<CprArrival> arrival = nullptr;  ///< over a socket
};
/// Whether this process is to take over a guest: reads what StartCprExec() left, once, before any
/// thread exists. @return kMalformed for damage; empty for a process that starts like any other
Result<std::optional<Takeover>> TakeoverFromEnvironment();

}  // namespace holdfast::migration
