// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "apps/ctl.h"
#include "apps/help.h"

namespace holdfast::apps {

inline constexpr std::string_view kConformanceProgram = "holdfast-conformance";

/// What --help and holdfast-conformance(1) say.
ProgramHelp ConformanceHelp();

/// Runs the program's command line (without its name): the suite, the fuzzer, or a replay. Exit
/// status 0: all as expected; 1: a difference, or something is wrong with the command line or KVM.
CtlOutcome RunConformance(std::span<const char* const> arguments);

}  // namespace holdfast::apps
