// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>

namespace holdfast::apps {

inline constexpr std::size_t kLongestQmpHistory = 1000;

/// Where the prompt's history lies: $XDG_STATE_HOME/holdfast/qmp_history, by default in
/// ~/.local/state. Empty without a home.
std::string QmpHistoryPath();

/// The lines of a history file; none if there is no such file. At most kLongestQmpHistory.
std::vector<std::string> ReadQmpHistory(const std::string& path);

/// Adds lines to the file, which other prompts may have changed meanwhile, and drops the oldest
/// beyond kLongestQmpHistory. Lines that begin with a blank are private and left out. Makes file
/// and folders, for this user only.
Status AddToQmpHistory(const std::string& path, std::span<const std::string> lines);

}  // namespace holdfast::apps
