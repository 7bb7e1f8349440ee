// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "devices/stream_socket.h"

namespace holdfast::apps {

/// One `-chardev`, or what `-qmp` makes of its word.
struct ChardevRequest {
  std::string id;
  /// What MakeChardev() takes; empty for a socket.
  std::string word = {};
  std::optional<devices::SocketSpec> socket = {};
  /// Ctrl-C on a terminal ends the monitor: `signal=on`.
  bool signals = true;
  std::string option;  ///< "-chardev …", for errors that come when it is made
  bool taken = false;  ///< something uses it
};

/// One `-mon`.
struct MonitorRequest {
  std::string chardev;  ///< the id of a ChardevRequest
  bool control = false;
  bool pretty = false;
  std::string option;
};

}  // namespace holdfast::apps
