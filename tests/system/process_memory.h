// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::test {

/// One mapping of a process, from /proc/PID/smaps.
struct ProcessMapping {
  std::uint64_t size = 0;   ///< bytes
  std::uint64_t rss = 0;    ///< bytes
  bool accessible = false;  ///< readable or writable
  std::string name;         ///< empty: anonymous
};

/// A guest_memfd that a process has open.
struct ProcessGuestMemfd {
  std::uint64_t size = 0;
  std::uint64_t present = 0;  ///< bytes that are really there (mincore)
};

std::vector<ProcessMapping> MappingsOf(pid_t pid);
/// Whether `name` is how the kernel calls a guest_memfd in maps and fd links.
bool IsGuestMemfd(const std::string& name);
/// Every guest_memfd among the process's file descriptors, looked into from here through
/// pidfd_getfd(2).
std::vector<ProcessGuestMemfd> GuestMemfdsOf(pid_t pid);
/// The host's NUMA node of every page of every guest_memfd of the process, which must all be there;
/// asked from here, page by page (move_pages). Each list is one guest_memfd.
std::vector<std::vector<int>> GuestMemfdNodesOf(pid_t pid);

/// Expects that the process's guest RAM of `ram` bytes is one guest_memfd mapped twice, and that
/// no other memory of guest size is there.
void ExpectAllRamIsGuestMemfd(pid_t pid, std::uint64_t ram);

}  // namespace holdfast::test
