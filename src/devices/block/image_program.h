// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include <holdfast/error.h>

namespace holdfast::devices::block {

/// Who a program is to run as.
struct ProgramUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< further ones
};

/// A program of QEMU's that reads image formats, which guests and others can have written.
struct ImageProgram {
  std::vector<std::string> arguments;  ///< the first is the program, looked for in PATH
  std::vector<int> descriptors;        ///< it has them as 3, 4, and so on, and no others
  std::vector<std::string> writable;   ///< the files it may write, besides `descriptors`
  std::optional<ProgramUser> user;     ///< empty: as this process
  bool outlives_terminal = true;       ///< Ctrl-C is for this process alone
};

/// What Start() leaves as the exit status of a program that could not be started.
inline constexpr int kCannotExecute = 127;

/// Starts it with the fewest rights that it can work with: as `user`; with no capability but, for
/// root that has it, the one to open others' files; with no way to new privileges; without a
/// network, where this process may arrange that; and where the kernel has Landlock it can write the
/// named files only, make none and remove none. It ends when this process does.
/// @return its process id, to be waited for; the failed system call
Result<pid_t> Start(const ImageProgram& program);

/// Starts it and waits for its end. @return kNotFound if it cannot be started, kInvalidArgument if
/// it fails; its own words are on standard error then
Status RunToEnd(const ImageProgram& program);

}  // namespace holdfast::devices::block
