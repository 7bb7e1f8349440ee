// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <holdfast/error.h>

#include "migration/progress.h"
#include "migration/snapshot_reader.h"

// What can be done with snapshot files alone, without a virtual machine.
namespace holdfast::migration {

/// Writes `chain` as one full snapshot that needs no parents.
/// @return what is damaged, the failed write; `path` is as before then
Status MergeSnapshot(const SnapshotChain& chain, const std::string& path, bool zstd,
                     Progress& progress);

/// Pages of a block that differ.
struct PageRange {
  std::string block;
  std::uint64_t offset = 0;  ///< bytes
  std::uint64_t size = 0;    ///< bytes
};
/// Calls `differs` for each range of pages in which two snapshots of one machine differ, in order;
/// ranges that touch are one.
/// @return kInvalidArgument where their memory is not of the same blocks; what is damaged
Status CompareMemory(const SnapshotChain& a, const SnapshotChain& b,
                     const std::function<void(const PageRange&)>& differs);

}  // namespace holdfast::migration
