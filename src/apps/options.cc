// SPDX-License-Identifier: Apache-2.0
#include "apps/options.h"

#include <fmt/format.h>

#include "apps/option_table.h"
#include "apps/options_parse.h"

namespace holdfast::apps {
namespace {

// What must hold between options, and what they leave open.
Status Finish(Options& options) {
  if (options.machine.kernel.empty()) {
    if (!options.machine.cmdline.empty() || !options.machine.initrd.empty()) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("{} only allowed with -kernel option",
                              options.machine.initrd.empty() ? "-append" : "-initrd"),
                  "Name the kernel with -kernel FILE.");
    }
    return Fail(Errc::kInvalidArgument, "no kernel given, so there is nothing to run",
                "Name one with -kernel FILE (a bzImage or a PVH ELF file); Holdfast has no "
                "firmware that could find one on a disk.");
  }
  HF_TRY_STATUS(FinishMemory(options));
  HF_TRY_STATUS(FinishBlock(options));
  HF_TRY_STATUS(FinishNet(options));
  HF_TRY_STATUS(FinishControl(options));
  return FinishConsoles(options);
}

}  // namespace

Result<Options> ParseCommandLine(std::span<const char* const> arguments) {
  Options options;
  options.command_line.assign(arguments.begin(), arguments.end());
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string_view word = arguments[i];
    if (word.empty() || word.front() != '-') {
      // QEMU takes what is no option as the first disk.
      if (Status disk = ParseHardDisk(options, 0, word); !disk) {
        return Fail(std::move(disk).error().Wrap(word));
      }
      continue;
    }
    word.remove_prefix(word.starts_with("--") ? 2 : 1);
    const OptionSpec* option = FindOption(word);
    if (option == nullptr) return Fail(UnknownOption(word));
    std::string_view argument;
    if (option->takes_argument()) {
      if (i + 1 == arguments.size()) {
        return Fail(Errc::kInvalidArgument, fmt::format("-{}: requires an argument", word),
                    fmt::format("Write -{} {}.", word, option->argument));
      }
      argument = arguments[++i];
    }
    if (Status status = option->parse(options, argument); !status) {
      const std::string context = option->takes_argument() ? fmt::format("-{} {}", word, argument)
                                                           : fmt::format("-{}", word);
      return Fail(std::move(status).error().Wrap(context));
    }
    // As in QEMU, whoever asks for help gets it, whatever else is wrong behind it.
    if (options.print) return options;
  }
  HF_TRY_STATUS(Finish(options));
  return options;
}

}  // namespace holdfast::apps
