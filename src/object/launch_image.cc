// SPDX-License-Identifier: Apache-2.0
#include "object/launch_image.h"

#include <fmt/format.h>
#include <holdfast/mapping.h>
#include <holdfast/ram_block.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "memory/conversion_engines.h"

namespace holdfast::object {
namespace {

// How much is copied and looked at at once.
constexpr std::uint64_t kPiece = 2 * kMiB;

// A part of a block, from its start on.
struct Extent {
  std::uint64_t begin;
  std::uint64_t end;
};

// Where a file has contents, also swapped out ones. Holes read as zero without being looked at.
Result<std::vector<Extent>> DataOfFile(const RamBlock& block, std::uint64_t from,
                                       std::uint64_t to) {
  std::vector<Extent> extents;
  std::uint64_t at = from;
  while (at < to) {
    const off_t data = ::lseek(block.fd(), static_cast<off_t>(block.fd_offset() + at), SEEK_DATA);
    if (data < 0) {
      if (errno == ENXIO) break;  // nothing but a hole to the end
      return FailErrno(fmt::format("looking for the contents of '{}'", block.id()));
    }
    const off_t hole = ::lseek(block.fd(), data, SEEK_HOLE);
    if (hole < 0) return FailErrno(fmt::format("looking for a hole in '{}'", block.id()));
    const std::uint64_t begin =
        std::max(from, AlignDown(static_cast<std::uint64_t>(data) - block.fd_offset(), kPageSize));
    const std::uint64_t end =
        std::min(to, AlignUp(static_cast<std::uint64_t>(hole) - block.fd_offset(), kPageSize));
    if (begin >= end) break;
    extents.push_back({begin, end});
    at = end;
  }
  return extents;
}

// The pages that a guest_memfd has: none of them is ever swapped out.
Result<std::vector<Extent>> PagesOfGuestMemfd(const RamBlock& block, std::uint64_t from,
                                              std::uint64_t to) {
  constexpr std::uint64_t kAtOnce = kGiB;
  std::vector<Extent> extents;
  std::vector<unsigned char> resident;
  for (std::uint64_t at = from; at < to;) {
    const std::uint64_t length = std::min(kAtOnce, to - at);
    resident.assign(length / kPageSize, 0);
    if (::mincore(block.host_view().data() + at, length, resident.data()) != 0)
      return FailErrno(fmt::format("looking for the pages of '{}'", block.id()));
    for (std::size_t i = 0; i < resident.size(); ++i) {
      if ((resident[i] & 1U) == 0) continue;
      const std::uint64_t page = at + i * kPageSize;
      if (!extents.empty() && extents.back().end == page) {
        extents.back().end += kPageSize;
      } else {
        extents.push_back({page, page + kPageSize});
      }
    }
    at += length;
  }
  return extents;
}

Result<std::vector<Extent>> Contents(const RamBlock& block, std::uint64_t from, std::uint64_t to) {
  if (block.guest_memfd() != nullptr) return PagesOfGuestMemfd(block, from, to);
  if (block.fd() >= 0) return DataOfFile(block, from, to);
  return std::vector<Extent>{{from, to}};
}

void Append(std::vector<LaunchRun>& runs, GuestAddress base, std::uint64_t size, bool zero) {
  if (size == 0) return;
  if (!runs.empty() && runs.back().zero == zero && runs.back().base + runs.back().size == base) {
    runs.back().size += size;
  } else {
    runs.push_back({.base = base, .size = size, .zero = zero});
  }
}

bool IsZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte byte) { return byte == std::byte{}; });
}

// What a page holds afterwards is not looked at: encryption leaves other bytes.
bool KernelConvertsInPlace(const kvm::Vm& vm) {
  const auto memfd = kvm::GuestMemfd::Create(vm, kPageSize, kvm::GuestMemfd::Access::kHostShared);
  if (!memfd) return false;
  const auto answer = memfd->SetAttributes(0, kPageSize, kvm::abi::kMemoryAttributePrivate);
  return answer && !answer->busy_offset;
}

}  // namespace

Result<ConversionEngineKind> ChooseEncryptedEngine(kvm::Vm& vm, std::string_view id,
                                                   OnOffAuto in_place) {
  using enum ConversionEngineKind;
  if (in_place != OnOffAuto::kOff && KernelConvertsInPlace(vm)) return kKernel;
  if (in_place != OnOffAuto::kOn && EngineWorks(vm, kAttributes)) return kAttributes;
  const ConversionEngineKind wanted = in_place == OnOffAuto::kOff ? kAttributes : kKernel;
  return Fail(Errc::kUnsupported,
              fmt::format("this kernel cannot convert the memory of '{}'{}", id,
                          in_place == OnOffAuto::kOn ? " in place" : ""),
              fmt::format("It needs {}.", EngineNeeds(wanted)));
}

Result<std::vector<LaunchRun>> FindLaunchRuns(const AddressSpace& memory) {
  std::vector<LaunchRun> runs;
  std::vector<std::byte> copy(kPiece);
  for (const AddressSpace::Region& region : memory.regions()) {
    const std::uint64_t first = region.block_offset;
    HF_TRY(const std::vector<Extent> extents, Contents(*region.block, first, first + region.size));
    std::uint64_t done = first;
    for (const Extent& extent : extents) {
      Append(runs, region.base + (done - first), extent.begin - done, true);
      for (std::uint64_t at = extent.begin; at < extent.end;) {
        const auto piece = std::span(copy).first(std::min(kPiece, extent.end - at));
        const GuestAddress base = region.base + (at - first);
        HF_TRY_STATUS(memory.Read(base, piece));
        for (std::uint64_t page = 0; page < piece.size(); page += kPageSize)
          Append(runs, base + page, kPageSize, IsZero(piece.subspan(page, kPageSize)));
        at += piece.size();
      }
      done = extent.end;
    }
    Append(runs, region.base + (done - first), first + region.size - done, true);
  }
  return runs;
}

Status MakeLaunchPrivate(GuestConverter& converter, GuestAddress base, std::uint64_t size) {
  HF_TRY(const GuestConverter::Outcome outcome,
         converter.Convert(base, size, MemoryAttribute::kPrivate));
  if (!outcome.busy) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("a device works on guest physical address {:#x}, which the launch makes "
                          "private",
                          outcome.busy->value()),
              "Leave the device out: nothing may use the guest's memory before the guest does.");
}

Status LaunchFromBuffer(const AddressSpace& memory, GuestConverter& converter, GuestAddress base,
                        std::uint64_t size, const TakePiece& take) {
  HF_TRY(const Mapping buffer,
         Mapping::MapAnonymous(std::min(kPiece, size), "a buffer for the guest's launch"));
  for (std::uint64_t done = 0; done < size;) {
    const auto piece = buffer.bytes().first(std::min<std::uint64_t>(buffer.size(), size - done));
    HF_TRY_STATUS(memory.Read(base + done, piece));
    HF_TRY_STATUS(MakeLaunchPrivate(converter, base + done, piece.size()));
    HF_TRY_STATUS(take(base + done, piece));
    done += piece.size();
  }
  return {};
}

}  // namespace holdfast::object
