// SPDX-License-Identifier: Apache-2.0
#include "migration/capabilities.h"

#include <fmt/format.h>

#include <array>

namespace holdfast::migration {
namespace {

using enum Capability;

constexpr std::array<CapabilityInfo, kCapabilities> kCapabilityTable = {{
    {kXbzrle, "xbzrle", "pages are sent whole, or compressed with multifd-compression=zstd"},
    {kRdmaPinAll, "rdma-pin-all", "there is no migration over RDMA"},
    {kAutoConverge, "auto-converge"},
    {kEvents, "events"},
    {kPostcopyRam, "postcopy-ram"},
    {kColo, "x-colo", "there is no COLO"},
    {kReleaseRam, "release-ram", "the source keeps its memory, so that it can run on"},
    {kReturnPath, "return-path"},
    {kPauseBeforeSwitchover, "pause-before-switchover"},
    {kMultifd, "multifd"},
    {kDirtyBitmaps, "dirty-bitmaps", "disks have no dirty bitmaps"},
    {kPostcopyBlocktime, "postcopy-blocktime"},
    {kLateBlockActivate, "late-block-activate"},
    {kIgnoreShared, "x-ignore-shared"},
    {kValidateUuid, "validate-uuid"},
    {kBackgroundSnapshot, "background-snapshot"},
    {kZeroCopySend, "zero-copy-send", "pages may change while they are sent"},
    {kPostcopyPreempt, "postcopy-preempt"},
    {kSwitchoverAck, "switchover-ack", "no device here needs to acknowledge the switchover"},
    {kDirtyLimit, "dirty-limit"},
    {kMappedRam, "mapped-ram"},
}};

constexpr bool InOrder() {
  for (std::size_t i = 0; i < kCapabilityTable.size(); ++i) {
    if (static_cast<std::size_t>(kCapabilityTable[i].capability) != i) return false;
  }
  return true;
}
static_assert(InOrder());

// What a snapshot taken while the guest runs excludes; QEMU's list without what is refused anyway.
constexpr Capability kNotWithBackgroundSnapshot[] = {
    kPostcopyRam, kPostcopyBlocktime,     kLateBlockActivate, kReturnPath,
    kMultifd,     kPauseBeforeSwitchover, kAutoConverge,      kValidateUuid};

tl::unexpected<Error> Conflict(std::string message, std::string hint) {
  return Fail(Errc::kInvalidArgument, std::move(message), std::move(hint));
}

}  // namespace

std::span<const CapabilityInfo> CapabilityTable() noexcept {
  return kCapabilityTable;
}

std::string_view CapabilityName(Capability capability) noexcept {
  return kCapabilityTable[static_cast<std::size_t>(capability)].name;
}

std::optional<Capability> FindCapability(std::string_view name) noexcept {
  for (const CapabilityInfo& info : kCapabilityTable) {
    if (info.name == name) return info.capability;
  }
  return std::nullopt;
}

Status Capabilities::Check(const Parameters& parameters) const {
  const Capabilities& is = *this;
  for (const CapabilityInfo& info : kCapabilityTable) {
    if (info.refused.empty() || !is[info.capability]) continue;
    return Fail(Errc::kUnsupported,
                fmt::format("Capability '{}' is not available: {}", info.name, info.refused),
                "Leave it off.");
  }
  if (is[kPostcopyRam] && is[kIgnoreShared]) {
    return Conflict("Postcopy is not compatible with ignore-shared",
                    "Turn postcopy-ram or x-ignore-shared off.");
  }
  if (is[kBackgroundSnapshot]) {
    for (const Capability other : kNotWithBackgroundSnapshot) {
      if (!is[other]) continue;
      return Conflict(
          fmt::format("Background-snapshot is not compatible with {}", CapabilityName(other)),
          "Turn one of them off.");
    }
  }
  if (is[kPostcopyPreempt] && !is[kPostcopyRam]) {
    return Conflict("Postcopy preempt requires postcopy-ram", "Turn postcopy-ram on with it.");
  }
  if (is[kDirtyLimit] && is[kAutoConverge]) {
    return Conflict("dirty-limit conflicts with auto-converge either of then available currently",
                    "Turn one of them off.");
  }
  if (is[kMappedRam] && is[kPostcopyRam]) {
    return Conflict("Mapped-ram migration is incompatible with postcopy",
                    "Turn mapped-ram or postcopy-ram off.");
  }
  if (is[kMappedRam] &&
      (parameters.multifd_compression != Compression::kNone || !parameters.tls_creds.empty())) {
    return Conflict(
        "Mapped-ram only available for non-compressed non-TLS multifd migration",
        "Set multifd-compression to none and tls-creds to \"\", or turn mapped-ram off.");
  }
  return {};
}

}  // namespace holdfast::migration
