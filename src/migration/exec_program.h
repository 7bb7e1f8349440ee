// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast::migration {

/// Starts a program (looked up in PATH, not empty) with one end of a stream socket as its standard
/// input and output. It sees the end of its input when the other end is closed, and goes on for as
/// long as it likes; nobody waits for it, and it leaves no zombie.
/// @return the other end
Result<UniqueFd> StartProgram(std::span<const std::string> arguments);

}  // namespace holdfast::migration
