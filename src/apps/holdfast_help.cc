// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "apps/help.h"
#include "apps/option_table.h"

namespace holdfast::apps {
namespace {

std::string Syntax(const OptionSpec& option) {
  std::string names = fmt::format("-{}", option.name);
  for (const std::string_view alias : option.aliases) {
    if (!alias.empty()) names = fmt::format("-{} or {}", alias, names);
  }
  return option.takes_argument() ? fmt::format("{} {}", names, option.argument) : names;
}

}  // namespace

ProgramHelp HoldfastHelp() {
  ProgramHelp help{
      .name = "holdfast",
      .summary = "a virtual machine monitor for Linux/KVM whose guest RAM is guest_memfd",
      .usage = "-kernel file [options]",
      .description =
          {"holdfast runs a virtual machine on Linux's KVM. All of the guest's RAM is in a "
           "guest_memfd, which needs Linux 6.18 or newer; 'holdfastctl probe' says whether this "
           "host can do it.",
           "The command line is that of qemu-system-x86_64 for the options that holdfast has: the "
           "same spelling, the same meaning, the same defaults. Differences: the default machine "
           "is q35, the default CPU is host, the accelerator is always kvm, and a kernel must be "
           "given. Options start with one dash or two. An option of QEMU that holdfast does not "
           "have is refused with a sentence that says so.",
           "On SIGTERM the guest's power button is pressed; a second SIGTERM, and SIGINT and "
           "SIGHUP at once, end holdfast."},
      .sections = {},
      .examples =
          {{"holdfast -m 2G -smp 2 -kernel vmlinuz -initrd initrd.img -append console=ttyS0 "
            "-nographic",
            "Boot Linux with its console on this terminal; Ctrl-a x ends it:"},
           {"holdfast -object memory-backend-guest-memfd,id=ram0,size=2G -machine "
            "q35,memory-backend=ram0 -kernel vmlinuz -append console=ttyS0",
            "The same memory, written out:"}},
      .exit_status = {{"0", "the guest powered off, or holdfast was asked to end"},
                      {"1", "something is wrong: one sentence on stderr says what, and what to do"},
                      {"odd, from 1",
                       "what the guest wrote to isa-debug-exit, times two plus one"}},
      .see_also = "holdfastctl(1), qemu-system-x86_64(1)",
  };
  for (const OptionSpec& option : OptionTable()) {
    const std::string_view title = SectionTitle(option.section);
    if (help.sections.empty() || help.sections.back().title != title) {
      help.sections.push_back({.title = std::string(title), .entries = {}});
    }
    help.sections.back().entries.push_back(
        {.syntax = Syntax(option), .text = std::string(option.help)});
  }
  return help;
}

}  // namespace holdfast::apps
