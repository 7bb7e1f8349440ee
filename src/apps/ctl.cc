// SPDX-License-Identifier: Apache-2.0
#include "apps/ctl.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "apps/ctl_arguments.h"
#include "apps/help.h"
#include "apps/options.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

using Arguments = std::span<const char* const>;

CtlOutcome Wrong(std::string_view what, std::string_view remedy) {
  return {.output = {},
          .error = fmt::format("{}: {}. {}\n", kCtlProgram, what, remedy),
          .exit_status = EXIT_FAILURE};
}

CtlOutcome RunProbe(Arguments arguments) {
  std::string device = "/dev/kvm";
  bool json = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view word = arguments[i];
    if (word == "--json") {
      json = true;
    } else if (word == "--device") {
      if (i + 1 == arguments.size()) {
        return Wrong("probe: --device requires an argument", "Write --device /dev/kvm.");
      }
      device = arguments[++i];
    } else if (word.starts_with("--device=")) {
      device = word.substr(word.find('=') + 1);
    } else {
      return Wrong(fmt::format("probe: invalid argument '{}'", word),
                   "Write holdfastctl probe [--json] [--device PATH].");
    }
  }
  return Probe(device, json);
}

CtlOutcome RunHelp(Arguments) {
  return {.output = FormatHelp(HoldfastctlHelp()), .error = {}, .exit_status = EXIT_SUCCESS};
}

CtlOutcome RunVersion(Arguments) {
  return {.output = fmt::format("{} version {}\n", kCtlProgram, kVersion),
          .error = {},
          .exit_status = EXIT_SUCCESS};
}

// A subcommand. Dispatch, help and the manual page come from the table of these.
struct Subcommand {
  std::string_view name;
  std::array<std::string_view, 2> aliases;
  std::string_view arguments;
  std::string_view help;
  CtlOutcome (*run)(Arguments arguments);
};

constexpr Subcommand kSubcommands[] = {
    {"probe",
     {},
     "[--json] [--device path]",
     "says what this host's KVM can do and whether Holdfast can run guests on guest_memfd here\n"
     "--json prints it for scripts\n--device path asks another device than /dev/kvm",
     RunProbe},
    {"info",
     {},
     "socket [--json]",
     "says what virtual machine this is: its state, vCPUs, NUMA nodes and memory backends",
     RunCtlInfo},
    {"map",
     {},
     "socket [--png file] [--width n] [--json]",
     "draws guest memory: what is allocated, on which host node, shared or private\n"
     "--png file writes a picture instead of text; --width n is its width in pixels, of text in "
     "columns\n"
     "--json prints the numbers",
     RunCtlMap},
    {"qmp",
     {},
     "socket [command [name=value ...]]",
     "runs a command of the control protocol and prints what it returns\n"
     "without a command: a prompt with history and completion on a terminal, elsewhere the "
     "commands come from standard input, one a line\n"
     "socket is the path, unix:path or host:port of -qmp",
     RunCtlQmp},
    {"top",
     {},
     "socket [--once] [--interval seconds] [--json]",
     "shows what the virtual machine does: CPU time and exits of each vCPU, and how much memory is "
     "really allocated; q quits\n"
     "--once prints one sample over the interval (2 seconds); --json does so for scripts",
     RunCtlTop},
    {"dirty-rate",
     {},
     "socket [--seconds n] [--mode page-sampling|dirty-bitmap|dirty-ring] [--json]",
     "measures how much the guest writes, in MiB of different pages a second\n"
     "page-sampling looks at some pages and costs next to nothing; dirty-bitmap and dirty-ring "
     "(with -accel kvm,dirty-ring-size=) let KVM count, exactly, and slow the guest down meanwhile",
     RunCtlDirtyRate},
    {"snapshot",
     {},
     "create|load|info|verify|merge|diff|restore ...",
     "takes snapshots and works on their files\n"
     "create socket file [--live] [--stop] [--diff file] [--zstd] [--downtime-limit ms] saves "
     "memory and "
     "devices, not disks; --live while the guest runs on; --stop leaves it standing; --diff only "
     "what differs from another "
     "snapshot\n"
     "load socket file brings a running machine back to a snapshot of it\n"
     "info file [--json] says what is in it; verify file reads and checks all of it\n"
     "merge file new-file [--zstd] writes a differential one with its parents as one\n"
     "diff file file [--json] lists the pages that differ\n"
     "restore file [--prefault] [-- option ...] starts holdfast as it was, from there on",
     RunCtlSnapshot},
    {"clone",
     {},
     "snapshot -n count [--dir dir] [--mac] [--copy-disks] [--prefault] [-- option ...]",
     "starts as many guests as it says from one snapshot, all of them or none\n"
     "each has a folder clone-0, clone-1 ... in dir (.) with its control socket qmp.sock, "
     "console.sock, pid and log; they share nothing that is written: --copy-disks copies disk "
     "images (sharing blocks where the file system can), --mac gives network cards new addresses\n"
     "an option of holdfast behind -- takes the place of the saved one of its name and id; %n in "
     "it becomes the number of the clone",
     RunCtlClone},
    {"migrate",
     {},
     "socket uri|socket [--postcopy] [--auto-converge] [--channels n] [--zstd] [--tls creds] "
     "[--bandwidth size] [--downtime-limit ms]",
     "sends a running machine to another monitor, which was started with the same options and "
     "-incoming\n"
     "uri is where that one waits (tcp:host:port, unix:path); socket its control socket, for "
     "-incoming defer\n"
     "shows how far it is, when it ends, or why it does not; ending holdfastctl does not end it "
     "(qmp socket migrate_cancel does)\n"
     "--postcopy lets the guest run there after one pass over memory; --auto-converge slows it "
     "down "
     "as long as it writes faster than memory goes; --channels n sends on so "
     "many connections, --zstd compresses; --tls creds is the id of both monitors' tls-creds "
     "objects; --bandwidth size a second at most; --downtime-limit ms (300) the guest may stand",
     RunCtlMigrate},
    {"help", {"--help", "-h"}, "", "displays this help", RunHelp},
    {"version", {"--version", "-V"}, "", "displays the version", RunVersion},
};

