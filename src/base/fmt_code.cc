// SPDX-License-Identifier: Apache-2.0
// The compiled half of fmt, as a part of ours: Debian has it only as a shared library, which would
// bring libstdc++ in a second time (`holdfast -version` then takes 1.4 ms of CPU time instead of
// 0.6), and the header-only form costs each of some 150 files three seconds of compiling.
#include <fmt/format-inl.h>

namespace fmt {
inline namespace v9 {
namespace detail {

// What fmt's headers declare as instantiated elsewhere (fmt 9.1).
template dragonbox::decimal_fp<float> dragonbox::to_decimal(float value) noexcept;
template dragonbox::decimal_fp<double> dragonbox::to_decimal(double value) noexcept;
template locale_ref::locale_ref(const std::locale& locale);
template std::locale locale_ref::get<std::locale>() const;
template thousands_sep_result<char> thousands_sep_impl(locale_ref locale);
template char decimal_point_impl(locale_ref locale);
template void buffer<char>::append(const char* begin, const char* end);
template void vformat_to(buffer<char>& out, string_view format,
                         basic_format_args<FMT_BUFFER_CONTEXT(char)> arguments, locale_ref locale);

}  // namespace detail
}  // namespace v9
}  // namespace fmt
