// SPDX-License-Identifier: Apache-2.0
#include "devices/chardev.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "devices/file_chardev.h"
#include "devices/pty_chardev.h"
#include "devices/socket_chardev.h"
#include "devices/stdio_chardev.h"

namespace holdfast::devices {
namespace {

constexpr std::string_view kAccepted =
    "Use stdio, mon:stdio, file:PATH, pty, unix:PATH or tcp:[HOST]:PORT with "
    "[,server=on|off][,wait=on|off], null or none.";

// QEMU's other words: known, so that the answer to them is not "unknown".
constexpr std::array<std::string_view, 11> kQemuOnly = {
    "vc",   "con",    "msmouse",   "wctablet", "braille", "testdev",
    "pipe", "telnet", "websocket", "udp",      "chardev"};

/// `null`: output vanishes, input never comes.
class NullChardev final : public Chardev {
 public:
  std::size_t Write(std::span<const std::byte> data) noexcept override { return data.size(); }
  void SetReceiver(Receiver /*receiver*/) override {}
  void SetWritable(WritableCallback /*writable*/) override {}
  void ReceiverReady() noexcept override {}
  void Flush() noexcept override {}
  std::string Describe() const override { return "null"; }
};

tl::unexpected<Error> Bad(std::string_view spec, std::string_view what) {
  return Fail(Errc::kInvalidArgument, fmt::format("character device '{}': {}", spec, what),
              std::string(kAccepted));
}

}  // namespace

Result<std::unique_ptr<Chardev>> MakeChardev(EventLoop& loop, std::string_view spec,
                                             bool terminal_signals) {
  if (spec == "none") return nullptr;
  if (spec == "null") return std::make_unique<NullChardev>();
  const auto in_context = [&](Error error) {
    return Fail(std::move(error).Wrap(fmt::format("character device '{}'", spec)));
  };
  Result<std::unique_ptr<Chardev>> made = nullptr;
  const std::size_t colon = spec.find(':');
  const std::string_view word = spec.substr(0, colon);
  const std::string_view rest =
      colon == std::string_view::npos ? std::string_view{} : spec.substr(colon + 1);
  if (spec == "stdio") {
    made = StdioChardev::Create(loop, terminal_signals);
  } else if (spec == "pty") {
    made = PtyChardev::Create(loop);
  } else if (word == "file" && colon != std::string_view::npos) {
    if (rest.empty()) return Bad(spec, "no path");
    // As in QEMU all of the rest is the path, commas included.
    made = FileChardev::Create(loop, std::string(rest));
  } else if ((word == "unix" || word == "tcp") && colon != std::string_view::npos) {
    HF_TRY(std::optional<SocketSpec> socket, ParseSocketWord(spec));
    made = SocketChardev::Create(loop, *std::move(socket));
  } else if (spec.starts_with("/dev/") || std::ranges::find(kQemuOnly, word) != kQemuOnly.end()) {
    return Fail(Errc::kUnsupported,
                fmt::format("character device '{}': QEMU has this kind, Holdfast has not", spec),
                std::string(kAccepted));
  } else {
    return Bad(spec, "unknown");
  }
  if (!made) return in_context(std::move(made).error());
  return made;
}

}  // namespace holdfast::devices
