// SPDX-License-Identifier: Apache-2.0
#include "control/line_editor.h"

#include <gtest/gtest.h>

namespace holdfast::control {
namespace {

// All lines that come out of `keys`, each followed by '|', then what is still pending.
std::string Lines(std::string_view keys) {
  LineEditor editor;
  std::string lines;
  for (const char key : keys) {
    const auto outcome = editor.Feed(static_cast<unsigned char>(key));
    if (outcome.line) lines += *outcome.line + "|";
    if (outcome.cancelled) lines += "^C|";
  }
  return lines + editor.pending();
}

TEST(LineEditorTest, KeysEditTheLine) {
  const struct {
    std::string_view keys;
    const char* lines;
  } cases[] = {
      {"stop\r", "stop|"},
      {"a\r\nb\nc", "a|b|c"},
      {"sx\x7ftop\r", "stop|"},
      {"sx\btop\r", "stop|"},
      {"\x7f\x7f"
       "a\r",
       "a|"},
      {"rubbish\x15stop\r", "stop|"},
      {"info statux\x17status\r", "info status|"},
      {"rubbish\x03stop\r", "^C|stop|"},
      {"a\x01\x1b[1;5C\x1b[3~b\r", "ab|"},
      {"one\rtwo\r\x1b[A\x1b[A\r", "one|two|one|"},
      {"one\rtwo\r\x10\x10\x10\x0e\r", "one|two|two|"},
      {"one\r\x1b[A\x1b[B", "one|"},
      {"\xc3\xa4\x7f"
       "b",
       "b"},
      {"\r\r", "||"},
      {"sop\x1b[D\x1b[Dt\r", "stop|"},
      {"top\x01s\x05!\r", "stop!|"},
      {"top\x1b[Hs\x1b[F!\r", "stop!|"},
      {"xstop\x01\x04\r", "stop|"},
      {"xstop\x1b[1~\x1b[3~\r", "stop|"},
      {"stop now\x1b[1;5D\x0b\r", "stop |"},
      {"a c\x02\x02\x06\x17"
       "b\r",
       "bc|"},
      {"\xc3\xa4\xc3\xb6\x02\x7fx\r", "x\xc3\xb6|"},
      {"\xa4\xff\xc3z\r", "z|"},
      {"one\rtw\x1b[A\x1b[Bo\r", "one|two|"},
  };
  for (const auto& c : cases) EXPECT_EQ(Lines(c.keys), c.lines) << c.keys;
}

TEST(LineEditorTest, EchoFollowsTheLine) {
  LineEditor editor;
  EXPECT_EQ(editor.Feed('a').echo, "a");
  EXPECT_EQ(editor.Feed('b').echo, "b");
  EXPECT_EQ(editor.Feed(0x15).echo, "\b\b  \b\b");
  EXPECT_EQ(editor.Feed(0x7f).echo, "");
  EXPECT_EQ(editor.Feed('\r').echo, "\n");
}

// A terminal of one line that knows what the echo uses.
struct Screen {
  std::string text;
  std::size_t column = 0;
  void Show(std::string_view echo) {
    for (const char c : echo) {
      if (c == '\b') {
        --column;
      } else {
        if (column == text.size()) text += ' ';
        text[column++] = c;
      }
    }
  }
};

TEST(LineEditorTest, TheTerminalShowsTheLineWhateverIsEdited) {
  LineEditor editor;
  Screen screen;
  std::uint32_t state = 1;
  constexpr std::string_view kKeys = "abc  \x01\x02\x04\x05\x06\x0b\x0e\x10\x15\x17\x7f";
  editor.SetHistory({"first line", "second"});
  for (int i = 0; i < 20000; ++i) {
    state = state * 1664525 + 1013904223;
    screen.Show(editor.Feed(static_cast<unsigned char>(kKeys[(state >> 16) % kKeys.size()])).echo);
    ASSERT_EQ(screen.text.substr(0, editor.pending().size()), editor.pending());
    ASSERT_EQ(screen.text.find_first_not_of(' ', editor.pending().size()), std::string::npos);
    ASSERT_EQ(screen.column, editor.cursor());
  }
}

TEST(LineEditorTest, TabPutsInWhatAllCompletionsShare) {
  const struct {
    std::string_view keys;
    std::vector<std::string> words;
    const char* line;
    std::size_t candidates;
  } cases[] = {
      {"q\t", {"query-status ", "query-name "}, "query-", 0},
      {"query-\t", {"query-status ", "query-name "}, "query-", 2},
      {"query-s\t", {"query-status "}, "query-status ", 0},
      {"x\t", {}, "x", 0},
      {"qz\x02\t", {"quit"}, "quitz", 0},
  };
  for (const auto& c : cases) {
    LineEditor editor;
    editor.SetCompleter(
        [&](std::string_view) { return LineEditor::Completion{.from = 0, .words = c.words}; });
    LineEditor::Outcome outcome;
    for (const char key : c.keys) outcome = editor.Feed(static_cast<unsigned char>(key));
    EXPECT_EQ(editor.pending(), c.line);
    EXPECT_EQ(outcome.candidates.size(), c.candidates) << c.line;
  }
}

TEST(LineEditorTest, CtrlDEndsTheInputOnlyOnAnEmptyLine) {
  LineEditor editor;
  EXPECT_TRUE(editor.Feed(4).end_of_input);
  editor.Feed('a');
  EXPECT_FALSE(editor.Feed(4).end_of_input);
}

TEST(LineEditorTest, TheHistoryIsBounded) {
  LineEditor editor(2);
  editor.SetHistory({"a", "b", "c"});
  EXPECT_EQ(editor.history(), (std::vector<std::string>{"b", "c"}));
  editor.Feed('d');
  editor.Feed('\r');
  EXPECT_EQ(editor.history(), (std::vector<std::string>{"c", "d"}));
}

TEST(LineEditorTest, ALineNeverGrowsBeyondItsLimit) {
  LineEditor editor;
  for (int i = 0; i < 10000; ++i) editor.Feed('x');
  EXPECT_EQ(editor.pending().size(), 4096U);
}

}  // namespace
}  // namespace holdfast::control
