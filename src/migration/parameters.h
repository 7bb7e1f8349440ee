// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <holdfast/error.h>

namespace holdfast::migration {

/// What a migration is for (`mode`).
enum class Mode : std::uint8_t { kNormal, kCprReboot, kCprTransfer, kCprExec };
enum class Compression : std::uint8_t { kNone, kZstd };
enum class ZeroPageDetection : std::uint8_t { kNone, kLegacy, kMultifd };

/// What `migrate-set-parameters` sets, with QEMU's names and defaults.
struct Parameters {
  std::uint64_t announce_initial = 50;  ///< ms
  std::uint64_t announce_max = 550;     ///< ms
  std::uint64_t announce_rounds = 5;
  std::uint64_t announce_step = 100;             ///< ms
  std::uint8_t throttle_trigger_threshold = 50;  ///< %
  std::uint8_t cpu_throttle_initial = 20;        ///< %
  std::uint8_t cpu_throttle_increment = 10;      ///< %
  bool cpu_throttle_tailslow = false;
  std::uint8_t max_cpu_throttle = 99;               ///< %
  std::string tls_creds = {};                       ///< id of a tls-creds object; empty: none
  std::string tls_hostname = {};                    ///< empty: the one that is connected to
  std::uint64_t max_bandwidth = 128 * 1024 * 1024;  ///< bytes a second; 0: no limit
  std::uint64_t avail_switchover_bandwidth = 0;     ///< bytes a second; 0: as measured
  std::uint64_t max_postcopy_bandwidth = 0;         ///< bytes a second; 0: no limit
  std::uint64_t downtime_limit = 300;               ///< ms
  std::uint8_t multifd_channels = 2;
  Compression multifd_compression = Compression::kNone;
  std::uint8_t multifd_zstd_level = 1;
  std::uint64_t x_vcpu_dirty_limit_period = 1000;  ///< ms
  std::uint64_t vcpu_dirty_limit = 1;              ///< MB a second
  Mode mode = Mode::kNormal;
  ZeroPageDetection zero_page_detection = ZeroPageDetection::kMultifd;
  bool direct_io = false;
  std::vector<std::string> cpr_exec_command = {};
  bool operator==(const Parameters&) const = default;
};

/// A value of its parameter's type: an enum is the number of its word.
using ParameterValue = std::variant<bool, std::uint64_t, std::string, std::vector<std::string>>;

enum class ParameterType : std::uint8_t {
  kBool,
  kUint8,
  kUint64,
  kSize,
  kEnum,
  kString,   ///< QMP takes null for the empty one
  kStrings,  ///< a list
};

/// A parameter: the control protocol's commands, their schema and the human monitor's come from it.
struct ParameterInfo {
  std::string_view name;  ///< "max-bandwidth"
  ParameterType type = ParameterType::kUint64;
  /// How the human monitor shows it, with a leading blank: " ms".
  std::string_view unit = {};
  /// The human monitor takes numbers without suffix as MiB, as QEMU's does.
  bool human_mib = false;
  std::span<const std::string_view> words = {};  ///< kEnum
  std::string_view enum_name = {};               ///< kEnum: the schema's
  std::uint64_t min = 0;
  std::uint64_t max = std::numeric_limits<std::uint64_t>::max();
  std::string_view range = {};  ///< "a value between 1 and 255", if there are limits
  ParameterValue (*get)(const Parameters& parameters) = nullptr;
  void (*set)(Parameters& parameters, const ParameterValue& value) = nullptr;
  /// Of a parameter that QEMU has and Holdfast has not: why. Then get and set are null.
  std::string_view refused = {};
};

/// All parameters, in the order the human monitor shows them; those that are refused last.
std::span<const ParameterInfo> ParameterTable() noexcept;
/// The parameter, or nullptr.
const ParameterInfo* FindParameter(std::string_view name) noexcept;

/// Sets one parameter. @return kInvalidArgument in QEMU's words for a value out of its range;
/// kUnsupported for a parameter that is refused; then nothing has changed
Status SetParameter(Parameters& parameters, const ParameterInfo& info, const ParameterValue& value);

/// Whether the parameters go together. @return kInvalidArgument in QEMU's words
Status CheckParameters(const Parameters& parameters);

/// Reads a value as the human monitor takes it: "on", "64M", "zstd".
Result<ParameterValue> ParseParameter(const ParameterInfo& info, std::string_view text);
/// As the human monitor shows it: "134217728 bytes/second".
std::string FormatParameter(const ParameterInfo& info, const ParameterValue& value);

}  // namespace holdfast::migration
