// SPDX-License-Identifier: Apache-2.0
#include "migration/parameters.h"

#include <fmt/format.h>

#include <type_traits>

#include "object/property.h"

namespace holdfast::migration {
namespace {

template <auto Member>
ParameterValue Get(const Parameters& parameters) {
  using Field = std::remove_cvref_t<decltype(parameters.*Member)>;
  if constexpr (std::is_enum_v<Field> ||
                (std::is_integral_v<Field> && !std::is_same_v<Field, bool>))
    return static_cast<std::uint64_t>(parameters.*Member);
  else
    return parameters.*Member;
}

template <auto Member>
void Set(Parameters& parameters, const ParameterValue& value) {
  using Field = std::remove_cvref_t<decltype(parameters.*Member)>;
  if constexpr (std::is_enum_v<Field> ||
                (std::is_integral_v<Field> && !std::is_same_v<Field, bool>))
    parameters.*Member = static_cast<Field>(std::get<std::uint64_t>(value));
  else
    parameters.*Member = std::get<Field>(value);
}

template <auto Member>
constexpr ParameterInfo Row(std::string_view name, ParameterType type, std::string_view unit = {}) {
  ParameterInfo info{.name = name, .type = type, .unit = unit};
  info.get = &Get<Member>;
  info.set = &Set<Member>;
  return info;
}

template <auto Member>
constexpr ParameterInfo Number(std::string_view name, ParameterType type, std::uint64_t min,
                               std::uint64_t max, std::string_view range,
                               std::string_view unit = {}) {
  ParameterInfo info = Row<Member>(name, type, unit);
  info.min = min;
  info.max = max;
  info.range = range;
  return info;
}

template <auto Member>
constexpr ParameterInfo Bandwidth(std::string_view name, bool human_mib) {
  ParameterInfo info = Row<Member>(name, ParameterType::kSize, " bytes/second");
  info.human_mib = human_mib;
  return info;
}

template <auto Member>
constexpr ParameterInfo Words(std::string_view name, std::string_view enum_name,
                              std::span<const std::string_view> words) {
  ParameterInfo info = Row<Member>(name, ParameterType::kEnum);
  info.words = words;
  info.enum_name = enum_name;
  return info;
}

constexpr ParameterInfo Refused(std::string_view name, ParameterType type, std::string_view why) {
  ParameterInfo info{.name = name, .type = type};
  info.refused = why;
  return info;
}

constexpr std::string_view kModes[] = {"normal", "cpr-reboot", "cpr-transfer", "cpr-exec"};
constexpr std::string_view kCompressions[] = {"none", "zstd"};
constexpr std::string_view kZeroPageDetections[] = {"none", "legacy", "multifd"};

constexpr std::uint64_t kMostDowntime = 2'000'000;
constexpr std::uint64_t kNoMost = std::numeric_limits<std::uint64_t>::max();
constexpr std::string_view kMilliseconds = " ms";

using P = Parameters;
using enum ParameterType;

constexpr ParameterInfo kParameterTable[] = {
    Number<&P::announce_initial>("announce-initial", kSize, 0, 100'000,
                                 "a value between 0 and 100000", kMilliseconds),
    Number<&P::announce_max>("announce-max", kSize, 0, 100'000, "a value between 0 and 100000",
                             kMilliseconds),
    Number<&P::announce_rounds>("announce-rounds", kSize, 0, 1000, "a value between 0 and 1000"),
    Number<&P::announce_step>("announce-step", kSize, 1, 10'000, "a value between 1 and 10000",
                              kMilliseconds),
    Number<&P::throttle_trigger_threshold>("throttle-trigger-threshold", kUint8, 1, 100,
                                           "an integer in the range of 1 to 100"),
    Number<&P::cpu_throttle_initial>("cpu-throttle-initial", kUint8, 1, 99,
                                     "an integer in the range of 1 to 99"),
    Number<&P::cpu_throttle_increment>("cpu-throttle-increment", kUint8, 1, 99,
                                       "an integer in the range of 1 to 99"),
    Row<&P::cpu_throttle_tailslow>("cpu-throttle-tailslow", kBool),
    Number<&P::max_cpu_throttle>("max-cpu-throttle", kUint8, 1, 99,
                                 "an integer in the range of cpu-throttle-initial to 99"),
    Row<&P::tls_creds>("tls-creds", kString),
    Row<&P::tls_hostname>("tls-hostname", kString),
    Bandwidth<&P::max_bandwidth>("max-bandwidth", true),
    Bandwidth<&P::avail_switchover_bandwidth>("avail-switchover-bandwidth", true),
    Bandwidth<&P::max_postcopy_bandwidth>("max-postcopy-bandwidth", false),
    Number<&P::downtime_limit>("downtime-limit", kUint64, 0, kMostDowntime,
                               "an integer in the range of 0 to (2000 * 1000) ms", kMilliseconds),
    Number<&P::multifd_channels>("multifd-channels", kUint8, 1, 255, "a value between 1 and 255"),
    Words<&P::multifd_compression>("multifd-compression", "MultiFDCompression", kCompressions),
    Number<&P::multifd_zstd_level>("multifd-zstd-level", kUint8, 0, 20, "a value between 0 and 20"),
    Words<&P::zero_page_detection>("zero-page-detection", "ZeroPageDetection", kZeroPageDetections),
    Number<&P::x_vcpu_dirty_limit_period>("x-vcpu-dirty-limit-period", kUint64, 1, 1000,
                                          "a value between 1 and 1000", kMilliseconds),
    Number<&P::vcpu_dirty_limit>("vcpu-dirty-limit", kUint64, 1, kNoMost,
                                 "a value of at least 1 MB/s", " MB/s"),
    Words<&P::mode>("mode", "MigMode", kModes),
    Row<&P::direct_io>("direct-io", kBool),
    Row<&P::cpr_exec_command>("cpr-exec-command", kStrings),
    Refused("tls-authz", kString, "every client is let in that the CA has signed"),
    Refused("x-checkpoint-delay", kUint64, "there is no COLO"),
    Refused("xbzrle-cache-size", kSize, "there is no xbzrle"),
    Refused("multifd-zlib-level", kUint8, "multifd-compression is none or zstd"),
    Refused("multifd-qatzip-level", kUint8, "multifd-compression is none or zstd"),
    Refused("x-rdma-chunk-size", kSize, "there is no migration over RDMA"),
};

Error BadValue(const ParameterInfo& info) {
  return Error(Errc::kInvalidArgument, fmt::format("Option {} expects {}", info.name, info.range));
}

// As the human monitor knows sizes and numbers; the names of the messages are this parameter's.
Result<ParameterValue> ParseNumber(const ParameterInfo& info, std::string_view text) {
  std::string scaled(text);
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || c == '.'; };
  if (info.human_mib && !text.empty() && is_digit(text.back())) scaled += 'M';
  const object::PropertyInfo as{
      .name = info.name,
      .type = info.type == kSize ? object::PropertyType::kSize : object::PropertyType::kUint};
  HF_TRY(const object::PropertyValue value, object::ParseProperty(as, scaled));
  return std::get<std::uint64_t>(value);
}

}  // namespace

