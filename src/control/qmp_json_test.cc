// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace holdfast::control {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::StartsWith;

// What a framer makes of bytes that come in pieces of `piece`.
std::vector<std::string> Cut(std::string_view text, std::size_t piece) {
  JsonFramer framer;
  std::vector<std::string> messages;
  while (!text.empty()) {
    std::string_view part = text.substr(0, piece);
    text.remove_prefix(part.size());
    while (!part.empty()) {
      if (framer.Feed(part) == JsonFramer::Step::kMessage) messages.push_back(framer.TakeMessage());
    }
  }
  if (framer.in_message()) messages.push_back("unfinished: " + framer.TakeMessage());
  return messages;
}

TEST(JsonFramer, CutsAStreamWhereverItsLinesAndPiecesEnd) {
  const struct {
    std::string text;
    std::vector<std::string> messages;
  } cases[] = {
      {"{}", {"{}"}},
      {" \r\n\t{} \n", {"{}"}},
      {"{}{}[]", {"{}", "{}", "[]"}},
      {"{\"a\":\n{\"b\": [1, 2]}}\n{}", {"{\"a\":\n{\"b\": [1, 2]}}", "{}"}},
      {R"({"a}]":"\"}"})", {R"({"a}]":"\"}"})"}},
      {R"({"a":"\\"}{})", {R"({"a":"\\"})", "{}"}},
      {"foo bar\n", {"foo", "bar"}},
      {"1{}", {"1", "{}"}},
      {"\"a b\"{}", {"\"a b\"", "{}"}},
      {"}{}", {"}", "{}"}},
      {"{\"a\n{}", {"{\"a\n", "{}"}},
      {"{\"execute\":", {"unfinished: {\"execute\":"}},
      {"foo", {"unfinished: foo"}},
      {"", {}},
  };
  for (const auto& c : cases) {
    for (const std::size_t piece : {1U, 2U, 7U, 1000U}) {
      SCOPED_TRACE(c.text + " by " + std::to_string(piece));
      EXPECT_THAT(Cut(c.text, piece), ElementsAreArray(c.messages));
    }
  }
}

TEST(JsonFramer, StopsAtAMessageThatIsTooLong) {
  JsonFramer framer;
  const std::string text = "\"" + std::string(JsonFramer::kMostBytes, 'x');
  std::string_view rest = text;
  EXPECT_EQ(framer.Feed(rest), JsonFramer::Step::kTooLong);
}

TEST(JsonFramer, TakesAMessageThatIsJustShortEnough) {
  JsonFramer framer;
  const std::string text = "\"" + std::string(JsonFramer::kMostBytes - 2, 'x') + "\"";
  std::string_view rest = text;
  EXPECT_EQ(framer.Feed(rest), JsonFramer::Step::kMessage);
}

TEST(ParseJson, TakesWhatIsJson) {
  for (const char* text : {"{}", "[1,-2,3.5,true,false,null,\"a\"]", R"({"a":{"b":[{}]}})",
                           "18446744073709551615", R"("\u00e4\ud83d\ude00")"}) {
    const auto value = ParseJson(text);
    EXPECT_TRUE(value) << text << ": " << value.error().message();
  }
}

TEST(ParseJson, SaysWhatIsNot) {
  const struct {
    std::string text;
    const char* message;
  } cases[] = {
      {"", "JSON parse error, "},
      {"foo", "JSON parse error, "},
      {"{\"a\":1]", "JSON parse error, "},
      {"{'a':1}", "JSON parse error, "},
      {"{\"a\":1,}", "JSON parse error, "},
      {"{\"a\" 1}", "JSON parse error, "},
      {"\"a\nb\"", "JSON parse error, "},
      {"\"\\q\"", "JSON parse error, "},
      {"\"\xff\"", "JSON parse error, "},
      {"{}{}", "JSON parse error, "},
      {R"({"a":1,"a":2})", "JSON parse error, duplicate key"},
      {std::string(kMostJsonDepth + 1, '['), "JSON nesting depth limit exceeded"},
      {"[" + std::string(2 * kMostJsonValues, ' ') + "]", nullptr},
  };
  for (const auto& c : cases) {
    const auto value = ParseJson(c.text);
    if (c.message == nullptr) {
      EXPECT_TRUE(value);
      continue;
    }
    ASSERT_FALSE(value) << c.text;
    EXPECT_THAT(value.error().message(), StartsWith(c.message)) << c.text;
    EXPECT_EQ(value.error().message().find("json.exception"), std::string::npos);
  }
}

TEST(ParseJson, BoundsHowManyValuesAMessageHas) {
  std::string text = "[0";
  for (std::size_t i = 2; i < kMostJsonValues; ++i) text += ",0";
  EXPECT_TRUE(ParseJson(text + "]"));
  const auto value = ParseJson(text + ",0]");
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().message(), "JSON token count limit exceeded");
}

TEST(JsonText, IsAsciiWithBlanksAsInQemu) {
  const Json value = {{"b", {1, 2.5, true, nullptr}}, {"a", "\"\\\n\x01\xc3\xa4\xf0\x9f\x98\x80"}};
  EXPECT_EQ(JsonText(value, false),
            R"({"a": "\"\\\n\u0001\u00e4\ud83d\ude00", "b": [1, 2.5, true, null]})");
  EXPECT_EQ(JsonText(Json::object(), false), "{}");
}

TEST(JsonText, PrettyHasAMemberALine) {
  const Json value = {{"a", Json::array({1, 2})}, {"b", Json::object()}};
  EXPECT_EQ(JsonText(value, true),
            "{\r\n    \"a\": [\r\n        1,\r\n        2\r\n    ],\r\n    \"b\": {}\r\n}");
}

TEST(JsonText, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(JsonText("a\xff\xc3z", false), R"("a\ufffd\ufffdz")");
}

TEST(IsUtf8, KnowsWellFormedSequences) {
  const struct {
    const char* text;
    bool right;
  } cases[] = {
      {"", true},
      {"abc", true},
      {"\xc3\xa4", true},
      {"\xef\xbf\xbf", true},
      {"\xf4\x8f\xbf\xbf", true},
      {"\xc3", false},
      {"\xa4", false},
      {"\xc0\x80", false},
      {"\xe0\x80\x80", false},
      {"\xed\xa0\x80", false},
      {"\xf4\x90\x80\x80", false},
      {"\xff", false},
  };
  for (const auto& c : cases) EXPECT_EQ(IsUtf8(c.text), c.right) << c.text;
}

}  // namespace
}  // namespace holdfast::control
