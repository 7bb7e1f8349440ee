// SPDX-License-Identifier: Apache-2.0
#include "apps/ctl_arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast::apps {
namespace {

using Words = std::vector<const char*>;

constexpr CtlOption kOptions[] = {{"--json"}, {"--png", "FILE"}};

TEST(CtlArgumentsTest, OptionsMayStandAnywhere) {
  const Words words = {"--png", "a.png", "sock", "--json"};
  const auto arguments = ReadCtlArguments(words, kOptions, 1, "U");
  ASSERT_TRUE(arguments);
  EXPECT_EQ(arguments->words, std::vector<std::string>{"sock"});
  EXPECT_EQ(arguments->Value("--png"), "a.png");
  EXPECT_TRUE(arguments->Has("--json"));
  const Words joined = {"--png=a=b"};
  EXPECT_EQ(ReadCtlArguments(joined, kOptions, 1, "U")->Value("--png"), "a=b");
}

TEST(CtlArgumentsTest, WrongWordsAreNamed) {
  const struct {
    Words words;
    const char* error;
  } cases[] = {
      {{"a", "b"}, "invalid argument 'b'. Write U."},
      {{"--jsn"}, "invalid argument '--jsn'. Write U."},
      {{"--json=1"}, "--json takes no value. Write --json alone."},
      {{"--png"}, "--png requires an argument. Write --png FILE."},
  };
  for (const auto& c : cases) {
    const auto arguments = ReadCtlArguments(c.words, kOptions, 1, "U");
    ASSERT_FALSE(arguments) << c.error;
    EXPECT_EQ(arguments.error().ToString(), c.error);
  }
}

TEST(CtlArgumentsTest, NumbersHaveARange) {
  for (const char* word :
       {"--png=0.05", "--png=", "--png=x", "--png=nan", "--png=11", "--png=1s"}) {
    const Words words = {word};
    const auto arguments = ReadCtlArguments(words, kOptions, 1, "U");
    ASSERT_TRUE(arguments);
    const auto number = NumberOption(*arguments, "--png", 0.1, 10, 2);
    ASSERT_FALSE(number) << word;
    EXPECT_EQ(number.error().hint(), "Write a number from 0.1 to 10.");
  }
  EXPECT_EQ(*NumberOption({}, "--png", 0.1, 10, 2), 2);
}

TEST(CtlCommandsTest, WrongLinesAreOneSentenceAndExitWith1) {
  const struct {
    CtlOutcome (*run)(CtlWords);
    Words words;
    const char* error;
  } cases[] = {
      {RunCtlQmp,
       {},
       "holdfastctl: qmp: there is no socket. Write holdfastctl qmp SOCKET [COMMAND "
       "[NAME=VALUE ...]].\n"},
      {RunCtlInfo,
       {},
       "holdfastctl: info: there is no socket. Write holdfastctl info SOCKET "
       "[--json].\n"},
      {RunCtlTop,
       {"s", "--interval", "0"},
       "holdfastctl: top: --interval does not accept value "
       "'0'. Write a number from 0.1 to 3600.\n"},
      {RunCtlMap,
       {"s", "--png", "f", "--width", "1"},
       "holdfastctl: map: --width does not accept "
       "value '1'. Write a number from 400 to "
       "8192.\n"},
      {RunCtlMap,
       {"/nonexistent/s"},
       "holdfastctl: map: cannot connect to '/nonexistent/s': No "
       "such file or directory. Start holdfast with -qmp "
       "unix:PATH,server=on,wait=off and name that PATH.\n"},
  };
  for (const auto& c : cases) {
    const CtlOutcome outcome = c.run(c.words);
    EXPECT_EQ(outcome.error, c.error);
    EXPECT_EQ(outcome.output, "");
    EXPECT_EQ(outcome.exit_status, 1);
  }
}

}  // namespace
}  // namespace holdfast::apps
