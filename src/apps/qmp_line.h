// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <nlohmann/json_fwd.hpp>

#include "apps/qmp_types.h"
#include "control/line_editor.h"

namespace holdfast::apps {

/// A word of a typed line: `text`, or `key=value`.
struct QmpWord {
  std::string text = {};
  bool quoted = false;  ///< there were quotes: the value is a string whatever it looks like
};

/// Splits a line at blanks. Quotes ('…' as it stands, "…" with \" and \\) keep blanks, and so does
/// a value that begins with [ or {, up to where the bracket closes.
/// @return kInvalidArgument for a quote or bracket that does not end
Result<std::vector<QmpWord>> SplitQmpLine(std::string_view line);

/// Makes a request of a command and its `key=value` words. A value gets the type the server
/// expects, where `types` knows it: numbers may have a size suffix (1M), lists are JSON or
/// `0,1`. Elsewhere it gets the type it looks like. `a.b=1` is member b of the object a.
Result<nlohmann::ordered_json> QmpRequest(std::span<const QmpWord> words, const QmpTypes& types);

/// Makes a request of a line: a JSON object as it stands, or the words of a command.
Result<nlohmann::ordered_json> ParseQmpLine(std::string_view line, const QmpTypes& types);

/// What can stand at the end of `before_cursor`: commands (and `also`, commands of the prompt
/// itself), names of arguments not given yet, words of an enum.
control::LineEditor::Completion CompleteQmpLine(std::string_view before_cursor,
                                                const QmpTypes& types,
                                                std::span<const std::string_view> also = {});

}  // namespace holdfast::apps
