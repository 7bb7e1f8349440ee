// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <holdfast/error.h>

#include "devices/block/block_device.h"

namespace holdfast::devices::block {

class FileDevice;

/// Requests through an io_uring of the submitter's own, whose completions `loop` waits for.
/// @return kUnsupported or kPermission where the kernel offers no io_uring
Result<std::unique_ptr<BlockDevice::Submitter>> MakeUringSubmitter(FileDevice& device,
                                                                   EventLoop& loop);
/// Requests through blocking system calls on threads that all disks share.
Result<std::unique_ptr<BlockDevice::Submitter>> MakeThreadSubmitter(FileDevice& device,
                                                                    EventLoop& loop);

}  // namespace holdfast::devices::block
