// SPDX-License-Identifier: Apache-2.0
// Writes a manual page to stdout: `man_gen holdfast`, `man_gen holdfastctl` … Runs in the build.
#include <cstdio>
#include <string_view>

#include "apps/conformance.h"
#include "apps/ctl.h"
#include "apps/help.h"
#include "apps/options.h"

int main(int argc, char** argv) {
  using namespace holdfast::apps;
  const std::string_view program = argc == 2 ? argv[1] : "";
  ProgramHelp help;
  if (program == kProgram) {
    help = HoldfastHelp();
  } else if (program == kCtlProgram) {
    help = HoldfastctlHelp();
  } else if (program == kConformanceProgram) {
    help = ConformanceHelp();
  } else {
    std::fputs("usage: man_gen holdfast|holdfastctl|holdfast-conformance\n", stderr);
    return 1;
  }
  const std::string page = FormatManPage(help, kVersion);
  return std::fwrite(page.data(), 1, page.size(), stdout) == page.size() ? 0 : 1;
}
