// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>

namespace holdfast::test {

/// Makes the calling thread, and every program it starts from now on, see a KVM that lacks some
/// capabilities: KVM_CHECK_EXTENSION answers 0 for each of them, as a kernel does that has never
/// heard of it. A seccomp filter does it, so it cannot be undone. Async-signal-safe.
/// @return false, with errno set, where the kernel has no seccomp filters
bool HideKvmCapabilities(std::span<const int> capabilities);

/// Runs `body` on a thread of its own behind such a filter.
/// @return false where the kernel has no seccomp filters; `body` has not run then
bool RunWithoutKvmCapabilities(std::span<const int> capabilities,
                               const std::function<void()>& body);

}  // namespace holdfast::test
