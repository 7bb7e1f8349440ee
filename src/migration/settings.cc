// SPDX-License-Identifier: Apache-2.0
#include "migration/settings.h"

namespace holdfast::migration {

Status Settings::SetParameters(std::span<const ParameterChange> changes) {
  Parameters wanted = parameters_;
  for (const ParameterChange& change : changes) {
    HF_TRY_STATUS(SetParameter(wanted, *change.info, change.value));
  }
  // Of several that depend on each other only the outcome counts.
  HF_TRY_STATUS(CheckParameters(wanted));
  HF_TRY_STATUS(capabilities_.Check(wanted));
  parameters_ = std::move(wanted);
  if (hooks_.changed) hooks_.changed();
  return {};
}

Status Settings::SetCapabilities(std::span<const CapabilityChange> changes) {
  if (running_) {
    return Fail(Errc::kInvalidArgument, "There's a migration process in progress",
                "Capabilities change before or after it.");
  }
  Capabilities wanted = capabilities_;
  for (const CapabilityChange& change : changes) wanted.Set(change.capability, change.on);
  HF_TRY_STATUS(wanted.Check(parameters_));
  if (hooks_.check) HF_TRY_STATUS(hooks_.check(capabilities_, wanted));
  capabilities_ = wanted;
  return {};
}

}  // namespace holdfast::migration
