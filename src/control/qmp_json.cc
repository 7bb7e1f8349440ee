// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_json.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace holdfast::control {
namespace {

// Builds the value while the library's parser reads, so that limits hold before memory is used and
// a key that comes twice is seen.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Put(nullptr); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(value); }
  bool number_unsigned(number_unsigned_t value) override { return Put(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return Put(value); }
  bool string(string_t& value) override { return Put(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t /*elements*/) override { return Open(Json::object()); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t /*elements*/) override { return Open(Json::array()); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) return Stop("JSON parse error, duplicate key");
    key_ = std::move(name);
    return Count();
  }
  bool parse_error(std::size_t /*position*/, const std::string& /*last_token*/,
                   const nlohmann::detail::exception& error) override {
    // "[json.exception.…] parse error at line 1, column 5: what we want; last read: '…'"
    std::string_view what = error.what();
    const std::size_t colon = what.find(": ");
    if (colon != std::string_view::npos) what.remove_prefix(colon + 2);
    what = what.substr(0, what.find("; last read"));
    return Stop(fmt::format("JSON parse error, {}", what));
  }

  Json& value() noexcept { return root_; }
  const std::string& error() const noexcept { return error_; }

 private:
  bool Stop(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }
  bool Count() { return ++count_ <= kMostJsonValues || Stop("JSON token count limit exceeded"); }
  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool Put(Json value) {
    if (!Count()) return false;
    Place(std::move(value));
    return true;
  }
  bool Open(Json value) {
    if (!Count()) return false;
    if (open_.size() == kMostJsonDepth) return Stop("JSON nesting depth limit exceeded");
    // An open array does not grow until all inside it is closed, so the pointer stays good.
    open_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;
  std::string key_;
  std::string error_;
  std::size_t count_ = 0;
};

// The code point that starts at `text`, and its length; 0 where the bytes are not UTF-8.
struct CodePoint {
  std::uint32_t value = 0;
  std::size_t length = 0;
};

CodePoint Decode(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {first, 1};
  const std::size_t length = first < 0xc2   ? 0
                             : first < 0xe0 ? 2
                             : first < 0xf0 ? 3
                             : first < 0xf5 ? 4
                                            : 0;
  if (length == 0 || text.size() < length) return {};
  std::uint32_t value = first & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return {};
    value = value << 6U | (byte(i) & 0x3fU);
  }
  constexpr std::array<std::uint32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xd800 && value < 0xe000;
  if (value < kSmallest[length] || value > 0x10ffff || surrogate) return {};
  return {value, length};
}

void WriteString(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const CodePoint point = Decode(text);
    const std::uint32_t value = point.length == 0 ? 0xfffd : point.value;
    text.remove_prefix(point.length == 0 ? 1 : point.length);
    switch (value) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (value >= 0x20 && value < 0x7f) {
          out += static_cast<char>(value);
        } else if (value < 0x10000) {
          fmt::format_to(std::back_inserter(out), "\\u{:04x}", value);
        } else {
          fmt::format_to(std::back_inserter(out), "\\u{:04x}\\u{:04x}",
                         0xd800 + ((value - 0x10000) >> 10U),
                         0xdc00 + ((value - 0x10000) & 0x3ffU));
        }
    }
  }
  out += '"';
}

class Writer {
 public:
  explicit Writer(bool pretty) : pretty_(pretty) {}

  void Write(const Json& value) {
    if (value.is_object()) {
      Items('{', '}', value.items(), [this](const auto& item) {
        WriteString(out_, item.key());
        out_ += ": ";
        Write(item.value());
      });
    } else if (value.is_array()) {
      Items('[', ']', value, [this](const Json& item) { Write(item); });
    } else if (value.is_string()) {
      WriteString(out_, value.get_ref<const std::string&>());
    } else if (value.is_number_float() && !std::isfinite(value.get<double>())) {
      out_ += "null";  // JSON has no infinity
    } else {
      out_ += value.dump();
    }
  }
  std::string Take() { return std::move(out_); }

 private:
  template <typename Range, typename One>
  void Items(char open, char close, const Range& range, One one) {
    out_ += open;
    ++depth_;
    bool first = true;
    for (const auto& item : range) {
      if (!first) out_ += pretty_ ? "," : ", ";
      first = false;
      NewLine();
      one(item);
    }
    --depth_;
    if (!first) NewLine();
    out_ += close;
  }
  void NewLine() {
    if (!pretty_) return;
    out_ += "\r\n";
    out_.append(4 * depth_, ' ');
  }

  bool pretty_;
  std::size_t depth_ = 0;
  std::string out_;
};

bool IsBlank(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

}  // namespace

Result<Json> ParseJson(std::string_view text) {
  Builder builder;
  if (!Json::sax_parse(text, &builder)) {
    return Fail(Errc::kMalformed,
                builder.error().empty() ? "JSON parse error, not JSON" : builder.error());
  }
  return std::move(builder.value());
}

std::string JsonText(const Json& value, bool pretty) {
  Writer writer(pretty);
  writer.Write(value);
  return writer.Take();
}

bool IsUtf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t length = Decode(text).length;
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

JsonFramer::Step JsonFramer::Feed(std::string_view& data) {
  while (!data.empty()) {
    const char c = data.front();
    const bool opens = c == '{' || c == '[' || c == '"';
    if (depth_ == 0 && !in_string_) {
      if (IsBlank(c)) {
        data.remove_prefix(1);
        if (!text_.empty()) return Step::kMessage;  // a bare word ends
        continue;
      }
      if (opens && !text_.empty()) return Step::kMessage;
    }
    data.remove_prefix(1);
    if (text_.size() == kMostBytes) return Step::kTooLong;
    text_ += c;
    if (Ends(c)) return Step::kMessage;
  }
  return Step::kNeedMore;
}

// Whether the message is complete with `c`, which was just added to it.
bool JsonFramer::Ends(char c) {
  if (in_string_) {
    if (std::exchange(escaped_, false)) return false;
    if (c == '\\') escaped_ = true;
    if (c == '"') {
      in_string_ = false;
      return depth_ == 0;
    }
    // No string holds a bare control character: here is where a client that lost its thread can
    // start anew, and the parser will say what was wrong.
    return static_cast<unsigned char>(c) < 0x20;
  }
  switch (c) {
    case '"':
      in_string_ = true;
      return false;
    case '{':
    case '[':
      ++depth_;
      return false;
    case '}':
    case ']':
      if (depth_ > 0) --depth_;
      return depth_ == 0;
    default:
      return false;
  }
}

std::string JsonFramer::TakeMessage() {
  depth_ = 0;
  in_string_ = false;
  escaped_ = false;
  return std::exchange(text_, {});
}

}  // namespace holdfast::control
