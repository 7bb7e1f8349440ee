// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "apps/options_parse.h"

namespace holdfast::apps {
namespace {

constexpr std::string_view kMuxPrefix = "mon:";
constexpr std::string_view kChardevPrefix = "chardev:";

bool UsesStdio(std::string_view word) {
  if (word.starts_with(kMuxPrefix)) word.remove_prefix(kMuxPrefix.size());
  return word == "stdio";
}

bool ChardevUsesStdio(const ChardevRequest& chardev) {
  return chardev.word == "stdio";
}

// `vc` is a console in QEMU's window; without a window it is a place where output vanishes.
std::string WithoutWindow(std::string_view word) {
  return std::string(word == "vc" || word.starts_with("vc:") ? "null" : word);
}

// `chardev:ID` is a -chardev that this option then owns.
Status TakeNamed(Options& options, std::string_view option, std::string_view word) {
  if (!word.starts_with(kChardevPrefix)) return {};
  Status taken = TakeChardev(options, word.substr(kChardevPrefix.size()));
  if (taken) return {};
  return Fail(std::move(taken).error().Wrap(fmt::format("-{} {}", option, word)));
}

// QEMU's defaults, where neither -serial nor -nodefaults says otherwise. With -nographic, and with
// no word about a display at all, the terminal is where the user looks.
void AddDefaults(Options& options) {
  const bool on_terminal = options.nographic || (!options.no_display && !options.daemonize);
  const auto has_prefix = [](const std::string& word) { return word.starts_with(kMuxPrefix); };
  const bool stdio_taken =
      std::any_of(options.serial.begin(), options.serial.end(), UsesStdio) ||
      (options.monitor && UsesStdio(*options.monitor)) ||
      std::any_of(options.chardevs.begin(), options.chardevs.end(), ChardevUsesStdio);
  const bool default_monitor =
      !options.no_defaults && !options.monitor && options.monitors.empty() &&
      std::none_of(options.serial.begin(), options.serial.end(), has_prefix);
  const bool default_serial = !options.no_defaults && options.serial.empty();
  if (default_serial) {
    if (!on_terminal || stdio_taken) {
      options.serial.emplace_back("null");
    } else {
      options.serial.emplace_back(default_monitor ? "mon:stdio" : "stdio");
    }
  } else if (default_monitor && options.nographic && !stdio_taken) {
    options.monitor = "stdio";
  }
}

}  // namespace

Status ParseSerial(Options& options, std::string_view argument) {
  const std::size_t limit = options.machine.serial.size();
  if (options.serial.size() == limit) {
    return Fail(Errc::kInvalidArgument, "too many serial ports",
                fmt::format("The machine has {}, COM1 to COM{}.", limit, limit));
  }
  options.serial.push_back(WithoutWindow(argument));
  return {};
}

Status ParseMonitor(Options& options, std::string_view argument) {
  options.monitor = WithoutWindow(argument);
  return {};
}

Status ParseDisplay(Options& options, std::string_view argument) {
  static constexpr std::array<std::string_view, 9> kQemuDisplays = {
      "gtk", "sdl", "vnc", "curses", "egl-headless", "spice-app", "dbus", "cocoa", "default"};
  const std::string_view type = argument.substr(0, argument.find(','));
  if (type == "help" || type == "?") {
    options.print = "Available display backend types:\nnone\n";
    return {};
  }
  if (type == "none") {
    options.no_display = true;
    return {};
  }
  if (std::find(kQemuDisplays.begin(), kQemuDisplays.end(), type) != kQemuDisplays.end()) {
    return Fail(Errc::kUnsupported,
                fmt::format("QEMU has the display '{}', Holdfast has none at all", type),
                "Write -display none, or -nographic for a console on this terminal.");
  }
  return Fail(Errc::kInvalidArgument,
              fmt::format("Parameter 'type' does not accept value '{}'", type),
              "Holdfast accepts here: none.");
}

Status ParseNographic(Options& options, std::string_view) {
  options.nographic = true;
  return {};
}

Status ParseVga(Options&, std::string_view argument) {
  static constexpr std::array<std::string_view, 7> kQemuAdapters = {
      "std", "cirrus", "vmware", "qxl", "virtio", "xenfb", "tcx"};
  if (argument == "none") return {};
  if (std::find(kQemuAdapters.begin(), kQemuAdapters.end(), argument) != kQemuAdapters.end()) {
    return Fail(
        Errc::kUnsupported,
        fmt::format("QEMU has the graphics adapter '{}', Holdfast has none at all", argument),
        "Write -vga none or leave it out.");
  }
  return Fail(Errc::kInvalidArgument, fmt::format("unknown vga type: {}", argument),
              "Holdfast accepts here: none.");
}

Status FinishConsoles(Options& options) {
  if (options.daemonize && options.nographic) {
    return Fail(Errc::kInvalidArgument, "-nographic cannot be used with -daemonize",
                "Write -display none and, say, -serial file:PATH instead of -nographic.");
  }
  for (const std::string& word : options.serial) HF_TRY_STATUS(TakeNamed(options, "serial", word));
  if (options.monitor) HF_TRY_STATUS(TakeNamed(options, "monitor", *options.monitor));
  AddDefaults(options);
  auto stdio = std::count_if(options.serial.begin(), options.serial.end(), UsesStdio);
  stdio += std::count_if(options.chardevs.begin(), options.chardevs.end(), ChardevUsesStdio);
  if (options.monitor && UsesStdio(*options.monitor)) ++stdio;
  if (stdio > 1) {
    return Fail(Errc::kInvalidArgument, "cannot use stdio by multiple character devices",
                "Write -serial mon:stdio to share it between one serial port and the monitor.");
  }
  if (stdio > 0 && options.daemonize) {
    return Fail(Errc::kInvalidArgument, "cannot use stdio with -daemonize",
                "Write -serial file:PATH or -serial unix:PATH,server=on,wait=off.");
  }
  return {};
}

}  // namespace holdfast::apps
