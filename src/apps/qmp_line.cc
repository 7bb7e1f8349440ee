// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_line.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;
using Kind = QmpTypes::Kind;

constexpr std::size_t kDeepestKey = 8;

bool IsBlank(char c) {
  return c == ' ' || c == '\t';
}

// Reads one word from `at` on.
class WordReader {
 public:
  WordReader(std::string_view line, std::size_t at) : line_(line), at_(at) {}

  Result<QmpWord> Read() {
    while (at_ < line_.size() && !IsBlank(line_[at_])) {
      const char c = line_[at_];
      if (c == '\'' || c == '"') {
        HF_TRY_STATUS(Quoted(c));
      } else if ((c == '[' || c == '{') && AtValue()) {
        HF_TRY_STATUS(Bracketed());
      } else {
        word_.text += c;
        ++at_;
      }
    }
    return std::move(word_);
  }
  std::size_t at() const { return at_; }

 private:
  bool AtValue() const { return word_.text.empty() || word_.text.back() == '='; }

  Status Quoted(char quote) {
    word_.quoted = true;
    for (++at_; at_ < line_.size(); ++at_) {
      char c = line_[at_];
      if (c == quote) {
        ++at_;
        return {};
      }
      if (c == '\\' && quote == '"' && at_ + 1 < line_.size()) c = line_[++at_];
      word_.text += c;
    }
    return Fail(Errc::kInvalidArgument, fmt::format("a {} is not closed", quote),
                "Write another one where the value ends.");
  }

  // JSON in one piece: brackets in strings do not count.
  Status Bracketed() {
    std::size_t depth = 0;
    bool in_string = false;
    for (; at_ < line_.size(); ++at_) {
      const char c = line_[at_];
      word_.text += c;
      if (in_string) {
        if (c == '\\' && at_ + 1 < line_.size()) {
          word_.text += line_[++at_];
        } else if (c == '"') {
          in_string = false;
        }
        continue;
      }
      in_string = c == '"';
      if (c == '[' || c == '{') ++depth;
      if ((c == ']' || c == '}') && --depth == 0) {
        ++at_;
        return {};
      }
    }
    return Fail(Errc::kInvalidArgument, "a bracket is not closed", "Close each [ and { again.");
  }

  std::string_view line_;
  std::size_t at_;
  QmpWord word_;
};

std::optional<Json> AsNumber(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const char* const end = text.data() + text.size();
  std::int64_t negative = 0;
  if (text.front() == '-') {
    const auto [stop, error] = std::from_chars(text.data(), end, negative);
    if (error == std::errc() && stop == end) return negative;
  } else if (const auto size = ParseSize(text);
             size && text.front() >= '0' && text.front() <= '9') {
    // A fraction without suffix is a number, not a size: "1.5".
    if (text.find('.') == std::string_view::npos || (end[-1] < '0' || end[-1] > '9')) return *size;
  }
  double real = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, real);
  if (error == std::errc() && stop == end) return real;
  return std::nullopt;
}

std::optional<Json> AsBool(std::string_view text) {
  if (text == "true" || text == "on" || text == "yes") return true;
  if (text == "false" || text == "off" || text == "no") return false;
  return std::nullopt;
}

std::optional<Json> AsJson(std::string_view text) {
  // Deeper than this the parser of the server would not follow either.
  if (std::count_if(text.begin(), text.end(), [](char c) { return c == '[' || c == '{'; }) > 64)
    return std::nullopt;
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return std::nullopt;
  return json;
}

bool LooksLikeJson(std::string_view text) {
  return text.starts_with('[') || text.starts_with('{');
}

// The value by what it looks like.
Json Guess(const std::string& text) {
  if (LooksLikeJson(text)) return AsJson(text).value_or(text);
  if (text == "true" || text == "false") return text == "true";
  return AsNumber(text).value_or(text);
}

// The value by the type the server expects. What does not fit goes as a string: the server's
// refusal then names the parameter and what it expects.
Json Typed(const std::string& text, const std::string& type, const QmpTypes& types) {
  switch (types.KindOf(type)) {
    case Kind::kString:
    case Kind::kEnum:
      return text;
    case Kind::kInteger:
    case Kind::kNumber:
      return AsNumber(text).value_or(text);
    case Kind::kBool:
      return AsBool(text).value_or(text);
    case Kind::kArray: {
      if (LooksLikeJson(text)) return AsJson(text).value_or(text);
      Json list = Json::array();
      const std::string element = types.ElementType(type);
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t comma = std::min(text.find(',', at), text.size());
        // An array of arrays is not written this way.
        const std::string part = text.substr(at, comma - at);
        list.push_back(types.KindOf(element) == Kind::kArray ? Json(part)
                                                             : Typed(part, element, types));
        at = comma + 1;
      }
      return list;
    }
    case Kind::kObject:
    case Kind::kUnknown:
      break;
  }
  return Guess(text);
}

