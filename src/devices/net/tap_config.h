// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <holdfast/error.h>

#include "devices/net/tap_backend.h"
#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::devices::net {

/// What `-netdev tap` says, without type and id. @return an error that names the parameter
Result<TapConfig> ParseTapConfig(const object::KeyValues& values);
/// Its parameters, for -netdev tap,help.
std::vector<object::PropertyInfo> TapProperties();

}  // namespace holdfast::devices::net
