// SPDX-License-Identifier: Apache-2.0
#include "object/throttle_group.h"

#include <fmt/format.h>

#include <limits>

namespace holdfast::object {
namespace {

using Kind = ThrottleKind;

ThrottleLimits& LimitsOf(Object& object) {
  return static_cast<ThrottleGroup&>(object).limits();
}
const ThrottleLimits& LimitsOf(const Object& object) {
  return static_cast<const ThrottleGroup&>(object).limits();
}

constexpr Property<Object> Number(std::string_view name, std::string_view default_text,
                                  std::string_view description) {
  Property<Object> property{};
  property.name = name;
  property.type = PropertyType::kUint;
  property.default_text = default_text;
  property.description = description;
  property.max = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return property;
}

template <Kind Which, auto Member>
constexpr Property<Object> Limit(std::string_view name, std::string_view default_text,
                                 std::string_view description) {
  Property<Object> property = Number(name, default_text, description);
  property.set = [](Object& object, const PropertyValue& value) -> Status {
    LimitsOf(object)[Which].*Member = std::get<std::uint64_t>(value);
    return {};
  };
  property.get = [](const Object& object) -> PropertyValue {
    return LimitsOf(object)[Which].*Member;
  };
  return property;
}

constexpr Property<Object> IopsSize() {
  Property<Object> property =
      Number("x-iops-size", "0", "larger requests count as several of so many bytes");
  property.set = [](Object& object, const PropertyValue& value) -> Status {
    LimitsOf(object).iops_size = std::get<std::uint64_t>(value);
    return {};
  };
  property.get = [](const Object& object) -> PropertyValue { return LimitsOf(object).iops_size; };
  return property;
}

constexpr Property<Object> kProperties[] = {
    Limit<Kind::kBpsTotal, &ThrottleLimit::average>("x-bps-total", "0",
                                                    "bytes a second, both directions"),
    Limit<Kind::kBpsTotal, &ThrottleLimit::maximum>("x-bps-total-max", "0", "the same in bursts"),
    Limit<Kind::kBpsTotal, &ThrottleLimit::burst_seconds>("x-bps-total-max-length", "1",
                                                          "seconds a burst may last"),
    Limit<Kind::kBpsRead, &ThrottleLimit::average>("x-bps-read", "0", "bytes a second, reads"),
    Limit<Kind::kBpsRead, &ThrottleLimit::maximum>("x-bps-read-max", "0", "the same in bursts"),
    Limit<Kind::kBpsRead, &ThrottleLimit::burst_seconds>("x-bps-read-max-length", "1",
                                                         "seconds a burst may last"),
    Limit<Kind::kBpsWrite, &ThrottleLimit::average>("x-bps-write", "0", "bytes a second, writes"),
    Limit<Kind::kBpsWrite, &ThrottleLimit::maximum>("x-bps-write-max", "0", "the same in bursts"),
    Limit<Kind::kBpsWrite, &ThrottleLimit::burst_seconds>("x-bps-write-max-length", "1",
                                                          "seconds a burst may last"),
    Limit<Kind::kIopsTotal, &ThrottleLimit::average>("x-iops-total", "0",
                                                     "operations a second, both directions"),
    Limit<Kind::kIopsTotal, &ThrottleLimit::maximum>("x-iops-total-max", "0", "the same in bursts"),
    Limit<Kind::kIopsTotal, &ThrottleLimit::burst_seconds>("x-iops-total-max-length", "1",
                                                           "seconds a burst may last"),
    Limit<Kind::kIopsRead, &ThrottleLimit::average>("x-iops-read", "0",
                                                    "operations a second, reads"),
    Limit<Kind::kIopsRead, &ThrottleLimit::maximum>("x-iops-read-max", "0", "the same in bursts"),
    Limit<Kind::kIopsRead, &ThrottleLimit::burst_seconds>("x-iops-read-max-length", "1",
                                                          "seconds a burst may last"),
    Limit<Kind::kIopsWrite, &ThrottleLimit::average>("x-iops-write", "0",
                                                     "operations a second, writes"),
    Limit<Kind::kIopsWrite, &ThrottleLimit::maximum>("x-iops-write-max", "0", "the same in bursts"),
    Limit<Kind::kIopsWrite, &ThrottleLimit::burst_seconds>("x-iops-write-max-length", "1",
                                                           "seconds a burst may last"),
    IopsSize(),
};
constexpr std::string_view kQemuOnly[] = {"limits"};

}  // namespace

constexpr ObjectType ThrottleGroup::kType = {
    .name = "throttle-group",
    .description = "limits of bytes and operations a second",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<ThrottleGroup>(std::move(id));
    },
    .properties = kProperties,
    .qemu_only = kQemuOnly,
};

Status ThrottleGroup::Complete() {
  HF_TRY_STATUS(limits_.Check());
  throttle_->Set(limits_);
  return {};
}

Status ThrottleGroup::CanDelete() const {
  if (throttle_.use_count() == 1) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("object '{}' is in use, can not be deleted", id()),
              "Remove the devices that it limits first.");
}

// QEMU too has these fixed once the group is made.
Status ThrottleGroup::MayChange(const PropertyInfo& property,
                                const PropertyValue& /*value*/) const {
  return Fail(
      Errc::kInvalidArgument,
      fmt::format("Property '{}.{}' cannot be set after initialization", kType.name, property.name),
      "block_set_io_throttle changes the limits of a drive.");
}

}  // namespace holdfast::object
