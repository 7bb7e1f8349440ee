// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>

namespace holdfast::apps {

/// What clones of a snapshot are to be like.
struct ClonePlan {
  std::vector<std::string> saved;    ///< the words that the saved machine was started with
  std::vector<std::string> more;     ///< options of holdfast for each of them, `%n` its number
  std::string snapshot;              ///< absolute path
  std::vector<std::string> folders;  ///< of each clone, absolute paths
  bool copy_disks = false;
  bool prefault = false;
  bool new_mac = false;
};

/// How one clone is started.
struct CloneLine {
  struct Copy {
    std::string from;
    std::string to;
  };
  std::vector<std::string> words;  ///< the command line without the program's name
  std::vector<Copy> copies;        ///< disk images to be copied before
};

/// Names of files in a clone's folder.
inline constexpr std::string_view kCloneSocket = "qmp.sock";
inline constexpr std::string_view kCloneConsole = "console.sock";
inline constexpr std::string_view kClonePidfile = "pid";
inline constexpr std::string_view kCloneLog = "log";

/// Makes each clone's command line of the saved machine's: names, consoles, chardevs, log and
/// monitors become its own. An option of `more` takes the place of the saved one of its name with
/// the same id; without id, of the next that has none. Pure: no file is looked at.
/// @return kInvalidArgument, naming the option and the remedy, for a machine whose clones would
///         share what only one may have (a disk that is written, a port, a socket, shared memory),
///         with each other or with the machine that was saved; or for a line that is none
Result<std::vector<CloneLine>> MakeCloneLines(const ClonePlan& plan);

}  // namespace holdfast::apps
