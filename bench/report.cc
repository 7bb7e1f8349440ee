// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

namespace holdfast::bench {
namespace {

using std::chrono::steady_clock;
constexpr std::chrono::seconds kLong{10};

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace

void Report::Compare(const std::string& name, const std::string& unit, const std::string& baseline,
                     const Measure& ours, const Measure& theirs, int rounds) {
  if (!name.starts_with(only_)) return;
  std::vector<double> our_values;
  std::vector<double> their_values;
  for (int round = 0; round < rounds; ++round) {
    for (const auto& [who, measure, values] :
         {std::tuple{"holdfast", &ours, &our_values},
          std::tuple{baseline.c_str(), &theirs, &their_values}}) {
      const auto start = steady_clock::now();
      const auto value = (*measure)();
      if (!value) {
        fmt::print(stderr, "{}: {}: {}: {}\n", program_, name, who, value.error().ToString());
        failed_ = true;
        return;
      }
      // Who waits for minutes in the lab sees that it goes on.
      if (steady_clock::now() - start > kLong)
        fmt::print(stderr, "{}: {}: {} of {}: {}: {:.6g} {}\n", program_, name, round + 1, rounds,
                   who, *value, unit);
      values->push_back(*value);
    }
  }
  const double value = Median(our_values);
  const double base = Median(their_values);
  fmt::print(R"({{"name": "{}", "value": {:.6g}, "unit": "{}", "baseline": "{}", )"
             R"("baseline_value": {:.6g}, "ratio": {:.4g}}})"
             "\n",
             name, value, unit, baseline, base, value / base);
  std::fflush(stdout);
}

int RunBench(int argc, char** argv, std::string_view program,
             int (*run)(int rounds, std::string_view only)) {
  const int rounds = argc == 2 || argc == 3 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    fmt::print(stderr, "usage: {} ROUNDS [NAME]\n", program);
    return 1;
  }
  return run(rounds, argc == 3 ? argv[2] : "");
}

}  // namespace holdfast::bench
