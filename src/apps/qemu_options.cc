// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "apps/option_table.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

// The options of qemu-system-x86_64, releases 7 to 11, that the table does not have.
constexpr std::string_view kQemuOnly[] = {
    "L",
    "acpitable",
    "add-fd",
    "audio",
    "audio-help",
    "audiodev",
    "bios",
    "boot",
    "compat",
    "debugcon",
    "dfilter",
    "dtb",
    "dump-vmstate",
    "echr",
    "enable-sync-profile",
    "fda",
    "fdb",
    "fsdev",
    "full-screen",
    "g",
    "gdb",
    "global",
    "icount",
    "iscsi",
    "jitdump",
    "k",
    "mtdblock",
    "no-fd-bootchk",
    "one-insn-per-tb",
    "only-migratable",
    "option-rom",
    "overcommit",
    "perfmap",
    "pflash",
    "plugin",
    "preconfig",
    "readconfig",
    "s",
    "sd",
    "seed",
    "semihosting",
    "semihosting-config",
    "set",
    "shim",
    "spice",
    "tpmdev",
    "usb",
    "usbdevice",
    "virtfs",
    "vnc",
    "win2k-hack",
    "xen-attach",
    "xen-domid",
    "xen-domid-restrict",
};

}  // namespace

std::span<const std::string_view> QemuOnlyOptions() noexcept {
  return kQemuOnly;
}

Error UnknownOption(std::string_view name) {
  if (std::find(std::begin(kQemuOnly), std::end(kQemuOnly), name) != std::end(kQemuOnly)) {
    return Error(Errc::kUnsupported,
                 fmt::format("-{}: QEMU has this option, Holdfast does not have it yet", name),
                 "Leave it out, with its argument if it has one; -help lists what there is.");
  }
  const std::string message = fmt::format("-{}: invalid option", name);
  const std::size_t equals = name.find('=');
  if (equals != std::string_view::npos && FindOption(name.substr(0, equals)) != nullptr) {
    const OptionSpec* option = FindOption(name.substr(0, equals));
    return Error(Errc::kInvalidArgument, message,
                 option->takes_argument()
                     ? fmt::format("The argument follows after a blank: -{} {}.", option->name,
                                   name.substr(equals + 1))
                     : fmt::format("-{} takes no argument.", option->name));
  }
  std::vector<std::string_view> names(std::begin(kQemuOnly), std::end(kQemuOnly));
  for (const OptionSpec& option : OptionTable()) names.insert(names.begin(), option.name);
  const std::string_view nearest = object::Nearest(name, names);
  return Error(
      Errc::kInvalidArgument, message,
      nearest.empty() ? "-help lists the options." : fmt::format("Did you mean -{}?", nearest));
}

}  // namespace holdfast::apps
