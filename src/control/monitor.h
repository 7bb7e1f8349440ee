// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include "control/line_editor.h"

namespace holdfast::devices {
class Chardev;
}

namespace holdfast::control {

/// The human monitor's session: a prompt `(holdfast) ` on a chardev.
///
/// Thread-safety: the main loop's thread.
class Monitor {
 public:
  /// Runs a line and returns what it prints, lines ending in "\n".
  using Execute = std::function<std::string(std::string_view line)>;

  /// Takes the chardev's input over. `front` outlives the monitor. `version` is for the greeting.
  Monitor(devices::Chardev& front, std::string version, Execute execute);
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;
  /// Gives the chardev back: no receiver, no callback.
  ~Monitor();

  /// Prints the prompt, the first time with a greeting before it.
  void Greet();

 private:
  std::size_t Receive(std::span<const std::byte> data);
  void Print(std::string_view text);
  void Drain();

  devices::Chardev& front_;
  const std::string version_;
  const Execute execute_;
  LineEditor editor_;
  bool greeted_ = false;
  std::string output_;  // what the chardev has not taken yet
};

}  // namespace holdfast::control
