// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::apps {

/// One entry of a help section: an option or command and what it does.
struct HelpEntry {
  std::string syntax;
  std::string text;  ///< sentences; `\n` keeps a line break
};
struct HelpSection {
  std::string title;
  std::vector<HelpEntry> entries;
};

/// All that help and the manual page of a program say.
struct ProgramHelp {
  std::string name;
  std::string summary;                   ///< "a virtual machine monitor …"
  std::string usage;                     ///< "[options]"
  std::vector<std::string> description;  ///< paragraphs
  std::vector<HelpSection> sections;
  std::vector<HelpEntry> examples;  ///< command line, what it does
  std::vector<HelpEntry> exit_status;
  std::string see_also;
};

/// What holdfast's -help and holdfast(1) say, made from the table of options.
ProgramHelp HoldfastHelp();
/// The same for holdfastctl.
ProgramHelp HoldfastctlHelp();

/// Plain text for a terminal of 80 columns.
std::string FormatHelp(const ProgramHelp& help);
/// A manual page of section 1 in roff, with the man macros.
std::string FormatManPage(const ProgramHelp& help, std::string_view version);

}  // namespace holdfast::apps
