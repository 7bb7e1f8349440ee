// SPDX-License-Identifier: Apache-2.0
// Any bytes as holdfast's command line: a NUL ends an argument, as in /proc/PID/cmdline. Parsing is
// pure, so nothing outside is touched; what is accepted must be accepted again in the same way.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "apps/options.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kMostArguments = 256;
  std::vector<std::string> words(1);
  for (std::size_t i = 0; i < size && words.size() <= kMostArguments; ++i) {
    if (data[i] == 0) {
      words.emplace_back();
    } else {
      words.back() += static_cast<char>(data[i]);
    }
  }
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  const auto once = holdfast::apps::ParseCommandLine(arguments);
  const auto again = holdfast::apps::ParseCommandLine(arguments);
  if (once.has_value() != again.has_value()) std::abort();
  if (!once && once.error().ToString().empty()) std::abort();
  return 0;
}
