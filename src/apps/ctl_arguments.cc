// SPDX-License-Identifier: Apache-2.0
#include "apps/ctl_arguments.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>

namespace holdfast::apps {

std::string CtlArguments::Value(std::string_view name, std::string_view otherwise) const {
  const auto found = options.find(name);
  return found == options.end() ? std::string(otherwise) : found->second;
}

Result<CtlArguments> ReadCtlArguments(CtlWords words, std::span<const CtlOption> options,
                                      std::size_t most_words, std::string_view usage) {
  CtlArguments arguments;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    const std::string_view name = word.substr(0, word.find('='));
    const CtlOption* option = nullptr;
    for (const CtlOption& candidate : options)
      if (candidate.name == name) option = &candidate;
    if (option == nullptr) {
      if (word.starts_with("-") || arguments.words.size() == most_words) {
        return Fail(Errc::kInvalidArgument, fmt::format("invalid argument '{}'", word),
                    fmt::format("Write {}.", usage));
      }
      arguments.words.emplace_back(word);
      continue;
    }
    std::string value;
    if (name.size() < word.size()) {
      if (option->example.empty()) {
        return Fail(Errc::kInvalidArgument, fmt::format("{} takes no value", name),
                    fmt::format("Write {} alone.", name));
      }
      value = word.substr(name.size() + 1);
    } else if (!option->example.empty()) {
      if (i + 1 == words.size()) {
        return Fail(Errc::kInvalidArgument, fmt::format("{} requires an argument", name),
                    fmt::format("Write {} {}.", name, option->example));
      }
      value = words[++i];
    }
    arguments.options[std::string(name)] = std::move(value);
  }
  return arguments;
}

Result<double> NumberOption(const CtlArguments& arguments, std::string_view option, double least,
                            double most, double otherwise) {
  if (!arguments.Has(option)) return otherwise;
  const std::string text = arguments.Value(option);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // Written so that "nan" fails too.
  const bool good =
      error == std::errc() && end == text.data() + text.size() && number >= least && number <= most;
  if (!good) {
    return Fail(Errc::kInvalidArgument, fmt::format("{} does not accept value '{}'", option, text),
                fmt::format("Write a number from {} to {}.", least, most));
  }
  return number;
}

CtlOutcome CtlFailure(std::string_view command, const Error& error) {
  return {.output = {},
          .error = fmt::format("{}: {}: {}\n", kCtlProgram, command, error.ToString()),
          .exit_status = EXIT_FAILURE};
}

}  // namespace holdfast::apps
