// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include <nlohmann/json.hpp>

namespace holdfast::control {

using Json = nlohmann::json;

/// Values of one message nest at most this deep; QEMU's limit.
inline constexpr std::size_t kMostJsonDepth = 1024;
/// Values and keys in one message, which bounds the memory that parsing it takes.
inline constexpr std::size_t kMostJsonValues = 65536;

/// Parses one JSON value, strictly as RFC 8259 has it: no duplicate keys, no invalid UTF-8. Numbers
/// beyond 64 bits become floating point.
/// @return kMalformed with a text that starts like QEMU's, "JSON parse error, …".
Result<Json> ParseJson(std::string_view text);

/// Writes a value as QEMU does: in ASCII, with a blank after each colon and comma; pretty: a member
/// a line, indented by four blanks, lines ending in "\r\n". Members are in alphabetical order.
/// Bytes that are not UTF-8 become U+FFFD.
std::string JsonText(const Json& value, bool pretty);

/// Whether all of `text` is well-formed UTF-8 (Unicode 15.0, table 3-7).
bool IsUtf8(std::string_view text) noexcept;

/// Cuts a stream of bytes into JSON values, wherever lines end. It looks at brackets and quotes
/// only; whether a piece is JSON is for ParseJson() to say.
class JsonFramer {
 public:
  /// A message may have this many bytes.
  static constexpr std::size_t kMostBytes = std::size_t{1} << 20;

  enum class Step {
    kNeedMore,  ///< all of the data is taken, no message is complete
    kMessage,   ///< TakeMessage() has one; there may be data left
    kTooLong,   ///< the message is longer than kMostBytes; nothing further can be read
  };

  /// Takes bytes off the front of `data`, at most up to the end of one message.
  Step Feed(std::string_view& data);
  std::string TakeMessage();
  /// Whether part of a message is there.
  bool in_message() const noexcept { return !text_.empty(); }

 private:
  bool Ends(char c);

  std::string text_;
  std::size_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace holdfast::control
