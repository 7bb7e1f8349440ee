// SPDX-License-Identifier: Apache-2.0
#include "memory/present_pages.h"

#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast {
namespace {

using Visitor = std::function<bool(std::uint64_t offset, std::uint64_t size)>;

// A guest_memfd is never swapped, and mincore tells what it has. SEEK_DATA is refused there.
Status ByMincore(const RamBlock& block, std::uint64_t offset, std::uint64_t end,
                 const Visitor& fn) {
  constexpr std::size_t kPages = 16384;
  std::array<unsigned char, kPages> resident;
  std::uint64_t start = 0;  // of a run that is not told yet
  std::uint64_t length = 0;
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t size = std::min<std::uint64_t>(end - at, kPages * kPageSize);
    if (::mincore(block.host_view().data() + at, size, resident.data()) != 0)
      return FailErrno("mincore of guest memory");
    for (std::uint64_t page = 0; page < size / kPageSize; ++page) {
      const std::uint64_t here = at + page * kPageSize;
      if ((resident[page] & 1) == 0) continue;
      if (length != 0 && start + length == here) {
        length += kPageSize;
        continue;
      }
      if (length != 0 && !fn(start, length)) return {};
      start = here;
      length = kPageSize;
    }
    at += size;
  }
  if (length != 0) (void)fn(start, length);
  return {};
}

// Files know their holes, swapped-out pages of a memfd are data.
Status BySeek(const RamBlock& block, std::uint64_t offset, std::uint64_t end, const Visitor& fn) {
  const std::uint64_t base = block.fd_offset();
  std::uint64_t at = offset;
  while (at < end) {
    const off_t data = ::lseek(block.fd(), static_cast<off_t>(base + at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return {};  // no more data
    if (data < 0) break;                        // this file system does not tell
    const std::uint64_t from = AlignDown(static_cast<std::uint64_t>(data) - base, kPageSize);
    if (from >= end) return {};
    const off_t hole = ::lseek(block.fd(), data, SEEK_HOLE);
    if (hole < 0) break;
    const auto to = std::min(end, AlignUp(static_cast<std::uint64_t>(hole) - base, kPageSize));
    const std::uint64_t begin = std::max(from, at);
    if (to > begin && !fn(begin, to - begin)) return {};
    at = std::max(to, begin + kPageSize);
  }
  if (at < end) (void)fn(at, end - at);
  return {};
}

}  // namespace

Status ForEachPresent(const RamBlock& block, std::uint64_t offset, std::uint64_t size,
                      const Visitor& fn) {
  const std::uint64_t end = std::min(block.size(), offset + size);
  if (offset >= end) return {};
  if (block.guest_memfd() != nullptr) return ByMincore(block, offset, end, fn);
  if (block.fd() >= 0 && block.shared()) return BySeek(block, offset, end, fn);
  // Reading what a private mapping does not have allocates nothing.
  (void)fn(offset, end - offset);
  return {};
}

}  // namespace holdfast
