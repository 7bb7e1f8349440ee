// SPDX-License-Identifier: Apache-2.0
#include "apps/help.h"

#include <gtest/gtest.h>

#include "apps/option_table.h"

namespace holdfast::apps {
namespace {

TEST(HelpTest, HelpAndManualNameEveryOption) {
  const std::string help = FormatHelp(HoldfastHelp());
  const std::string page = FormatManPage(HoldfastHelp(), "1.2.3");
  for (const OptionSpec& option : OptionTable()) {
    EXPECT_NE(help.find("-" + std::string(option.name)), std::string::npos) << option.name;
    std::string roff = "\\-";
    for (const char c : option.name) roff += c == '-' ? std::string("\\-") : std::string(1, c);
    EXPECT_NE(page.find(roff), std::string::npos) << option.name;
  }
  EXPECT_EQ(page.rfind(".TH HOLDFAST 1 \"\" \"Holdfast 1.2.3\"", 0), 0U);
}

TEST(HelpTest, LinesAreWrappedAtBlanks) {
  const ProgramHelp help{
      .name = "p",
      .summary = "s",
      .usage = "",
      .description = {},
      .sections = {{.title = "T",
                    .entries = {{"-a", std::string(60, 'x') + " " + std::string(10, 'y')},
                                {"-long-enough-to-stand-alone", "text"}}}},
      .examples = {},
      .exit_status = {},
      .see_also = {},
  };
  EXPECT_EQ(FormatHelp(help), "usage: p \n\np: s.\n\nT:\n-a              " + std::string(60, 'x') +
                                  "\n                yyyyyyyyyy\n"
                                  "-long-enough-to-stand-alone\n                text\n");
}

TEST(HelpTest, RoffIsEscaped) {
  const ProgramHelp help{
      .name = "p",
      .summary = "s",
      .usage = "-x",
      .description = {".starts with a dot\n'and a quote \\ back"},
      .sections = {},
      .examples = {},
      .exit_status = {},
      .see_also = {},
  };
  const std::string page = FormatManPage(help, "1");
  EXPECT_NE(page.find("\\&.starts with a dot\n.br\n\\&'and a quote \\e back"), std::string::npos)
      << page;
  EXPECT_NE(page.find(".B p\n\\-x\n"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::apps
