// SPDX-License-Identifier: Apache-2.0
#include "control/monitor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "devices/chardev.h"

namespace holdfast::control {
namespace {

constexpr std::string_view kPrompt = "(holdfast) ";
// A peer that never reads must not make the monitor grow: beyond this its output is dropped.
constexpr std::size_t kMostOutput = 1U << 20;

}  // namespace

Monitor::Monitor(devices::Chardev& front, std::string version, Execute execute)
    : front_(front), version_(std::move(version)), execute_(std::move(execute)) {
  front_.SetWritable([this] { Drain(); });
  front_.SetReceiver([this](std::span<const std::byte> data) { return Receive(data); });
}

Monitor::~Monitor() {
  front_.SetReceiver(nullptr);
  front_.SetWritable(nullptr);
}

void Monitor::Greet() {
  if (!std::exchange(greeted_, true)) {
    Print(fmt::format("Holdfast {} monitor - type 'help' for more information\n", version_));
  }
  Print(kPrompt);
}

std::size_t Monitor::Receive(std::span<const std::byte> data) {
  for (const std::byte byte : data) {
    const LineEditor::Outcome outcome = editor_.Feed(static_cast<unsigned char>(byte));
    Print(outcome.echo);
    if (outcome.line) Print(execute_(*outcome.line));
    if (outcome.line || outcome.cancelled) Print(kPrompt);
  }
  return data.size();
}

void Monitor::Print(std::string_view text) {
  // The terminal is raw: a line feed alone would not go back to the first column.
  for (const char c : text) {
    if (output_.size() >= kMostOutput) break;
    if (c == '\n') output_ += '\r';
    output_ += c;
  }
  Drain();
}

void Monitor::Drain() {
  if (output_.empty()) return;
  const std::size_t taken = front_.Write(std::as_bytes(std::span(output_)));
  output_.erase(0, std::min(taken, output_.size()));
}

}  // namespace holdfast::control
