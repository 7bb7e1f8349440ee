// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace holdfast::apps {

/// How far a migration is, from what query-migrate returned: pass, what is left, speed and when it
/// ends, or why it does not. One line without its end.
std::string MigrationProgress(const nlohmann::ordered_json& info);

/// What a migration that is over was like: time, downtime, bytes. One line without its end.
std::string MigrationSummary(const nlohmann::ordered_json& info);

}  // namespace holdfast::apps
