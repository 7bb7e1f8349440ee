// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

namespace holdfast::object {

/// The one of `names` a person who typed `word` probably meant: the smallest edit distance (an
/// exchange of neighbours counts as one edit), if that is at most a third of the length. Empty if
/// none is near enough.
std::string_view Nearest(std::string_view word, std::span<const std::string_view> names);

}  // namespace holdfast::object
