// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "apps/options.h"

namespace holdfast::apps {

/// Something of the host that one virtual machine alone can have.
struct Claim {
  enum class Kind { kDisk, kListener, kFile, kMemory, kInterface, kNumber };
  Kind kind = Kind::kFile;
  std::string what;    ///< "the disk image 'a.img'"; equal for two machines that cannot be together
  std::string option;  ///< that claims it, as written
  std::string path = {};  ///< of a disk: its name
};

/// All that a machine with these options claims. Only names are compared: two names of one file are
/// two things; shared memory in a folder is looked at, for it is nobody else's.
std::vector<Claim> ClaimsOf(const Options& options);

}  // namespace holdfast::apps
