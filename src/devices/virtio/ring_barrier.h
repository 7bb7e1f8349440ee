// SPDX-License-Identifier: Apache-2.0
// The barrier between what one side of a ring stores and what it then looks at.
#pragma once

namespace holdfast::devices::virtio {

/// Orders every store before it against every load after it, which acquire and release do not.
/// Either side tells the other something and then looks whether it is already answered (virtio
/// 1.2, 2.7.13.4.1, and alike for packed rings): without this both may miss the other's word.
///
/// Not std::atomic_thread_fence: the same instruction, but g++ refuses that one in a
/// ThreadSanitizer build, which does not follow fences. Nothing is lost by it: the other side is a
/// guest, and the sanitizer does not see that either.
inline void RingBarrier() noexcept {
  __sync_synchronize();
}

}  // namespace holdfast::devices::virtio
