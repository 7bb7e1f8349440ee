// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>

#include <holdfast/error.h>

#include "migration/parameters.h"

namespace holdfast::migration {

/// What a migration may do (`migrate-set-capabilities`), in QEMU's order.
enum class Capability : std::uint8_t {
  kXbzrle,
  kRdmaPinAll,
  kAutoConverge,
  kEvents,
  kPostcopyRam,
  kColo,
  kReleaseRam,
  kReturnPath,
  kPauseBeforeSwitchover,
  kMultifd,
  kDirtyBitmaps,
  kPostcopyBlocktime,
  kLateBlockActivate,
  kIgnoreShared,
  kValidateUuid,
  kBackgroundSnapshot,
  kZeroCopySend,
  kPostcopyPreempt,
  kSwitchoverAck,
  kDirtyLimit,
  kMappedRam,
};
inline constexpr std::size_t kCapabilities = 21;

struct CapabilityInfo {
  Capability capability;
  std::string_view name;  ///< "postcopy-ram"
  /// Of a capability that QEMU has and Holdfast has not: why.
  std::string_view refused = {};
};
/// All capabilities by their number.
std::span<const CapabilityInfo> CapabilityTable() noexcept;
std::string_view CapabilityName(Capability capability) noexcept;
std::optional<Capability> FindCapability(std::string_view name) noexcept;

/// A set of capabilities; none at first.
class Capabilities {
 public:
  Capabilities() = default;
  Capabilities(std::initializer_list<Capability> on) {
    for (const Capability capability : on) Set(capability, true);
  }
  bool operator[](Capability capability) const {
    return set_[static_cast<std::size_t>(capability)];
  }
  void Set(Capability capability, bool on) { set_[static_cast<std::size_t>(capability)] = on; }
  bool operator==(const Capabilities&) const = default;

  /// Whether these go together, and with the parameters. @return kInvalidArgument in QEMU's words;
  /// kUnsupported for one that is refused
  Status Check(const Parameters& parameters) const;

 private:
  std::bitset<kCapabilities> set_;
};

}  // namespace holdfast::migration
