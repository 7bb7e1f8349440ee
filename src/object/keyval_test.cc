// SPDX-License-Identifier: Apache-2.0
#include "object/keyval.h"

#include <gtest/gtest.h>

#include <array>

#include "object/suggest.h"

namespace holdfast::object {
namespace {

std::string Print(const KeyValues& values) {
  std::string text;
  for (const KeyValue& entry : values) {
    text += "[" + entry.key + (entry.bare ? "!" : "") + (entry.implied ? "~" : "") + "=" +
            entry.value + "]";
  }
  return text;
}

TEST(KeyvalTest, SplitsAsQemuDoes) {
  const struct {
    const char* text;
    const char* implied;
    const char* result;
  } cases[] = {
      {"", "type", ""},
      {"q35", "type", "[type~=q35]"},
      {"type=q35,usb=off", "type", "[type=q35][usb=off]"},
      {"q35,usb", "type", "[type~=q35][usb!=on]"},
      {"a=b,", "", "[a=b]"},
      {"a=b,,c,d=e", "", "[a=b,c][d=e]"},
      {"a,,b", "name", "[name~=a,b]"},
      {"a=,b==", "", "[a=][b==]"},
      {"a=1,a=2", "", "[a=1][a=2]"},
      {"a=,,", "", "[a=,]"},
      {"a=,,,b=1", "", "[a=,][b=1]"},
  };
  for (const auto& c : cases) {
    const auto values = ParseKeyValues(c.text, c.implied);
    ASSERT_TRUE(values) << c.text;
    EXPECT_EQ(Print(*values), c.result) << c.text;
  }
}

TEST(KeyvalTest, APartWithoutANameIsRefused) {
  for (const char* text : {"=x", ",a=b", "a=b,=c"}) {
    EXPECT_FALSE(ParseKeyValues(text)) << text;
  }
}

TEST(KeyvalTest, HelpIsSeenWhereItStandsAlone) {
  EXPECT_TRUE(WantsHelp(*ParseKeyValues("help", "type")));
  EXPECT_TRUE(WantsHelp(*ParseKeyValues("?", "type")));
  EXPECT_TRUE(WantsHelp(*ParseKeyValues("foo,help", "type")));
  EXPECT_FALSE(WantsHelp(*ParseKeyValues("foo,name=help", "type")));
  EXPECT_FALSE(WantsHelp(*ParseKeyValues("type=helpful", "type")));
}

TEST(KeyvalTest, JsonGivesTheSameList) {
  const auto values = ParseJsonKeyValues(R"({"qom-type":"t","id":"a","share":true,"size":4096})");
  ASSERT_TRUE(values);
  EXPECT_EQ(Print(*values), "[id=a][qom-type=t][share=on][size=4096]");
  for (const char* bad : {"{", "{}x", "[1]", R"({"a":{}})", R"({"a":1.5})", R"({"a":null})"}) {
    EXPECT_FALSE(ParseJsonKeyValues(bad)) << bad;
  }
}

TEST(KeyvalTest, IdsAreALetterAndThenLettersDigitsAndThreeSigns) {
  for (const char* good : {"a", "ram0", "A-b.c_d"}) EXPECT_TRUE(IsWellFormedId(good)) << good;
  for (const char* bad : {"", "1x", "-a", "a b", "a/b", "\xc3\xa4"}) {
    EXPECT_FALSE(IsWellFormedId(bad)) << bad;
  }
}

TEST(SuggestTest, TheNearestNameIsFoundIfItIsNearEnough) {
  constexpr std::array<std::string_view, 4> kNames = {"kernel", "initrd", "m", "smp"};
  EXPECT_EQ(Nearest("kernal", kNames), "kernel");
  EXPECT_EQ(Nearest("kenrel", kNames), "kernel");
  EXPECT_EQ(Nearest("intrd", kNames), "initrd");
  EXPECT_EQ(Nearest("smo", kNames), "smp");
  EXPECT_EQ(Nearest("x", kNames), "");
  EXPECT_EQ(Nearest("completely-else", kNames), "");
  EXPECT_EQ(Nearest("", kNames), "");
}

}  // namespace
}  // namespace holdfast::object
