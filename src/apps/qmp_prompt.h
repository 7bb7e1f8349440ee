// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>
#include <nlohmann/json_fwd.hpp>

#include "apps/qmp_client.h"
#include "apps/qmp_types.h"
#include "control/line_editor.h"

namespace holdfast::apps {

/// A value as people read JSON: indented, nothing in it that a terminal would obey.
std::string PrettyJson(const nlohmann::ordered_json& value);

/// What shows the prompt, the line and the cursor on one row of a terminal: the part of the line
/// around the cursor if it is longer than the row.
std::string ShowPromptLine(std::string_view prompt, std::string_view line, std::size_t cursor,
                           std::size_t columns);

/// Words in columns, as a shell lists files.
std::string InColumns(std::span<const std::string> words, std::size_t columns);

/// What the prompt answers to `help` and `help COMMAND`.
std::string QmpPromptHelp(std::string_view about, const QmpTypes& types, std::size_t columns);

/// `holdfastctl qmp SOCKET` on a terminal: a prompt with history and completion. Events are shown
/// as they come, above the line being typed.
///
/// Thread-safety: one at a time in a process, on one thread.
class QmpPrompt {
 public:
  /// `client` outlives it.
  explicit QmpPrompt(QmpClient& client);
  /// Runs until `quit`, Ctrl-d or the server's end.
  Status Run();

 private:
  Result<std::optional<std::string>> ReadLine();
  Result<std::optional<std::string>> TakeKeys();
  Status ShowEvents();
  Status Execute(const std::string& line);
  void ShowLine() const;

  QmpClient& client_;
  QmpTypes types_;
  control::LineEditor editor_;
  std::string keys_;  // typed ahead
  bool ended_ = false;
  bool vm_quits_ = false;
};

}  // namespace holdfast::apps