std::span<const ParameterInfo> ParameterTable() noexcept {
  return kParameterTable;
}

const ParameterInfo* FindParameter(std::string_view name) noexcept {
  for (const ParameterInfo& info : kParameterTable) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

Status SetParameter(Parameters& parameters, const ParameterInfo& info,
                    const ParameterValue& value) {
  if (!info.refused.empty()) {
    return Fail(Errc::kUnsupported,
                fmt::format("Parameter '{}' is not available: {}", info.name, info.refused),
                "Leave it out.");
  }
  if (const auto* number = std::get_if<std::uint64_t>(&value); number != nullptr) {
    if (*number < info.min || *number > info.max) return Fail(BadValue(info));
  }
  info.set(parameters, value);
  return {};
}

Status CheckParameters(const Parameters& parameters) {
  if (parameters.max_cpu_throttle < parameters.cpu_throttle_initial) {
    return Fail(BadValue(*FindParameter("max-cpu-throttle")));
  }
  return {};
}

Result<ParameterValue> ParseParameter(const ParameterInfo& info, std::string_view text) {
  switch (info.type) {
    case kBool: {
      const object::PropertyInfo as{.name = info.name, .type = object::PropertyType::kBool};
      HF_TRY(const object::PropertyValue value, object::ParseProperty(as, text));
      return std::get<bool>(value);
    }
    case kUint8:
    case kUint64:
    case kSize:
      return ParseNumber(info, text);
    case kEnum:
      for (std::size_t i = 0; i < info.words.size(); ++i) {
        if (info.words[i] == text) return static_cast<std::uint64_t>(i);
      }
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Parameter '{}' does not accept value '{}'", info.name, text),
                  fmt::format("It is one of {}.", fmt::join(info.words, ", ")));
    case kString:
      return std::string(text);
    case kStrings:
      break;
  }
  // As QEMU has it: words with blanks between.
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t end = text.find(' ');
    if (end != 0) words.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return words;
}

std::string FormatParameter(const ParameterInfo& info, const ParameterValue& value) {
  switch (info.type) {
    case kBool:
      return std::get<bool>(value) ? "on" : "off";
    case kUint8:
    case kUint64:
    case kSize:
      return fmt::format("{}{}", std::get<std::uint64_t>(value), info.unit);
    case kEnum:
      return std::string(info.words[std::get<std::uint64_t>(value)]);
    case kString:
      return fmt::format("'{}'", std::get<std::string>(value));
    case kStrings:
      break;
  }
  return fmt::format("{}", fmt::join(std::get<std::vector<std::string>>(value), " "));
}

}  // namespace holdfast::migration
