// SPDX-License-Identifier: Apache-2.0
#include "devices/scsi/scsi_bus.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::devices::scsi {

std::optional<std::uint8_t> ScsiBus::FreeTarget() const noexcept {
  for (unsigned target = 0; target <= kMostTarget; ++target) {
    if (!HasTarget(static_cast<std::uint8_t>(target))) return static_cast<std::uint8_t>(target);
  }
  return std::nullopt;
}

Status ScsiBus::Add(UnitAddress where, ScsiDisk& disk) {
  if (!units_.emplace(where, &disk).second) {
    return Fail(
        Errc::kInvalidArgument, "lun already used",
        fmt::format("There is a disk with scsi-id={},lun={} already.", where.target, where.lun));
  }
  disk.set_batch_end([this] { BatchEnded(); });
  if (changed_) changed_(where, true);
  return {};
}

void ScsiBus::Remove(const ScsiDisk& disk) {
  const auto found =
      std::ranges::find_if(units_, [&](const auto& unit) { return unit.second == &disk; });
  if (found == units_.end()) return;
  found->second->AbortAll();
  const UnitAddress where = found->first;
  units_.erase(found);
  if (changed_) changed_(where, false);
}

ScsiDisk* ScsiBus::Find(UnitAddress where) const noexcept {
  const auto found = units_.find(where);
  return found == units_.end() ? nullptr : found->second;
}

bool ScsiBus::HasTarget(std::uint8_t target) const noexcept {
  return std::ranges::any_of(units_,
                             [target](const auto& unit) { return unit.first.target == target; });
}

std::vector<std::uint16_t> ScsiBus::Luns(std::uint8_t target) const {
  std::vector<std::uint16_t> luns;
  for (const auto& [where, unused] : units_) {
    if (where.target == target) luns.push_back(where.lun);
  }
  // LUN 0 answers for its target whether there is a disk or not.
  if (luns.empty() || luns.front() != 0) luns.insert(luns.begin(), 0);
  return luns;
}

}  // namespace holdfast::devices::scsi
