// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <holdfast/error.h>

#include <nlohmann/json_fwd.hpp>
#include "devices/net/dgram_backend.h"
#include "devices/net/stream_backend.h"
#include "devices/net/tap_backend.h"
#include "devices/net/user_config.h"
#include "devices/net/vhost_user_backend.h"
#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::devices::net {

/// One `-netdev`, checked for form: nothing outside has been touched.
struct NetdevConfig {
  std::string id;
  std::string type;
  std::variant<UserConfig, TapConfig, StreamConfig, DgramConfig, VhostUserConfig> what;
};

/// Reads `type=…,id=…,…` by QEMU's rules. `values` of a nested JSON object have its members under
/// "addr.type" and so on. @return an error that names property and value
Result<NetdevConfig> ParseNetdev(const object::KeyValues& values);

/// The words of the JSON form: nested objects as "addr.type", lists as several of the same key.
/// @return kInvalidArgument for what is neither
Result<object::KeyValues> NetdevValues(const nlohmann::json& object);

/// The types and what they have, for help texts.
std::vector<std::string_view> NetdevTypes();
std::vector<object::PropertyInfo> NetdevProperties(std::string_view type);

}  // namespace holdfast::devices::net
