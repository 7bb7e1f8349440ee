// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "apps/ctl.h"

namespace holdfast::apps {

using CtlWords = std::span<const char* const>;

/// An option of a subcommand: `--name`, or with a value `--name VALUE` and `--name=VALUE`.
struct CtlOption {
  std::string_view name;
  std::string_view example = {};  ///< of its value; empty: it has none
};

/// What stands on a subcommand's line.
struct CtlArguments {
  std::vector<std::string> words = {};  ///< that are no options
  std::map<std::string, std::string, std::less<>> options = {};

  bool Has(std::string_view name) const { return options.contains(name); }
  /// The value of an option, or `otherwise`.
  std::string Value(std::string_view name, std::string_view otherwise = {}) const;
};

/// Reads a subcommand's line. @param most_words  how many words beside options it takes
/// @param usage  for the remedy: "holdfastctl map SOCKET [--png FILE]"
/// @return kInvalidArgument naming the word that is wrong
Result<CtlArguments> ReadCtlArguments(CtlWords words, std::span<const CtlOption> options,
                                      std::size_t most_words, std::string_view usage);

/// The value of `option` as a number between `least` and `most`; `otherwise` if it is not given.
Result<double> NumberOption(const CtlArguments& arguments, std::string_view option, double least,
                            double most, double otherwise);

/// The failure of subcommand `command`: "holdfastctl: COMMAND: …" on standard error, status 1.
CtlOutcome CtlFailure(std::string_view command, const Error& error);

/// The subcommands that talk to a running VM.
CtlOutcome RunCtlInfo(CtlWords words);
CtlOutcome RunCtlMap(CtlWords words);
CtlOutcome RunCtlQmp(CtlWords words);
CtlOutcome RunCtlTop(CtlWords words);
CtlOutcome RunCtlDirtyRate(CtlWords words);
/// Takes snapshots of one, and works on their files.
CtlOutcome RunCtlSnapshot(CtlWords words);
/// Sends one to another monitor.
CtlOutcome RunCtlMigrate(CtlWords words);
/// Starts several guests from one.
CtlOutcome RunCtlClone(CtlWords words);

}  // namespace holdfast::apps
