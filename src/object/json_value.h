// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <holdfast/error.h>

#include "object/property.h"

namespace holdfast::object {

/// Reads a JSON value as QMP does for the property's type: nothing is converted, a number in quotes
/// is not a number. @return kInvalidArgument in QEMU's words, naming the property.
Result<PropertyValue> PropertyFromJson(const PropertyInfo& property, const nlohmann::json& value);

/// The value as QMP shows it: enums by their words, lists as arrays.
nlohmann::json PropertyToJson(const PropertyInfo& property, const PropertyValue& value);

}  // namespace holdfast::object
