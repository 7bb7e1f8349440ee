// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include <holdfast/error.h>

#include "migration/progress.h"
#include "migration/ring_reader.h"
#include "migration/snapshot_reader.h"

namespace holdfast {
class AddressSpace;
}

namespace holdfast::migration {

/// Whether a snapshot's memory is that of this machine.
/// @return kInvalidArgument naming what differs
Status CheckMemory(const SnapshotChain& chain, const AddressSpace& memory);

/// Reads chunks of a snapshot's memory, on several threads, each through an io_uring of its own
/// where the kernel offers them.
/// @return as LoadMemory()
Status ReadChunks(const SnapshotChain& chain, std::span<const RingReader::Target> chunks,
                  Progress& progress);

/// Reads all of a snapshot's memory into guest RAM, which CheckMemory() has compared, on several
/// threads. No vCPU runs and no device works meanwhile.
/// @param empty  whether RAM is as it was made: all zeroes
/// @return kMalformed naming what is damaged, the failed read; kInvalidArgument when cancelled.
///         RAM is undefined then.
/// Thread-safety: any thread.
Status LoadMemory(const SnapshotChain& chain, const AddressSpace& memory, bool empty,
                  Progress& progress);

/// Reads all memory of a snapshot, and its parents', and compares it with its checksums.
/// @return as LoadMemory()
Status VerifyMemory(const SnapshotChain& chain, Progress& progress);

}  // namespace holdfast::migration
