// SPDX-License-Identifier: Apache-2.0
// Capabilities, VMs, and guest_memfd as a file: made, allocated, punched, closed.
#include <fcntl.h>
#include <holdfast/units.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "model/model.h"

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

constexpr std::uint64_t kLargestFile = INT64_MAX;

// What fallocate takes at all, of any file system.
bool KnowsMode(int mode) {
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_UNSHARE_RANGE:
      return true;
    case FALLOC_FL_PUNCH_HOLE:
      return (mode & FALLOC_FL_KEEP_SIZE) != 0;
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
      return (mode & FALLOC_FL_KEEP_SIZE) == 0;
    default:
      return false;
  }
}

}  // namespace

// ---- Handles
// --------------------------------------------------------------------------------------

Vm* Model::VmOf(Handle vm) const {
  const auto i = static_cast<std::size_t>(vm);
  return vm >= 0 && i < vms_.size() ? vms_[i].get() : nullptr;
}

bool Model::IsOpen(Handle file) const {
  const auto i = static_cast<std::size_t>(file);
  return file >= 0 && i < descriptors_.size() && descriptors_[i].open;
}

File* Model::FileOf(Handle file) const {
  return IsOpen(file) ? descriptors_[static_cast<std::size_t>(file)].file.get() : nullptr;
}

Handle Model::AddFile(std::shared_ptr<File> file) {
  descriptors_.push_back({std::move(file), true});
  return static_cast<Handle>(descriptors_.size() - 1);
}

// ---- KVM
// ------------------------------------------------------------------------------------------

std::uint64_t Model::FlagsFor(const Vm* vm) const {
  const bool may_share = vm == nullptr || !vm->HasPrivateMemory() || rules_.in_place;
  return abi::kGuestMemfdFlagMmap | (may_share ? abi::kGuestMemfdFlagInitShared : 0);
}

int Model::CheckExtension(Handle vm, int capability) {
  const Vm* const asked = VmOf(vm);
  const bool may_be_private = asked == nullptr
                                  ? (rules_.vm_types & ~(1U << abi::kVmTypeDefault)) != 0
                                  : asked->HasPrivateMemory();
  switch (capability) {
    case abi::kCapUserMemory2:
    case abi::kCapMemoryFaultInfo:
    case abi::kCapGuestMemfd:
      return 1;
    case abi::kCapMemoryAttributes:
      return rules_.vm_attributes && may_be_private ? int{abi::kMemoryAttributePrivate} : 0;
    case abi::kCapVmTypes:
      return static_cast<int>(rules_.vm_types);
    case abi::kCapPreFaultMemory:
      return rules_.pre_fault ? 1 : 0;
    case abi::kCapGuestMemfdFlags:
      return static_cast<int>(FlagsFor(asked));
    case abi::kCapGuestMemfdMemoryAttributes:
      return rules_.in_place && may_be_private ? static_cast<int>(rules_.gmem_attributes) : 0;
    default:
      return 0;
  }
}

Handle Model::CreateVm(unsigned type) {
  if (type >= 32 || (rules_.vm_types >> type & 1) == 0) return -EINVAL;
  auto vm = std::make_shared<Vm>();
  vm->type = type;
  vm->process = process_;
  vms_.push_back(std::move(vm));
  return static_cast<Handle>(vms_.size() - 1);
}

void Model::CloseVm(Handle vm) {
  // The slots go with the last reference, and each file holds one.
  if (VmOf(vm) != nullptr) vms_[static_cast<std::size_t>(vm)].reset();
}

Handle Model::CreateGuestMemfd(Handle vm, std::uint64_t size, std::uint64_t flags) {
  const Vm* const owner = VmOf(vm);
  if (owner == nullptr) return -EBADF;
  if (const int error = CheckProcess(owner); error != 0) return error;
  if ((flags & ~FlagsFor(owner)) != 0) return -EINVAL;
  if (size == 0 || size > kLargestFile || !IsPageAligned(size)) return -EINVAL;
  auto file = std::make_shared<File>();
  file->vm = vms_[static_cast<std::size_t>(vm)];
  const bool shared = (flags & abi::kGuestMemfdFlagInitShared) != 0;
  file->inode =
      std::make_shared<Inode>(Inode{next_inode_++,
                                    size / kPageSize,
                                    flags,
                                    RangeMap(shared ? Attribute::kShared : Attribute::kPrivate),
                                    {}});
  return AddFile(std::move(file));
}

