// SPDX-License-Identifier: Apache-2.0
#include "apps/conformance.h"

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  using namespace holdfast;
  const std::size_t count = argc > 0 ? static_cast<std::size_t>(argc - 1) : 0;
  const apps::CtlOutcome outcome = apps::RunConformance({argv + (count == 0 ? 0 : 1), count});
  std::fwrite(outcome.error.data(), 1, outcome.error.size(), stderr);
  const bool written =
      std::fwrite(outcome.output.data(), 1, outcome.output.size(), stdout) == outcome.output.size();
  if (!written || std::fflush(stdout) != 0) return EXIT_FAILURE;
  return outcome.exit_status;
}
