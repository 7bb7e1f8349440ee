// SPDX-License-Identifier: Apache-2.0
// The guest's view: slots, accesses, pre-faulting, the initial image.
#include <holdfast/units.h>
#include <linux/kvm.h>

#include <algorithm>

#include "model/model.h"

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

constexpr std::uint32_t kMostSlots = 32764;  // of x86
constexpr std::uint64_t kMostPages = (1ULL << 31) - 1;
constexpr std::uint64_t kHighestFile = INT64_MAX;

bool Wraps(std::uint64_t from, std::uint64_t size) {
  return from + size < from;
}

}  // namespace

Slot* FindSlot(Vm& vm, std::uint64_t guest_page) {
  for (auto& [id, slot] : vm.slots)
    if (guest_page >= slot.first_page && guest_page - slot.first_page < slot.pages) return &slot;
  return nullptr;
}

// ---- KVM_SET_USER_MEMORY_REGION2
// --------------------------------------------------------------------

int Model::CheckRegion(const Region& region) const {
  const std::uint32_t with_file = region.first_version ? 0 : abi::kMemGuestMemfd;
  if ((region.flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY | with_file)) != 0)
    return -EINVAL;
  const bool bound = (region.flags & abi::kMemGuestMemfd) != 0;
  if (bound && region.flags != abi::kMemGuestMemfd) return -EINVAL;
  if (!IsPageAligned(region.size) || !IsPageAligned(region.gpa) ||
      !IsPageAligned(region.user_offset)) {
    return -EINVAL;
  }
  if (bound && (!IsPageAligned(region.file_offset) || Wraps(region.file_offset, region.size))) {
    return -EINVAL;
  }
  if (region.slot >= kMostSlots) return -EINVAL;
  if (Wraps(region.gpa, region.size)) return -EINVAL;
  return region.size / kPageSize > kMostPages ? -EINVAL : 0;
}

int Model::ChangeSlot(Slot& slot, const Region& region) const {
  // A bound slot can only be deleted, and nothing can become one.
  if ((region.flags & abi::kMemGuestMemfd) != 0 || (slot.flags & abi::kMemGuestMemfd) != 0)
    return -EINVAL;
  if (region.user != slot.user_handle || region.user_offset != slot.user_offset ||
      region.size / kPageSize != slot.pages ||
      ((region.flags ^ slot.flags) & KVM_MEM_READONLY) != 0) {
    return -EINVAL;
  }
  return 0;
}

int Model::Bind(File& file, const Region& region) const {
  const std::uint64_t end = region.file_offset + region.size;
  const std::uint64_t size = file.inode->pages * kPageSize;
  if (region.file_offset > kHighestFile) return -EINVAL;
  // Before 7.2 an end beyond the largest signed number counted as a small one.
  const bool seems_small = !rules_.binding_is_unsigned && end > kHighestFile;
  if (end > size && !seems_small) return -EINVAL;
  const std::uint64_t from = region.file_offset / kPageSize;
  const std::uint64_t to = end / kPageSize;
  for (const auto& [start, binding] : file.bindings)
    if (from < binding.end && start < to) return rules_.overlap_is_exist ? -EEXIST : -EINVAL;
  file.bindings[from] = {to, region.slot};
  return 0;
}

int Model::SetRegion(Handle vm, const Region& region) {
  Vm* const target = VmOf(vm);
  if (target == nullptr) return -EBADF;
  if (const int error = CheckProcess(target); error != 0) return error;
  if (const int error = CheckRegion(region); error != 0) return error;
  const auto existing = target->slots.find(region.slot);
  const bool exists = existing != target->slots.end();
  if (region.size == 0) {
    if (!exists) return -EINVAL;
    if (const auto file = existing->second.file.lock())
      file->bindings.erase(existing->second.file_page);
    target->slots.erase(existing);
    target->empty.clear();
    return 0;
  }
  if (exists) {
    if (const int error = ChangeSlot(existing->second, region); error != 0) return error;
  }
  const std::uint64_t first = region.gpa / kPageSize;
  const std::uint64_t pages = region.size / kPageSize;
  for (const auto& [id, slot] : target->slots) {
    if (id != region.slot && first < slot.first_page + slot.pages &&
        slot.first_page < first + pages) {
      return -EEXIST;
    }
  }
  Slot slot{};
  slot.first_page = first;
  slot.pages = pages;
  slot.flags = region.flags;
  slot.user_handle = region.user;
  slot.user_offset = region.user_offset;
  slot.user_page = region.user_offset / kPageSize;
  if (MappingOf(region.user) != nullptr)
    slot.user = mappings_[static_cast<std::size_t>(region.user)];
  if ((region.flags & abi::kMemGuestMemfd) != 0) {
    if (!IsOpen(region.file)) return -EBADF;
    File* const file = FileOf(region.file);
    if (file == nullptr || file->vm.get() != target) return -EINVAL;
    if (const int error = Bind(*file, region); error != 0) return error;
    slot.file = descriptors_[static_cast<std::size_t>(region.file)].file;
    slot.file_page = region.file_offset / kPageSize;
    slot.file_only = rules_.in_place || (file->inode->flags & abi::kGuestMemfdFlagMmap) != 0;
  }
  target->slots[region.slot] = std::move(slot);
  target->empty.clear();
  return 0;
}

// ---- Accesses
// -------------------------------------------------------------------------------------

