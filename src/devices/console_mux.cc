// SPDX-License-Identifier: Apache-2.0
#include "devices/console_mux.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace holdfast::devices {
namespace {

// The terminal is raw for input only, but the far end may be a socket: hence \r\n.
constexpr std::string_view kHelp =
    "\r\n"
    "C-a h    show this help\r\n"
    "C-a x    end Holdfast\r\n"
    "C-a s    (saves nothing: there are no -snapshot disks)\r\n"
    "C-a t    turn timestamps on and off\r\n"
    "C-a b    send break (magic SysRq)\r\n"
    "C-a c    switch between console and monitor\r\n"
    "C-a C-a  send C-a\r\n";

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

ConsoleMux::ConsoleMux(Chardev& backend, Hooks hooks)
    : backend_(backend), hooks_(std::move(hooks)) {
  backend_.SetReceiver([this](std::span<const std::byte> data) { return OnInput(data); });
  backend_.SetWritable([this] {
    serial_.Writable();
    monitor_.Writable();
  });
}

ConsoleMux::~ConsoleMux() {
  backend_.SetReceiver({});
  backend_.SetWritable({});
}

std::size_t ConsoleMux::OnInput(std::span<const std::byte> data) {
  // With an empty span: one of the front ends has room again, and not always the focused one.
  DeliverAll();
  std::size_t taken = 0;
  for (; taken < data.size(); ++taken) {
    const auto c = std::to_integer<char>(data[taken]);
    if (!escaped_ && c == kEscape) {
      escaped_ = true;
      continue;
    }
    if (std::exchange(escaped_, false) && c != kEscape) {
      DeliverAll();  // what was typed before the command comes before it
      OnCommand(c);
      continue;
    }
    if (focused().Full()) focused().Deliver();
    if (focused().Full()) {     // the rest waits in the backend
      escaped_ = c == kEscape;  // this byte comes again
      break;
    }
    focused().Type(data[taken]);
  }
  DeliverAll();
  return taken;
}

void ConsoleMux::DeliverAll() {
  serial_.Deliver();
  monitor_.Deliver();
}

void ConsoleMux::OnCommand(char command) {
  switch (command) {
    case 'h':
    case '?':
      Print(kHelp);
      break;
    case 'x':
      Print("\r\nHoldfast: terminated\r\n");
      if (hooks_.quit) hooks_.quit();
      break;
    case 's':
      Print("\r\nnothing to save: there are no -snapshot disks\r\n");
      break;
    case 'b':
      if (focus_ == Focus::kSerial && hooks_.send_break) hooks_.send_break();
      break;
    case 't': {
      const MutexLock lock(mutex_);
      timestamps_ = !timestamps_;
      started_ = Clock::now();
      line_start_ = false;  // the first one comes with the next line
      break;
    }
    case 'c':
      focus_ = focus_ == Focus::kSerial ? Focus::kMonitor : Focus::kSerial;
      if (hooks_.focus_changed) hooks_.focus_changed(focus_);
      break;
    default:  // as in QEMU, anything else is dropped
      break;
  }
}

// For people at the terminal; what does not fit is not worth waiting for.
void ConsoleMux::Print(std::string_view text) {
  const MutexLock lock(mutex_);
  backend_.Write(Bytes(text));
}

bool ConsoleMux::WritePrefix() {
  const std::size_t taken = backend_.Write(Bytes(prefix_));
  prefix_.erase(0, taken);
  return prefix_.empty();
}

std::size_t ConsoleMux::WriteOut(std::span<const std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  if (!prefix_.empty() && !WritePrefix()) return 0;
  if (!timestamps_) return backend_.Write(data);

  std::size_t taken = 0;
  while (taken < data.size()) {
    if (std::exchange(line_start_, false)) {
      const auto ms =
          std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started_).count();
      prefix_ = fmt::format("[{:02}:{:02}:{:02}.{:03}] ", ms / 3'600'000, ms / 60'000 % 60,
                            ms / 1000 % 60, ms % 1000);
      if (!WritePrefix()) return taken;
    }
    const auto rest = data.subspan(taken);
    const auto newline = std::ranges::find(rest, std::byte{'\n'});
    const bool whole = newline != rest.end();
    const auto length = static_cast<std::size_t>(newline - rest.begin()) + (whole ? 1 : 0);
    const std::size_t written = backend_.Write(rest.first(length));
    taken += written;
    if (written < length) return taken;
    line_start_ = whole;
  }
  return taken;
}

std::size_t ConsoleMux::FrontEnd::Write(std::span<const std::byte> data) noexcept {
  return mux_.WriteOut(data);
}

void ConsoleMux::FrontEnd::SetReceiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  if (receiver_) ReceiverReady();
}

void ConsoleMux::FrontEnd::Deliver() {
  if (!receiver_) return;
  const std::size_t taken = receiver_(typed_);
  typed_.erase(typed_.begin(), typed_.begin() + static_cast<std::ptrdiff_t>(taken));
}

void ConsoleMux::FrontEnd::Writable() const {
  if (writable_) writable_();
}

}  // namespace holdfast::devices
