// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "memory/host_writes.h"
#include "memory/population_gate.h"

namespace holdfast {

namespace {

// Allocates and maps the pages of a piece of the host view in one go, which costs a fraction of a
// page fault for each. Only a hint: what fails here fails, or does not, when the piece is used.
void Allocate(std::span<std::byte> piece) {
  const auto address = reinterpret_cast<std::uint64_t>(piece.data());
  const std::uint64_t lead = address % kPageSize;
  (void)::madvise(piece.data() - lead, AlignUp(lead + piece.size(), kPageSize),
                  MADV_POPULATE_WRITE);
}

}  // namespace

AddressSpace::AddressSpace(kvm::Vm* vm) : vm_(vm), writes_(std::make_shared<HostWrites>()) {}

AddressSpace::~AddressSpace() {
  if (vm_ == nullptr) return;
  // Nothing can be done about a failure here, and nothing uses the slot any more.
  for (const Region& region : regions_) (void)vm_->DeleteMemslot(region.memslot);
}

Status AddressSpace::AddRam(GuestAddress base, std::uint64_t size, RamBlock& block,
                            std::uint64_t block_offset) {
  const auto refuse = [&](std::string_view why) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("cannot map {:#x} bytes of '{}' at guest physical address {:#x}: {}",
                            size, block.id(), base.value(), why));
  };
  if (size == 0) return refuse("the range is empty");
  if (!IsPageAligned(base.value() | size | block_offset)) return refuse("it is not page aligned");
  const auto end = CheckedAdd(base.value(), size);
  if (!end) return refuse("the range wraps");
  if (!RangeFits(block_offset, size, block.size())) return refuse("the block ends before");
  if (block.readonly()) return refuse("it is read-only memory (readonly=on with share=on)");
  const auto next = std::ranges::lower_bound(regions_, base, {}, &Region::base);
  if (next != regions_.end() && next->base.value() < *end) return refuse("other RAM lies there");
  if (next != regions_.begin()) {
    const Region& before = *std::prev(next);
    if (before.base.value() + before.size > base.value()) return refuse("other RAM lies there");
  }

  const Region region{base, size, &block, block_offset, next_memslot_};
  if (vm_ != nullptr) HF_TRY_STATUS(SetSlot(region, needs()));
  if (block.conversion() != nullptr) block.conversion()->engine().Mapped(base, block_offset, size);
  regions_.insert(next, region);
  ++next_memslot_;
  return {};
}

GuestAddress AddressSpace::end() const noexcept {
  return regions_.empty() ? GuestAddress() : regions_.back().base + regions_.back().size;
}

std::uint64_t AddressSpace::total_size() const noexcept {
  std::uint64_t total = 0;
  for (const Region& region : regions_) total += region.size;
  return total;
}

const AddressSpace::Region* AddressSpace::Find(GuestAddress address) const noexcept {
  auto next = std::ranges::upper_bound(regions_, address, {}, &Region::base);
  if (next == regions_.begin()) return nullptr;
  const Region& region = *std::prev(next);
  return address.value() - region.base.value() < region.size ? &region : nullptr;
}

template <typename Fn>
Status AddressSpace::ForEachPart(GuestAddress address, std::uint64_t size, Fn&& fn) const {
  const auto not_ram = [&] {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("guest physical range {:#x} + {:#x} is not all RAM", address.value(), size));
  };
  // Twice over the regions: a range that is not all RAM must leave everything untouched.
  if (!CheckedAdd(address.value(), size)) return not_ram();
  for (std::uint64_t done = 0; done < size;) {
    const Region* region = Find(address + done);
    if (region == nullptr) return not_ram();
    done += region->size - (address.value() + done - region->base.value());
  }
  for (std::uint64_t done = 0; done < size;) {
    const Region& region = *Find(address + done);
    const std::uint64_t offset = address.value() + done - region.base.value();
    const std::uint64_t length = std::min(region.size - offset, size - done);
    HF_TRY_STATUS(fn(region, region.block_offset + offset, length));
    done += length;
  }
  return {};
}

Status AddressSpace::Populate(GuestAddress address, std::uint64_t size) const {
  PopulationGate* const gate = gate_.load(std::memory_order_acquire);
  if (gate == nullptr) return {};
  return ForEachPart(address, size,
                     [&](const Region& region, std::uint64_t offset, std::uint64_t length) {
                       return gate->Need(*region.block, offset, length);
                     });
}

template <typename Fn>
Status AddressSpace::Access(GuestAddress address, std::uint64_t size, MemoryAccess access,
                            Fn&& fn) const {
  HF_TRY_STATUS(Populate(address, size));
  GuestIoVec held;
  HF_TRY_STATUS(Hold(address, size, held));
  return ForEachPart(address, size,
                     [&](const Region& region, std::uint64_t offset, std::uint64_t length) {
                       Status done = fn(region.block->host_view().subspan(offset, length));
                       // Also what failed half-way has written something.
                       if (access == MemoryAccess::kWrite)
                         writes_->Mark(*region.block, offset, length);
                       return done;
                     });
}

Status AddressSpace::Read(GuestAddress from, std::span<std::byte> to) const {
  return Access(from, to.size(), MemoryAccess::kRead, [&](std::span<std::byte> piece) -> Status {
    std::memcpy(to.data(), piece.data(), piece.size());
    to = to.subspan(piece.size());
    return {};
  });
}

Status AddressSpace::Write(GuestAddress to, std::span<const std::byte> from) const {
  return Access(to, from.size(), MemoryAccess::kWrite, [&](std::span<std::byte> piece) -> Status {
    std::memcpy(piece.data(), from.data(), piece.size());
    from = from.subspan(piece.size());
    return {};
  });
}