// Puts `value` at the dotted `key`.
Status Put(Json& object, std::string_view key, Json value) {
  Json* place = &object;
  std::string_view rest = key;
  for (std::size_t depth = 0;; ++depth) {
    const std::string part(rest.substr(0, rest.find('.')));
    if (part.empty() || depth == kDeepestKey) {
      return Fail(Errc::kInvalidArgument, fmt::format("'{}' is no name of an argument", key),
                  "Write NAME=VALUE, or NAME.MEMBER=VALUE for a member of an object.");
    }
    const bool last = part.size() == rest.size();
    const bool there = place->contains(part);
    if (last ? there : there && !(*place)[part].is_object()) {
      return Fail(Errc::kInvalidArgument, fmt::format("the argument '{}' is given twice", key),
                  "A list is written [1, 2] or 1,2.");
    }
    if (last) {
      (*place)[part] = std::move(value);
      return {};
    }
    if (!there) (*place)[part] = Json::object();
    place = &(*place)[part];
    rest.remove_prefix(part.size() + 1);
  }
}

QmpTypes::Given GivenBy(std::span<const QmpWord> words) {
  QmpTypes::Given given;
  for (const QmpWord& word : words) {
    const std::size_t equals = word.text.find('=');
    if (equals != std::string::npos)
      given[word.text.substr(0, equals)] = word.text.substr(equals + 1);
  }
  return given;
}

}  // namespace

Result<std::vector<QmpWord>> SplitQmpLine(std::string_view line) {
  std::vector<QmpWord> words;
  for (std::size_t at = 0; at < line.size();) {
    if (IsBlank(line[at])) {
      ++at;
      continue;
    }
    WordReader reader(line, at);
    HF_TRY(QmpWord word, reader.Read());
    words.push_back(std::move(word));
    at = reader.at();
  }
  return words;
}

Result<Json> QmpRequest(std::span<const QmpWord> words, const QmpTypes& types) {
  if (words.empty() || words[0].text.empty() || words[0].text.find('=') != std::string::npos) {
    return Fail(Errc::kInvalidArgument, "there is no command",
                "Write COMMAND NAME=VALUE ..., for example query-status.");
  }
  const std::string& command = words[0].text;
  const std::span<const QmpWord> rest = words.subspan(1);
  const QmpTypes::Given given = GivenBy(rest);
  Json arguments = Json::object();
  for (const QmpWord& word : rest) {
    const std::size_t equals = word.text.find('=');
    if (equals == std::string::npos) {
      return Fail(Errc::kInvalidArgument, fmt::format("'{}' is no argument", word.text),
                  "Write NAME=VALUE.");
    }
    const std::string key = word.text.substr(0, equals);
    const std::string value = word.text.substr(equals + 1);
    const std::string type = types.TypeOf(command, key, given);
    const bool is_string = word.quoted && !LooksLikeJson(value);
    HF_TRY_STATUS(Put(arguments, key, is_string ? Json(value) : Typed(value, type, types)));
  }
  Json request = {{"execute", command}};
  if (!arguments.empty()) request["arguments"] = std::move(arguments);
  return request;
}

Result<Json> ParseQmpLine(std::string_view line, const QmpTypes& types) {
  const std::size_t start = line.find_first_not_of(" \t");
  if (start != std::string_view::npos && line[start] == '{') {
    std::optional<Json> request = AsJson(line.substr(start));
    if (!request || !request->is_object()) {
      return Fail(Errc::kInvalidArgument, "the line is not a JSON object",
                  R"(Write {"execute": "COMMAND", "arguments": {...}}.)");
    }
    return std::move(*request);
  }
  HF_TRY(const std::vector<QmpWord> words, SplitQmpLine(line));
  return QmpRequest(words, types);
}

control::LineEditor::Completion CompleteQmpLine(std::string_view before_cursor,
                                                const QmpTypes& types,
                                                std::span<const std::string_view> also) {
  if (before_cursor.find_first_of("{'\"") != std::string_view::npos) return {};
  const auto words = SplitQmpLine(before_cursor);
  if (!words) return {};
  const std::size_t blank = before_cursor.find_last_of(" \t");
  const std::size_t from = blank == std::string_view::npos ? 0 : blank + 1;
  const std::string_view typed = before_cursor.substr(from);
  const std::size_t complete = words->size() - (typed.empty() ? 0 : 1);
  control::LineEditor::Completion completion{.from = from};
  const auto offer = [&](std::string word) {
    if (word.starts_with(typed)) completion.words.push_back(std::move(word));
  };
  if (complete == 0 || (complete == 1 && words->front().text == "help")) {
    for (const std::string& name : types.Commands()) offer(name + " ");
    for (const std::string_view name : also) offer(std::string(name) + " ");
    std::sort(completion.words.begin(), completion.words.end());
    return completion;
  }
  const std::string& command = words->front().text;
  const QmpTypes::Given given = GivenBy(std::span(*words).subspan(1, complete - 1));
  if (const std::size_t equals = typed.find('='); equals != std::string_view::npos) {
    const std::string key(typed.substr(0, equals + 1));
    const std::string type = types.TypeOf(command, typed.substr(0, equals), given);
    for (const std::string& value : types.Values(type)) offer(key + value + " ");
    return completion;
  }
  for (const QmpTypes::Member& member : types.Arguments(command, given))
    if (!given.contains(member.name)) offer(member.name + "=");
  return completion;
}

}  // namespace holdfast::apps
