// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

#include <holdfast/capabilities.h>

namespace holdfast::apps {

inline constexpr std::string_view kCtlProgram = "holdfastctl";
/// `holdfastctl probe` on a host that cannot run guests on guest_memfd.
inline constexpr int kExitCannotRun = 3;

/// What holdfastctl answers: text for stdout, perhaps an error for stderr, and the exit status.
struct CtlOutcome {
  std::string output;
  std::string error;
  int exit_status = 0;
};

/// Runs a command line of holdfastctl, without the program's name.
CtlOutcome RunCtl(std::span<const char* const> arguments);

/// The report of `probe` for people: a table, what each missing feature means, a summary.
std::string FormatProbe(const kvm::Capabilities& capabilities, std::string_view device);
/// The same for scripts.
std::string FormatProbeJson(const kvm::Capabilities& capabilities, std::string_view device);
/// `probe`; `device` is the KVM device.
CtlOutcome Probe(const std::string& device, bool json);

}  // namespace holdfast::apps
