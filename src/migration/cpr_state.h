// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>

#include "base/state.h"
#include "machine/machine.h"
#include "migration/inherited_fds.h"
#include "migration/save_job.h"

// What one monitor tells another of the same host that takes its guest over, as
// docs/formats/live-upgrade.md describes it.
namespace holdfast::migration {

/// More than any machine has; what says otherwise is refused.
inline constexpr std::size_t kMostCprFds = 4096;
inline constexpr std::size_t kMostCprName = 256;
inline constexpr std::size_t kMostCprSections = 65536;
/// Bytes of one message's contents.
inline constexpr std::uint64_t kMostCprBytes = 256ULL << 20;

/// A descriptor as a message names it.
struct CprFd {
  std::string name = {};
  /// After an exec: its number. Over a socket: unused, they come in the order of the list.
  std::uint32_t number = 0;
};

/// A message: some descriptors, the state of a machine, or both.
struct CprState {
  std::string creator = {};      ///< "holdfast 0.1.0"
  std::uint64_t stopped_at = 0;  ///< when vCPUs stood still, ns of CLOCK_MONOTONIC; 0: they run
  std::vector<CprFd> fds = {};
  std::vector<state::SavedSection> sections = {};
};

/// In front of each message.
struct CprHead {
  static constexpr std::size_t kSize = 40;
  std::uint64_t size = 0;  ///< bytes that follow
  std::uint64_t hash = 0;  ///< of these
};
/// @return kMalformed for what is none, or a size that no message has; kUnsupported for another
///         version
Result<CprHead> DecodeCprHead(std::span<const std::byte> bytes);

/// Head and contents.
std::vector<std::byte> EncodeCprState(CprState state);
/// @param contents  as many bytes as the head says
/// @return kMalformed for damage and for counts and lengths that no machine has
Result<CprState> DecodeCprState(const CprHead& head, std::span<const std::byte> contents);

/// Whether the guest can go to another monitor of this host as it is.
/// @return kUnsupported in a sentence that names what stays behind and the remedy
Status CheckCpr(const Subject& subject);
/// All that goes along, RAM first: "ram/ID" for each block, then Subject::kept_fds.
std::vector<KeptFd> KeptFds(const Subject& subject);

/// CLOCK_MONOTONIC, which all processes of a host share. ns
std::uint64_t CprClock() noexcept;

}  // namespace holdfast::migration
