// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

namespace holdfast::apps {

/// Writes to standard output at once, past stdio's buffer. A reader that has gone is no error here.
void PrintNow(std::string_view text);

/// The size of the terminal on standard output; 80 by 24 if there is none.
std::size_t TerminalColumns();
std::size_t TerminalRows();

/// Whether standard output takes colours: a terminal that is not "dumb", and no NO_COLOR in the
/// environment.
bool OutputHasColours();

}  // namespace holdfast::apps
