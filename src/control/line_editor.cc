// SPDX-License-Identifier: Apache-2.0
#include "control/line_editor.h"

#include <algorithm>
#include <utility>

namespace holdfast::control {
namespace {

constexpr std::size_t kLongestLine = 4096;
constexpr std::size_t kLongestSequence = 16;

constexpr unsigned char Ctrl(char key) {
  return static_cast<unsigned char>(key - 'a' + 1);
}
constexpr unsigned char kEscape = 0x1b;
constexpr unsigned char kDelete = 0x7f;

bool IsContinuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U;
}

// How many bytes the UTF-8 character has that begins with `lead`; 0 for a byte that begins none.
std::size_t CharacterSize(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

// Columns on the terminal; every character counts as one.
std::size_t Columns(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

std::string_view CommonPrefix(std::string_view a, std::string_view b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  auto size = static_cast<std::size_t>(end - a.begin());
  // Not in the middle of a character, of either.
  const auto inside = [&](std::string_view text) {
    return size < text.size() && IsContinuation(text[size]);
  };
  while (size > 0 && (inside(a) || inside(b))) --size;
  return a.substr(0, size);
}

}  // namespace

std::size_t LineEditor::Left() const noexcept {
  std::size_t at = cursor_;
  while (at > 0 && IsContinuation(line_[--at])) continue;
  return at;
}

std::size_t LineEditor::Right() const noexcept {
  std::size_t at = cursor_;
  if (at < line_.size()) ++at;
  while (at < line_.size() && IsContinuation(line_[at])) ++at;
  return at;
}

std::size_t LineEditor::WordLeft() const noexcept {
  std::size_t at = cursor_;
  while (at > 0 && line_[at - 1] == ' ') --at;
  while (at > 0 && line_[at - 1] != ' ') --at;
  return at;
}

std::size_t LineEditor::WordRight() const noexcept {
  std::size_t at = cursor_;
  while (at < line_.size() && line_[at] == ' ') ++at;
  while (at < line_.size() && line_[at] != ' ') ++at;
  return at;
}

// What takes a terminal from the old line to the present one: back to the first difference, the
// rest anew, blanks over what is left of the old one.
std::string LineEditor::Difference(const std::string& old_line, std::size_t old_cursor) const {
  if (old_line == line_ && old_cursor == cursor_) return {};
  const std::size_t same = CommonPrefix(old_line, line_).size();
  const std::size_t start = std::min({same, old_cursor, cursor_});
  const std::string_view before = std::string_view(old_line).substr(0, old_cursor);
  std::string echo(Columns(before.substr(start)), '\b');
  if (old_line == line_) return echo + line_.substr(start, cursor_ - start);
  const std::string_view tail = std::string_view(line_).substr(start);
  const std::size_t columns = Columns(tail);
  const std::size_t old_columns = Columns(std::string_view(old_line).substr(start));
  const std::size_t left_over = old_columns > columns ? old_columns - columns : 0;
  echo += tail;
  echo.append(left_over, ' ');
  echo.append(left_over + Columns(std::string_view(line_).substr(cursor_)), '\b');
  return echo;
}

void LineEditor::SetHistory(std::vector<std::string> lines) {
  if (lines.size() > longest_history_) {
    lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(longest_history_));
  }
  history_ = std::move(lines);
  recalled_ = history_.size();
}

void LineEditor::Insert(std::string_view text) {
  if (line_.size() + text.size() > kLongestLine) return;
  line_.insert(cursor_, text);
  cursor_ += text.size();
}

void LineEditor::InsertByte(unsigned char byte) {
  if (!IsContinuation(static_cast<char>(byte))) character_.clear();
  if (character_.empty() && CharacterSize(byte) == 0) return;
  character_ += static_cast<char>(byte);
  if (character_.size() < CharacterSize(static_cast<unsigned char>(character_[0]))) return;
  Insert(std::exchange(character_, {}));
}

// Erases between the cursor and `to`, on either side of it.
void LineEditor::EraseTo(std::size_t to) {
  const auto [from, end] = std::minmax(cursor_, to);
  const std::size_t start = from;
  line_.erase(start, end - start);
  cursor_ = start;
}

void LineEditor::Recall(bool older) {
  if (older ? recalled_ == 0 : recalled_ >= history_.size()) return;
  if (recalled_ == history_.size()) draft_ = line_;
  recalled_ = older ? recalled_ - 1 : recalled_ + 1;
  line_ = recalled_ < history_.size() ? history_[recalled_] : draft_;
  cursor_ = line_.size();
}

// Puts in what all completions have in common. @return the completions, if that adds nothing
std::vector<std::string> LineEditor::Complete() {
  if (!completer_) return {};
  Completion completion = completer_(std::string_view(line_).substr(0, cursor_));
  if (completion.words.empty() || completion.from > cursor_) return {};
  std::string_view common = completion.words.front();
  for (const std::string& word : completion.words) common = CommonPrefix(common, word);
  const std::string typed = line_.substr(completion.from, cursor_ - completion.from);
  if (common.size() > typed.size() && common.starts_with(typed)) {
    Insert(common.substr(typed.size()));
    return {};
  }
  if (completion.words.size() == 1) return {};
  return std::move(completion.words);
}

LineEditor::Outcome LineEditor::Finish() {
  if (!line_.empty() && longest_history_ > 0 && (history_.empty() || history_.back() != line_)) {
    if (history_.size() == longest_history_) history_.erase(history_.begin());
    history_.push_back(line_);
  }
  recalled_ = history_.size();
  Outcome outcome{.echo = "\n", .line = std::exchange(line_, {})};
  cursor_ = 0;
  return outcome;
}

void LineEditor::SequenceKey(char final_byte) {
  const bool by_word = sequence_.ends_with(";5");
  switch (final_byte) {
    case 'A':
    case 'B':
      return Recall(final_byte == 'A');
    case 'C':
      cursor_ = by_word ? WordRight() : Right();
      return;
    case 'D':
      cursor_ = by_word ? WordLeft() : Left();
      return;
    case 'H':
      cursor_ = 0;
      return;
    case 'F':
      cursor_ = line_.size();
      return;
    case '~':
      if (sequence_ == "3") EraseTo(Right());
      if (sequence_ == "1" || sequence_ == "7") cursor_ = 0;
      if (sequence_ == "4" || sequence_ == "8") cursor_ = line_.size();
      return;
    default:
      return;
  }
}

void LineEditor::EscapeByte(unsigned char byte) {
  if (escape_ == Escape::kStarted) {
    escape_ = byte == '[' || byte == 'O' ? Escape::kSequence : Escape::kNone;
    sequence_.clear();
    return;
  }
  if (byte < 0x40) {  // parameters; the final byte is from 0x40 up
    if (sequence_.size() < kLongestSequence) sequence_ += static_cast<char>(byte);
    return;
  }
  escape_ = Escape::kNone;
  SequenceKey(static_cast<char>(byte));
}

LineEditor::Outcome LineEditor::Edit(unsigned char byte) {
  const bool after_return = std::exchange(after_return_, byte == '\r');
  if (escape_ != Escape::kNone) {
    EscapeByte(byte);
    return {};
  }
  switch (byte) {
    case '\n':
      if (after_return) return {};
      return Finish();
    case '\r':
      return Finish();
    case '\t':
      return {.candidates = Complete()};
    case '\b':
    case kDelete:
      EraseTo(Left());
      return {};
    case Ctrl('a'):
      cursor_ = 0;
      return {};
    case Ctrl('b'):
      cursor_ = Left();
      return {};
    case Ctrl('c'):
      line_.clear();
      cursor_ = 0;
      recalled_ = history_.size();
      return {.echo = "^C\n", .cancelled = true};
    case Ctrl('d'):
      if (line_.empty()) return {.end_of_input = true};
      EraseTo(Right());
      return {};
    case Ctrl('e'):
      cursor_ = line_.size();
      return {};
    case Ctrl('f'):
      cursor_ = Right();
      return {};
    case Ctrl('k'):
      EraseTo(line_.size());
      return {};
    case Ctrl('n'):
    case Ctrl('p'):
      Recall(byte == Ctrl('p'));
      return {};
    case Ctrl('u'):
      line_.clear();
      cursor_ = 0;
      return {};
    case Ctrl('w'):
      EraseTo(WordLeft());
      return {};
    case kEscape:
      escape_ = Escape::kStarted;
      return {};
    default:
      if (byte >= 0x20) InsertByte(byte);
      return {};
  }
}

LineEditor::Outcome LineEditor::Feed(unsigned char byte) {
  const std::string line = line_;
  const std::size_t cursor = cursor_;
  Outcome outcome = Edit(byte);
  if (!outcome.line && !outcome.cancelled) outcome.echo = Difference(line, cursor);
  return outcome;
}

}  // namespace holdfast::control
