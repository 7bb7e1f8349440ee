// SPDX-License-Identifier: Apache-2.0
#include "system/process_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <holdfast/mapping.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cstdlib>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

// A sanitizer maps terabytes of shadow; there only what is really used can be held against us. The
// monitor may be another build than this program, so whoever runs us says so.
bool MonitorIsSanitized() {
  return std::getenv("HOLDFAST_TEST_SANITIZED") != nullptr;
}

constexpr std::uint64_t kGuestSized = 64 * kMiB;

std::string ProcPath(pid_t pid, const char* file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

// The head line of a mapping: "start-end perms offset dev inode name".
bool ParseHead(const std::string& line, ProcessMapping& mapping) {
  std::istringstream in(line);
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  char dash = 0;
  std::string perms, offset, device, inode;
  if (!(in >> std::hex >> start >> dash >> end >> perms >> offset >> device >> inode) ||
      dash != '-') {
    return false;
  }
  std::getline(in >> std::ws, mapping.name);
  mapping.size = end - start;
  mapping.accessible = perms[0] == 'r' || perms[1] == 'w';
  return true;
}

UniqueFd TakeFd(pid_t pid, int number) {
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
}

// Maps every guest_memfd of the process here and calls look(bytes).
template <typename Look>
void LookIntoGuestMemfds(pid_t pid, Look look) {
  for (const auto& entry : std::filesystem::directory_iterator(ProcPath(pid, "fd"))) {
    std::error_code error;
    if (!IsGuestMemfd(std::filesystem::read_symlink(entry.path(), error).string())) continue;
    const UniqueFd fd = TakeFd(pid, std::stoi(entry.path().filename().string()));
    struct stat info{};
    if (!fd || ::fstat(fd.get(), &info) != 0) {
      ADD_FAILURE() << "cannot look at " << entry.path() << ": errno " << errno;
      continue;
    }
    const auto size = static_cast<std::uint64_t>(info.st_size);
    const auto mapping = Mapping::MapFile(fd.get(), 0, size, PROT_READ, "the guest's memory");
    EXPECT_OK(mapping);
    if (mapping) look(mapping->bytes());
  }
}

}  // namespace

std::vector<ProcessMapping> MappingsOf(pid_t pid) {
  std::ifstream smaps(ProcPath(pid, "smaps"));
  std::vector<ProcessMapping> mappings;
  for (std::string line; std::getline(smaps, line);) {
    ProcessMapping mapping;
    if (line.starts_with("Rss:") && !mappings.empty()) {
      mappings.back().rss = std::stoull(line.substr(4)) * kKiB;
    } else if (line.find(':') > line.find(' ') && ParseHead(line, mapping)) {
      mappings.push_back(std::move(mapping));
    }
  }
  EXPECT_FALSE(mappings.empty()) << "nothing in " << ProcPath(pid, "smaps");
  return mappings;
}

bool IsGuestMemfd(const std::string& name) {
  // "anon_inode:[kvm-gmem]" on 6.18, "/[kvm-gmem] (deleted)" later.
  return name.find("[kvm-gmem]") != std::string::npos;
}

std::vector<ProcessGuestMemfd> GuestMemfdsOf(pid_t pid) {
  std::vector<ProcessGuestMemfd> found;
  LookIntoGuestMemfds(pid, [&found](std::span<std::byte> bytes) {
    found.push_back({.size = bytes.size(), .present = PresentPages(bytes) * kPageSize});
  });
  return found;
}

std::vector<std::vector<int>> GuestMemfdNodesOf(pid_t pid) {
  std::vector<std::vector<int>> all;
  LookIntoGuestMemfds(pid, [&all](std::span<std::byte> bytes) {
    const std::uint64_t count = bytes.size() / kPageSize;
    ASSERT_EQ(PresentPages(bytes), count) << "looking at a page would allocate it";
    std::vector<void*> pages(count);
    std::vector<int> nodes(count, -1);
    for (std::uint64_t i = 0; i < count; ++i) {
      pages[i] = &bytes[i * kPageSize];
      // move_pages knows only pages that are in our own page tables.
      (void)*static_cast<const volatile std::byte*>(pages[i]);
    }
    ASSERT_EQ(::syscall(SYS_move_pages, 0, count, pages.data(), nullptr, nodes.data(), 0), 0)
        << "errno " << errno;
    all.push_back(std::move(nodes));
  });
  return all;
}

void ExpectAllRamIsGuestMemfd(pid_t pid, std::uint64_t ram) {
  const auto memfds = GuestMemfdsOf(pid);
  ASSERT_EQ(memfds.size(), 1U) << "guest_memfds among the file descriptors";
  EXPECT_EQ(memfds[0].size, ram);
  std::uint64_t mapped = 0;
  for (const ProcessMapping& mapping : MappingsOf(pid)) {
    if (IsGuestMemfd(mapping.name)) {
      mapped += mapping.size;
    } else if (mapping.accessible) {
      EXPECT_LT(MonitorIsSanitized() ? mapping.rss : mapping.size, kGuestSized)
          << "memory of guest size that is no guest_memfd: '" << mapping.name << "'";
    }
  }
  EXPECT_EQ(mapped, 2 * ram) << "the guest view and the host view";
}

}  // namespace holdfast::test