// ---- Files
// ----------------------------------------------------------------------------------------

Handle Model::Open(OtherFile) {
  return AddFile(nullptr);
}

Handle Model::Duplicate(Handle file) {
  if (!IsOpen(file)) return -EBADF;
  return AddFile(descriptors_[static_cast<std::size_t>(file)].file);
}

int Model::Close(Handle file) {
  if (!IsOpen(file)) return -EBADF;
  // With the last reference the slots' weak ones expire; with the inode's last file its pages go.
  descriptors_[static_cast<std::size_t>(file)] = {};
  return 0;
}

FileStatus Model::Stat(Handle file) {
  const File* const asked = FileOf(file);
  if (asked == nullptr) return {};
  // Blocks are never counted, allocated or not.
  return {asked->inode->pages * kPageSize, S_IFREG | 0600, kPageSize, 0, asked->inode->number};
}

int Model::Fallocate(Handle file, int mode, std::int64_t offset, std::int64_t length) {
  const File* const target = FileOf(file);
  if (target == nullptr) return -EBADF;
  // Of all file systems …
  if (offset < 0 || length <= 0) return -EINVAL;
  if (!KnowsMode(mode)) return -EOPNOTSUPP;
  std::int64_t end = 0;
  if (__builtin_add_overflow(offset, length, &end)) return -EFBIG;
  // … and of this one.
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0) return -EOPNOTSUPP;
  if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) != 0) return -EOPNOTSUPP;
  const auto from = static_cast<std::uint64_t>(offset);
  const auto to = static_cast<std::uint64_t>(end);
  if (!IsPageAligned(from) || !IsPageAligned(static_cast<std::uint64_t>(length))) return -EINVAL;
  Inode& inode = *target->inode;
  if ((mode & FALLOC_FL_PUNCH_HOLE) != 0) {
    // Any range, also beyond the end; a pin does not hold a page in the file.
    Punch(inode, from / kPageSize, std::min(to / kPageSize, inode.pages));
    return 0;
  }
  if (to / kPageSize > inode.pages) return -EINVAL;
  for (std::uint64_t i = from / kPageSize; i < to / kPageSize; ++i) {
    if (inode.present.contains(i)) continue;
    if (Allocate(inode, i) == nullptr) return -ENOMEM;  // the pages before it stay
  }
  return 0;
}

void Model::Punch(Inode& inode, std::uint64_t from, std::uint64_t to) {
  if (from >= to) return;
  DropGuards(inode, from, to);
  UnmapPages(inode, from, to);
  const auto first = inode.present.lower_bound(from);
  const auto last = inode.present.lower_bound(to);
  if (free_pages_) *free_pages_ += static_cast<std::uint64_t>(std::distance(first, last));
  inode.present.erase(first, last);
}

std::shared_ptr<Page> Model::Allocate(Inode& inode, std::uint64_t i) {
  if (free_pages_ == 0) return nullptr;
  if (free_pages_) --*free_pages_;
  auto page = std::make_shared<Page>();
  page->node = inode.policies.At(i).node;
  inode.present[i] = page;
  return page;
}

Model::PageAnswer Model::UsePage(Inode& inode, std::uint64_t i) {
  const auto found = inode.present.find(i);
  const auto used = found != inode.present.end() ? found->second : Allocate(inode, i);
  if (used == nullptr) return {nullptr, ENOMEM};
  Page& page = *used;
  if (page.poisoned) return {used, EHWPOISON};
  if (!page.up_to_date) {
    page.up_to_date = true;
    page.content = 0;
  }
  return {used, 0};
}

std::int64_t Model::Call(Handle file, FileCall call) {
  if (!IsOpen(file)) return -EBADF;
  switch (call) {
    case FileCall::kRead:
    case FileCall::kWrite:
    case FileCall::kTruncate:
    case FileCall::kSync:
    case FileCall::kGetSeals:
      return -EINVAL;
    case FileCall::kPread:
    case FileCall::kPwrite:
    case FileCall::kSeek:
      return -ESPIPE;
    case FileCall::kUnknownIoctl:
      return -ENOTTY;
    case FileCall::kReopen:
      return -ENXIO;
    case FileCall::kDescriptorFlags:
      return 0;  // not close-on-exec
  }
  return -EINVAL;
}

}  // namespace holdfast::model
