// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <holdfast/error.h>

namespace holdfast::apps {

/// Copies a file's contents to a name that nobody has yet: by sharing its blocks until one of the
/// two is written (FICLONE, on Btrfs, XFS and bcachefs), else byte by byte, holes staying holes.
/// @return kInvalidArgument for what is no ordinary file; the failed system call, and then there is
///         no new file
Status CopyFile(const std::string& from, const std::string& to);

}  // namespace holdfast::apps