bool WantsHelp(std::string_view word) {
  return word == "--help" || word == "-h";
}

}  // namespace

CtlOutcome RunCtl(Arguments arguments) {
  if (arguments.empty()) {
    return Wrong("no command given", "holdfastctl help lists the commands.");
  }
  const std::string_view name = arguments[0];
  std::vector<std::string_view> names;
  for (const Subcommand& command : kSubcommands) {
    if (name != command.name && name != command.aliases[0] && name != command.aliases[1]) {
      names.push_back(command.name);
      continue;
    }
    if (arguments.size() > 1 && WantsHelp(arguments[1])) {
      return {.output = fmt::format("usage: {} {}{}{}\n\n{}\n", kCtlProgram, name,
                                    command.arguments.empty() ? "" : " ", command.arguments,
                                    command.help),
              .error = {},
              .exit_status = EXIT_SUCCESS};
    }
    if (command.arguments.empty() && arguments.size() > 1) {
      return Wrong(fmt::format("{}: invalid argument '{}'", name, arguments[1]), "It takes none.");
    }
    return command.run(arguments.subspan(1));
  }
  const std::string_view nearest = object::Nearest(name, names);
  return Wrong(fmt::format("invalid command '{}'", name),
               nearest.empty() ? "holdfastctl help lists the commands."
                               : fmt::format("Did you mean {}?", nearest));
}

ProgramHelp HoldfastctlHelp() {
  ProgramHelp help{
      .name = std::string(kCtlProgram),
      .summary = "inspects Holdfast virtual machines and their hosts",
      .usage = "command [options]",
      .description = {"holdfastctl is the tool for people beside holdfast. Its output is made to "
                      "be read; --json gives the same to scripts."},
      .sections = {{.title = "Commands", .entries = {}}},
      .examples = {{"holdfastctl probe", "Can this host run guests on guest_memfd?"},
                   {"holdfastctl info vm.qmp", "What virtual machine is this?"},
                   {"holdfastctl qmp vm.qmp query-status", "Does the guest run?"},
                   {"holdfastctl map vm.qmp --png vm.png", "A picture of its memory."}},
      .exit_status = {{"0", "done; for probe: Holdfast can run guests on guest_memfd here"},
                      {"1", "the command line is wrong, or something failed"},
                      {"3", "probe: Holdfast cannot run guests on guest_memfd here"}},
      .see_also = "holdfast(1)",
  };
  for (const Subcommand& command : kSubcommands) {
    help.sections[0].entries.push_back(
        {.syntax = fmt::format("{}{}{}", command.name, command.arguments.empty() ? "" : " ",
                               command.arguments),
         .text = std::string(command.help)});
  }
  return help;
}

}  // namespace holdfast::apps
