// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/kvm_system.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "apps/ctl.h"

namespace holdfast::apps {
namespace {

std::string Summary(const kvm::Capabilities& capabilities) {
  if (!capabilities.CanRunOnGuestMemfd()) {
    return "Holdfast cannot run guests on guest_memfd here: the rows marked 'no' say what they "
           "need.";
  }
  if (!capabilities.kernel_mode_guests) {
    return "Holdfast can run guests on guest_memfd here, but this KVM emulates guest kernels, so "
           "stock Linux does not boot on it.";
  }
  return "Holdfast can run guests on guest_memfd here.";
}

// The table's columns; with the two blanks between them 100 characters.
constexpr std::array<std::size_t, 4> kWidths = {28, 9, 30, 27};

// Takes the first line of at most `width` characters off `text`, broken at a blank where it can be.
std::string_view TakeLine(std::string_view& text, std::size_t width) {
  std::size_t end = text.size();
  if (end > width) {
    const std::size_t blank = text.rfind(' ', width);
    end = blank == std::string_view::npos || blank == 0 ? width : blank;
  }
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end);
  while (text.starts_with(' ')) text.remove_prefix(1);
  return line;
}

// One row, as many lines as its longest cell needs.
void AppendRow(std::string& text, std::array<std::string_view, 4> cells) {
  while (std::any_of(cells.begin(), cells.end(), [](auto cell) { return !cell.empty(); })) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      line += fmt::format("{:<{}}", TakeLine(cells[i], kWidths[i]), kWidths[i] + 2);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
}

}  // namespace

std::string FormatProbe(const kvm::Capabilities& capabilities, std::string_view device) {
  std::string text = fmt::format("{}\n\n", device);
  AppendRow(text, {"FEATURE", "AVAILABLE", "NEEDS", "WITHOUT IT"});
  for (const kvm::CapabilityRow& row : kvm::Describe(capabilities)) {
    const std::string available = fmt::format("{}{}{}", row.available ? "yes" : "no",
                                              row.detail.empty() ? "" : " ", row.detail);
    AppendRow(text, {row.feature, available, row.needs, row.without});
  }
  return text + "\n" + Summary(capabilities) + "\n";
}

std::string FormatProbeJson(const kvm::Capabilities& capabilities, std::string_view device) {
  nlohmann::ordered_json features = nlohmann::ordered_json::array();
  for (const kvm::CapabilityRow& row : kvm::Describe(capabilities)) {
    features.push_back({{"id", row.id},
                        {"feature", row.feature},
                        {"available", row.available},
                        {"detail", row.detail},
                        {"needs", row.needs},
                        {"without", row.without}});
  }
  const nlohmann::ordered_json report = {
      {"device", device},
      {"can_run_on_guest_memfd", capabilities.CanRunOnGuestMemfd()},
      {"summary", Summary(capabilities)},
      {"features", std::move(features)}};
  return report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

CtlOutcome Probe(const std::string& device, bool json) {
  const auto detect = [&]() -> Result<kvm::Capabilities> {
    HF_TRY(const kvm::System system, kvm::System::Open(device));
    return kvm::Capabilities::Detect(system);
  };
  const Result<kvm::Capabilities> capabilities = detect();
  if (!capabilities) {
    CtlOutcome outcome{
        .output = {},
        .error = fmt::format("{}: {}\n", kCtlProgram, capabilities.error().ToString()),
        .exit_status = kExitCannotRun};
    if (json) {
      const nlohmann::ordered_json report = {{"device", device},
                                             {"can_run_on_guest_memfd", false},
                                             {"summary", capabilities.error().ToString()},
                                             {"features", nlohmann::ordered_json::array()}};
      outcome.output = report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    }
    return outcome;
  }
  return {
      .output = json ? FormatProbeJson(*capabilities, device) : FormatProbe(*capabilities, device),
      .error = {},
      .exit_status = capabilities->CanRunOnGuestMemfd() ? EXIT_SUCCESS : kExitCannotRun};
}

}  // namespace holdfast::apps
