// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <holdfast/error.h>

namespace holdfast {

class RamBlock;

/// What AddressSpace asks before it lets anybody at guest memory that may not be there yet.
///
/// Thread-safety: any thread.
class PopulationGate {
 public:
  virtual ~PopulationGate() = default;
  /// Waits until [offset, offset + size) of the block is populated. @return why it cannot be
  virtual Status Need(const RamBlock& block, std::uint64_t offset, std::uint64_t size) = 0;
  /// The same of all blocks.
  virtual Status NeedAll() = 0;
};

}  // namespace holdfast
