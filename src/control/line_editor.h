// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::control {

/// Turns what a person types, byte by byte, into lines, and says what the terminal must show.
///
/// Keys: Backspace and Delete, left and right (with Ctrl by words), Home and End (Ctrl-a, Ctrl-e),
/// Ctrl-u (whole line), Ctrl-k (to the end), Ctrl-w (word), up and down or Ctrl-p and Ctrl-n
/// (history), Tab (completion, where there is a completer), Ctrl-c (drop the line), Ctrl-d (delete;
/// on an empty line the end of the input), Enter. Other control keys and escape sequences do
/// nothing. UTF-8 is taken as it comes. Thread-safety: one thread.
class LineEditor {
 public:
  /// What a byte led to.
  struct Outcome {
    std::string echo = {};                     ///< what to send to the terminal
    std::optional<std::string> line = {};      ///< a finished line, without its end
    bool cancelled = false;                    ///< Ctrl-c: show a new prompt
    bool end_of_input = false;                 ///< Ctrl-d on an empty line
    std::vector<std::string> candidates = {};  ///< Tab: show them, then prompt and line again
  };
  /// What can stand before the cursor: each of `words` in place of the text from `from` on.
  struct Completion {
    std::size_t from = 0;
    std::vector<std::string> words = {};
  };
  using Completer = std::function<Completion(std::string_view before_cursor)>;

  static constexpr std::size_t kUsualHistory = 64;
  /// @param longest_history  how many lines it remembers
  explicit LineEditor(std::size_t longest_history = kUsualHistory)
      : longest_history_(longest_history) {}

  Outcome Feed(unsigned char byte);
  /// What has been typed of the current line, and the offset of the cursor in it.
  const std::string& pending() const noexcept { return line_; }
  std::size_t cursor() const noexcept { return cursor_; }

  /// Who is asked at Tab; without one Tab does nothing.
  void SetCompleter(Completer completer) { completer_ = std::move(completer); }
  /// The lines it remembers, oldest first.
  const std::vector<std::string>& history() const noexcept { return history_; }
  /// Replaces them, keeping the newest if they are too many.
  void SetHistory(std::vector<std::string> lines);

 private:
  enum class Escape { kNone, kStarted, kSequence };

  Outcome Edit(unsigned char byte);
  void EscapeByte(unsigned char byte);
  void SequenceKey(char final_byte);
  void Insert(std::string_view text);
  void InsertByte(unsigned char byte);
  void EraseTo(std::size_t to);
  void Recall(bool older);
  std::vector<std::string> Complete();
  Outcome Finish();
  std::string Difference(const std::string& old_line, std::size_t old_cursor) const;
  std::size_t Left() const noexcept;
  std::size_t Right() const noexcept;
  std::size_t WordLeft() const noexcept;
  std::size_t WordRight() const noexcept;

  std::size_t longest_history_;
  Completer completer_;
  std::string line_;
  std::size_t cursor_ = 0;  // always at the start of a character
  std::vector<std::string> history_;
  std::size_t recalled_ = 0;  // index into history_; its size: the line being typed
  std::string draft_;         // the line being typed, while an older one is shown
  Escape escape_ = Escape::kNone;
  std::string sequence_;       // the parameters of an escape sequence
  std::string character_;      // the bytes so far of a UTF-8 character
  bool after_return_ = false;  // so that CR LF ends one line, not two
};

}  // namespace holdfast::control