Status AddressSpace::Fill(GuestAddress to, std::uint64_t size, std::byte value) const {
  return Access(to, size, MemoryAccess::kWrite, [&](std::span<std::byte> piece) -> Status {
    std::memset(piece.data(), std::to_integer<int>(value), piece.size());
    return {};
  });
}

Status AddressSpace::Discard(GuestAddress from, std::uint64_t size) const {
  HF_TRY_STATUS(Populate(from, size));
  return ForEachPart(from, size,
                     [&](const Region& region, std::uint64_t offset, std::uint64_t length) {
                       Status done = region.block->Discard(offset, length);
                       writes_->Mark(*region.block, offset, length);
                       return done;
                     });
}

Status AddressSpace::Discard(const GuestIoVec& pinned) const {
  for (const iovec& piece : pinned.pieces()) {
    const auto* const start = static_cast<const std::byte*>(piece.iov_base);
    for (const Region& region : regions_) {
      const std::span<std::byte> view = region.block->host_view();
      // Regions that touch make one piece, but never those of two blocks: so the block decides.
      if (start < view.data() || start >= view.data() + view.size()) continue;
      const std::uint64_t page = region.block->page_size();
      const auto offset = static_cast<std::uint64_t>(start - view.data());
      const std::uint64_t first = AlignUp(offset, page);
      const std::uint64_t end = AlignDown(offset + piece.iov_len, page);
      if (first < end) {
        Status done = region.block->Discard(first, end - first);
        writes_->Mark(*region.block, first, end - first);
        HF_TRY_STATUS(done);
      }
      break;
    }
  }
  return {};
}

Status AddressSpace::ReadFile(int fd, std::uint64_t file_offset, GuestAddress to,
                              std::uint64_t size) const {
  return Access(to, size, MemoryAccess::kWrite, [&](std::span<std::byte> piece) -> Status {
    Allocate(piece);
    while (!piece.empty()) {
      const ssize_t got = ::pread(fd, piece.data(), piece.size(), static_cast<off_t>(file_offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FailErrno("reading a file into guest memory");
      if (got == 0) {
        return Fail(Errc::kMalformed, fmt::format("the file ends at {:#x}, {} bytes too early",
                                                  file_offset, piece.size()));
      }
      piece = piece.subspan(static_cast<std::size_t>(got));
      file_offset += static_cast<std::uint64_t>(got);
    }
    return {};
  });
}

// Holds what of the range can become private; of other memory there is nothing to hold.
Status AddressSpace::Hold(GuestAddress address, std::uint64_t size, GuestIoVec& holder) const {
  const std::size_t before = holder.pins_.size();
  auto held = ForEachPart(
      address, size,
      [&](const Region& region, std::uint64_t offset, std::uint64_t length) -> Status {
        BlockConversion* const conversion = region.block->conversion();
        if (conversion == nullptr) return {};
        if (conversion->TryPin(offset, length)) {
          holder.pins_.push_back({conversion, offset, length});
          return {};
        }
        private_refusals_.fetch_add(1, std::memory_order_relaxed);
        return Fail(Errc::kPrivate,
                    fmt::format("guest physical range {:#x} + {:#x} is private to the guest",
                                address.value(), size),
                    "Only the guest can make it shared.");
      });
  if (!held) holder.Unpin(before);
  return held;
}

Status AddressSpace::Pin(GuestAddress address, std::uint64_t size, MemoryAccess access,
                         GuestIoVec& to) const {
  HF_TRY_STATUS(Populate(address, size));
  HF_TRY_STATUS(Hold(address, size, to));
  if (access != MemoryAccess::kRead) to.writes_ = writes_.get();
  return ForEachPart(
      address, size,
      [&](const Region& region, std::uint64_t offset, std::uint64_t length) -> Status {
        if (access == MemoryAccess::kWrite) writes_->Mark(*region.block, offset, length);
        if (access == MemoryAccess::kKeepWriting)
          to.kept_.push_back(writes_->Keep(*region.block, offset, length));
        std::byte* const start = region.block->host_view().data() + offset;
        to.size_ += length;
        // Regions that touch in the block touch in the host view.
        if (!to.pieces_.empty()) {
          iovec& last = to.pieces_.back();
          if (static_cast<std::byte*>(last.iov_base) + last.iov_len == start) {
            last.iov_len += length;
            return {};
          }
        }
        to.pieces_.push_back({start, length});
        return {};
      });
}

Result<ExternalAccess> AddressSpace::GrantExternalAccess(std::string who) const {
  // Announced first: a population that starts now sees it and does not.
  ExternalAccess access(writes_, writes_->AddExternal(std::move(who)));
  HF_TRY_STATUS(PopulateAll());
  return access;
}

Status AddressSpace::PopulateAll() const {
  PopulationGate* const gate = gate_.load(std::memory_order_acquire);
  return gate != nullptr ? gate->NeedAll() : Status();
}

void AddressSpace::SetPopulationGate(std::shared_ptr<PopulationGate> gate) {
  gate_.store(gate.get(), std::memory_order_release);
  if (gate != nullptr) gates_.push_back(std::move(gate));
}

ExternalAccess::ExternalAccess(std::shared_ptr<HostWrites> writes, std::uint64_t id)
    : writes_(std::move(writes)), id_(id) {}
ExternalAccess::ExternalAccess(ExternalAccess&& other) noexcept
    : writes_(std::move(other.writes_)), id_(other.id_) {}
ExternalAccess& ExternalAccess::operator=(ExternalAccess&& other) noexcept {
  std::swap(writes_, other.writes_);
  std::swap(id_, other.id_);
  return *this;
}
ExternalAccess::~ExternalAccess() {
  if (writes_ != nullptr) writes_->RemoveExternal(id_);
}

}  // namespace holdfast
