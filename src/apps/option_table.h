// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast::apps {

struct Options;

/// Where in help and manual an option stands; the order is theirs.
enum class OptionSection : std::uint8_t {
  kStandard,
  kBoot,
  kConsole,
  kDevices,
  kRun,
  kHost,
  kDebug,
};
std::string_view SectionTitle(OptionSection section) noexcept;

/// One option of holdfast. Parsing, `-help` and the manual page all come from the table of these.
struct OptionSpec {
  std::string_view name;                         ///< without dashes
  std::array<std::string_view, 2> aliases = {};  ///< other names, empty: none
  std::string_view argument = {};                ///< its form; empty: the option takes none
  OptionSection section = OptionSection::kStandard;
  std::string_view help = {};  ///< sentences, wrapped by whoever prints them; `\n` keeps a break
  /// Takes the argument (empty if there is none) into the options.
  Status (*parse)(Options& options, std::string_view argument) = nullptr;

  constexpr bool takes_argument() const noexcept { return !argument.empty(); }
};

/// The whole table.
std::span<const OptionSpec> OptionTable() noexcept;

/// The option with this name or alias, or nullptr.
const OptionSpec* FindOption(std::string_view name) noexcept;

/// Names of QEMU's options that Holdfast does not have yet.
std::span<const std::string_view> QemuOnlyOptions() noexcept;

/// Why a name is no option: QEMU has it, or it is a typo of the nearest.
Error UnknownOption(std::string_view name);

}  // namespace holdfast::apps
