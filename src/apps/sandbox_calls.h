// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

// The system calls of -sandbox on, by who needs them. A name that this architecture does not have
// is passed over.
namespace holdfast::apps {

/// Every thread: memory, locks, clocks, descriptors that are open already.
std::span<const std::string_view> CommonCalls() noexcept;
/// I/O threads besides: disks that are open, event loops. They make no socket and use none.
std::span<const std::string_view> WorkerCalls() noexcept;
/// The main thread besides both: files, sockets and threads that the control protocol asks for.
std::span<const std::string_view> MainCalls() noexcept;

// What the options of -sandbox allow to the main thread.
std::span<const std::string_view> ObsoleteCalls() noexcept;
std::span<const std::string_view> PrivilegeCalls() noexcept;
std::span<const std::string_view> SpawnCalls() noexcept;
std::span<const std::string_view> ResourceCalls() noexcept;

/// An allowed ioctl: (request & mask) == value.
struct IoctlGroup {
  std::uint64_t mask;
  std::uint64_t value;
};
/// Of every thread; of I/O threads and the main thread besides; of the main thread besides. The
/// first is the most frequent.
std::span<const IoctlGroup> CommonIoctls() noexcept;
std::span<const IoctlGroup> WorkerIoctls() noexcept;
std::span<const IoctlGroup> MainIoctls() noexcept;

}  // namespace holdfast::apps
