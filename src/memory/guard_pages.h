// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <cstddef>
#include <span>

namespace holdfast {

/// Closes (or opens) pages of a mapping: any access of this process through it ends in SIGSEGV, of
/// the kernel on its behalf in EFAULT. What the pages hold stays where it is; the mapping is not
/// split. Linux 6.15 for mappings of files.
/// @return kUnsupported if the kernel has no guard pages; else the failed madvise
Status SetGuardPages(std::span<std::byte> pages, bool closed);

}  // namespace holdfast
