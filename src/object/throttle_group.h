// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "object/object.h"
#include "object/throttle.h"

namespace holdfast::object {

/// `throttle-group`: limits that several drives and network cards share.
///
/// Thread-safety: the main thread; throttle() is for any thread.
class ThrottleGroup final : public Object {
 public:
  static const ObjectType kType;
  explicit ThrottleGroup(std::string id) : Object(std::move(id)) {}

  const ObjectType& type() const noexcept override { return kType; }
  Status Complete() override;
  /// Outlives the object with whoever uses it.
  const std::shared_ptr<Throttle>& throttle() const noexcept { return throttle_; }
  ThrottleLimits& limits() noexcept { return limits_; }
  const ThrottleLimits& limits() const noexcept { return limits_; }
  /// "object 'ID' is in use, can not be deleted" while somebody uses throttle().
  Status CanDelete() const override;

 private:
  Status MayChange(const PropertyInfo& property, const PropertyValue& value) const override;

  ThrottleLimits limits_;
  const std::shared_ptr<Throttle> throttle_ = std::make_shared<Throttle>();
};

}  // namespace holdfast::object
