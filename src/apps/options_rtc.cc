// SPDX-License-Identifier: Apache-2.0
// -rtc: what the machine's clock shows.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>

#include "apps/options_parse.h"
#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::apps {
namespace {

using machine::RtcConfig;
using object::Property;
using object::PropertyType;
using object::PropertyValue;

// Reads numbers of a fixed width with `separator` between them. @return whether that is all
template <std::size_t kCount>
bool ReadNumbers(std::string_view text, char separator,
                 const std::array<std::size_t, kCount>& widths,
                 std::array<unsigned, kCount>& numbers) {
  for (std::size_t i = 0; i < kCount; ++i) {
    if (i > 0) {
      if (text.empty() || text.front() != separator) return false;
      text.remove_prefix(1);
    }
    if (text.size() < widths.at(i)) return false;
    const char* const end = text.data() + widths.at(i);
    const auto [rest, error] = std::from_chars(text.data(), end, numbers.at(i));
    if (error != std::errc{} || rest != end) return false;
    text.remove_prefix(widths.at(i));
  }
  return text.empty();
}

std::optional<std::int64_t> ReadDate(std::string_view text) {
  using namespace std::chrono;  // NOLINT(google-build-using-namespace): calendar arithmetic
  std::array<unsigned, 3> day_numbers{};
  std::array<unsigned, 3> time_numbers{};
  const std::size_t t = text.find('T');
  if (!ReadNumbers(text.substr(0, t), '-', std::array<std::size_t, 3>{4, 2, 2}, day_numbers)) {
    return std::nullopt;
  }
  if (t != std::string_view::npos &&
      !ReadNumbers(text.substr(t + 1), ':', std::array<std::size_t, 3>{2, 2, 2}, time_numbers)) {
    return std::nullopt;
  }
  const auto [y, m, d] = day_numbers;
  const auto [hour, minute, second] = time_numbers;
  const year_month_day date{year{static_cast<int>(y)}, month{m}, day{d}};
  // What the clock can show (devices/rtc.h).
  if (!date.ok() || y < 1900 || y > 2199 || hour > 23 || minute > 59 || second > 59) {
    return std::nullopt;
  }
  return duration_cast<seconds>(sys_days{date}.time_since_epoch() + hours{hour} + minutes{minute} +
                                seconds{second})
      .count();
}

Status SetBase(RtcConfig& config, const PropertyValue& value) {
  const std::string& text = std::get<std::string>(value);
  config.base = text == "utc"         ? RtcConfig::Base::kUtc
                : text == "localtime" ? RtcConfig::Base::kLocaltime
                                      : RtcConfig::Base::kDate;
  if (config.base != RtcConfig::Base::kDate) return {};
  const auto date = ReadDate(text);
  if (!date) {
    return Fail(Errc::kInvalidArgument, "invalid datetime format",
                "Write utc, localtime, or a date of 1900 to 2199 as 2006-06-17T16:01:21 or "
                "2006-06-17.");
  }
  config.date = *date;
  return {};
}

constexpr std::array<std::string_view, 3> kClocks = {"host", "rt", "vm"};
constexpr std::array<std::string_view, 2> kDriftFixes = {"none", "slew"};
Status SetDriftFix(RtcConfig&, const PropertyValue& value) {
  if (std::get<std::uint64_t>(value) == 0) return {};
  return Fail(Errc::kUnsupported,
              "QEMU makes up for lost periodic interrupts with driftfix=slew, Holdfast does not",
              "Leave it out; guests that count those interrupts are old ones.");
}
constexpr Property<RtcConfig> kRtcProperties[] = {
    {{.name = "base",
      .default_text = "utc",
      .description = "what it shows at the start: utc, localtime or a date, 2006-06-17T16:01:21"},
     SetBase},
    {{.name = "clock",
      .type = PropertyType::kEnum,
      .default_text = "host",
      .description = "what it goes by: the host's time, a steady clock, or one that stands with "
                     "the guest",
      .choices = kClocks},
     object::SetField<&RtcConfig::clock>},
    {{.name = "driftfix",
      .type = PropertyType::kEnum,
      .default_text = "none",
      .description = "only none",
      .choices = kDriftFixes},
     SetDriftFix},
};

}  // namespace

Status ParseRtc(Options& options, std::string_view argument) {
  HF_TRY(const object::KeyValues values, object::ParseKeyValues(argument));
  if (object::WantsHelp(values)) {
    options.print = object::DescribeProperties<RtcConfig>("rtc", kRtcProperties);
    return {};
  }
  return object::SetProperties<RtcConfig>(kRtcProperties, {}, options.machine.rtc, values);
}

}  // namespace holdfast::apps
