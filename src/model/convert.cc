// SPDX-License-Identifier: Apache-2.0
// Private and shared: in place on a guest_memfd, and in two layers on a VM.
#include <holdfast/units.h>

#include <algorithm>

#include "model/model.h"

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

Attribute ToAttribute(std::uint64_t attributes) {
  return (attributes & abi::kMemoryAttributePrivate) != 0 ? Attribute::kPrivate
                                                          : Attribute::kShared;
}

}  // namespace

int Model::SetAttributes(Handle file, abi::MemoryAttributes2& request) {
  if (!IsOpen(file)) return -EBADF;
  const File* const target = FileOf(file);
  if (target == nullptr || !rules_.in_place) return -ENOTTY;
  // No check of the process: whoever has the file may convert.
  if (request.flags != 0) return -EINVAL;
  if (std::ranges::any_of(request.reserved, [](std::uint64_t word) { return word != 0; }))
    return -EINVAL;
  if (!target->vm->HasPrivateMemory()) return -EINVAL;
  if ((request.attributes & ~abi::kMemoryAttributePrivate) != 0) return -EINVAL;
  if (request.size == 0 || request.offset + request.size < request.offset) return -EINVAL;
  if (!IsPageAligned(request.offset) || !IsPageAligned(request.size)) return -EINVAL;
  Inode& inode = *target->inode;
  const std::uint64_t from = request.offset / kPageSize;
  const std::uint64_t to = from + request.size / kPageSize;
  if (from >= inode.pages || to > inode.pages) return -EINVAL;

  const Attribute wanted = ToAttribute(request.attributes);
  // Before pins are looked at: what is so already is no conversion.
  if (inode.attributes.IsAll(from, to, wanted)) return 0;
  if (failures_ > 0) {
    --failures_;
    request.error_offset = request.offset;
    return -failure_;
  }
  if (wanted == Attribute::kPrivate) {
    // Even if it fails afterwards; the host's next access puts the entries back.
    UnmapPages(inode, from, to);
    const auto last = inode.present.lower_bound(to);
    for (auto it = inode.present.lower_bound(from); it != last; ++it) {
      if (it->second->pins == 0) continue;
      request.error_offset = it->first * kPageSize;
      return -EAGAIN;
    }
  }
  // To shared never fails. Contents stay, present pages stay, absent ones stay absent.
  inode.attributes.Set(from, to, wanted);
  return 0;
}

int Model::SetVmAttributes(Handle vm, const abi::MemoryAttributes& request) {
  Vm* const target = VmOf(vm);
  if (target == nullptr) return -EBADF;
  if (const int error = CheckProcess(target); error != 0) return error;
  if (!rules_.vm_attributes) return -ENOTTY;
  const std::uint64_t supported = target->HasPrivateMemory() ? abi::kMemoryAttributePrivate : 0;
  if (request.flags != 0) return -EINVAL;
  if ((request.attributes & ~supported) != 0) return -EINVAL;
  if (request.size == 0 || request.address + request.size < request.address) return -EINVAL;
  if (!IsPageAligned(request.address) || !IsPageAligned(request.size)) return -EINVAL;
  // Of guest addresses: with or without a slot, and no page of memory takes notice.
  const std::uint64_t first = request.address / kPageSize;
  target->attributes.Set(first, first + request.size / kPageSize, ToAttribute(request.attributes));
  return 0;
}

// ---- For who wants to look inside
// ------------------------------------------------------------------

std::optional<Attribute> Model::AttributeOf(Handle file, std::uint64_t page) const {
  const File* const asked = FileOf(file);
  if (asked == nullptr || page >= asked->inode->pages) return std::nullopt;
  return asked->inode->attributes.At(page);
}

bool Model::IsPresent(Handle file, std::uint64_t page) const {
  const File* const asked = FileOf(file);
  return asked != nullptr && asked->inode->present.contains(page);
}

int Model::PinsOf(Handle file, std::uint64_t page) const {
  return IsPresent(file, page) ? FileOf(file)->inode->present.at(page)->pins : 0;
}

bool Model::PinPage(Handle file, std::uint64_t page) {
  const File* const target = FileOf(file);
  if (target == nullptr || page >= target->inode->pages) return false;
  const PageAnswer answer = UsePage(*target->inode, page);
  if (answer.error == 0) ++answer.page->pins;
  return answer.error == 0;
}

bool Model::UnpinPage(Handle file, std::uint64_t page) {
  if (PinsOf(file, page) == 0) return false;
  --FileOf(file)->inode->present.at(page)->pins;
  return true;
}

std::size_t Model::AttributeRanges(Handle file) const {
  const File* const asked = FileOf(file);
  return asked == nullptr ? 0 : asked->inode->attributes.ranges();
}

}  // namespace holdfast::model