bool Model::IsPrivate(const Vm& vm, const Slot* slot, std::uint64_t guest_page) const {
  if (!rules_.in_place) return vm.attributes.At(guest_page) == Attribute::kPrivate;
  const auto file = slot != nullptr ? slot->file.lock() : nullptr;
  if (file == nullptr) return false;  // no slot, a plain one, or its file is closed
  const std::uint64_t i = guest_page - slot->first_page + slot->file_page;
  return file->inode->attributes.At(i) == Attribute::kPrivate;
}

GuestAccess Model::Access(Handle vm, std::uint64_t gpa, std::optional<Value> write) {
  using End = GuestAccess::End;
  Vm* const target = VmOf(vm);
  if (target == nullptr) return {End::kError, EBADF, 0, 0, 0};
  if (CheckProcess(target) != 0) return {End::kError, EIO, 0, 0, 0};
  const std::uint64_t guest_page = gpa / kPageSize;
  Slot* const slot = FindSlot(*target, guest_page);
  const bool is_private = IsPrivate(*target, slot, guest_page);
  // A software-protected guest's access is of the kind that the page has; any other VM's is shared.
  const bool kind = target->HasPrivateMemory() && is_private;
  const std::uint64_t page_address = guest_page * kPageSize;
  const auto fault = [&](int error) {
    const std::uint64_t flags = kind ? abi::kMemoryExitFlagPrivate : 0;
    return GuestAccess{End::kMemoryFault, error, flags, page_address, 0};
  };
  if (kind != is_private) return fault(EFAULT);
  if (slot == nullptr) {
    if (kind) return fault(EFAULT);
    target->empty.insert(guest_page);
    return {End::kMmio, 0, 0, 0, 0};
  }

  if (kind || slot->file_only) {
    if ((slot->flags & abi::kMemGuestMemfd) == 0) return fault(EFAULT);
    const auto file = slot->file.lock();
    if (file == nullptr) return fault(EFAULT);
    const std::uint64_t i = guest_page - slot->first_page + slot->file_page;
    const PageAnswer answer = UsePage(*file->inode, i);
    if (answer.error != 0) return fault(answer.error);
    if (write) answer.page->content = *write;
    return {End::kDone, 0, 0, 0, write ? 0 : answer.page->content};
  }
  const std::uint64_t index = guest_page - slot->first_page + slot->user_page;
  const auto user = slot->user.lock();
  if (user == nullptr) return {End::kError, EFAULT, 0, 0, 0};
  const Reached reached = Reach(*user, index, write.has_value());
  if (reached.fault != Fault::kNone) return {End::kError, EFAULT, 0, 0, 0};
  if (write) *reached.word = *write;
  return {End::kDone, 0, 0, 0, write ? 0 : *reached.word};
}

// The guest's page tables say so without a look at attributes (seen on 7.3).
bool Model::IsKnownEmpty(Handle vm, std::uint64_t gpa) const {
  const Vm* const target = VmOf(vm);
  return target != nullptr && CheckProcess(target) == 0 && target->empty.contains(gpa / kPageSize);
}

GuestAccess Model::GuestRead(Handle vm, std::uint64_t gpa) {
  if (IsKnownEmpty(vm, gpa)) return {GuestAccess::End::kMmio, 0, 0, 0, 0};
  return Access(vm, gpa, std::nullopt);
}

GuestAccess Model::GuestWrite(Handle vm, std::uint64_t gpa, Value value) {
  if (IsKnownEmpty(vm, gpa)) return {GuestAccess::End::kMmio, 0, 0, 0, 0};
  return Access(vm, gpa, value);
}

PreFaulted Model::PreFault(Handle vm, std::uint64_t gpa, std::uint64_t size, std::uint64_t flags) {
  Vm* const target = VmOf(vm);
  if (target == nullptr) return {-EBADF, size};
  if (CheckProcess(target) != 0) return {-EIO, size};
  if (flags != 0 || !IsPageAligned(gpa) || !IsPageAligned(size) || gpa + size <= gpa)
    return {-EINVAL, size};
  if (!rules_.pre_fault) return {-EOPNOTSUPP, size};
  std::uint64_t left = size;
  while (left > 0) {
    const GuestAccess access = Access(vm, gpa + (size - left), std::nullopt);
    int error = access.error;
    if (access.end == GuestAccess::End::kMmio) error = ENOENT;
    // Success as soon as one page is mapped; the caller asks again for what is left.
    if (error != 0) return {left < size ? 0 : -error, left};
    left -= kPageSize;
  }
  return {0, 0};
}

std::int64_t Model::Populate(Handle vm, std::uint64_t gpa, std::uint64_t pages,
                             const std::vector<Value>& source) {
  Vm* const target = VmOf(vm);
  if (target == nullptr) return -EBADF;
  std::int64_t done = 0;
  for (std::uint64_t n = 0; n < pages; ++n) {
    const std::uint64_t guest_page = gpa / kPageSize + n;
    Slot* const slot = FindSlot(*target, guest_page);
    int error = 0;
    std::shared_ptr<File> file;
    if (slot == nullptr || (slot->flags & abi::kMemGuestMemfd) == 0) {
      error = EINVAL;
    } else if (file = slot->file.lock(); file == nullptr) {
      error = EFAULT;
    } else if (!IsPrivate(*target, slot, guest_page)) {
      error = EINVAL;
    } else if (!source.empty() && n >= source.size()) {
      error = EFAULT;
    } else {
      const PageAnswer answer =
          UsePage(*file->inode, guest_page - slot->first_page + slot->file_page);
      error = answer.error;
      if (error == 0 && !source.empty()) answer.page->content = source[n];
    }
    if (error != 0) return done > 0 ? done : -error;
    ++done;
  }
  return done;
}

}  // namespace holdfast::model
