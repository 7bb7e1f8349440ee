// SPDX-License-Identifier: Apache-2.0
// The host's view: mappings, accesses, pins, broken memory.
#include <holdfast/units.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "model/model.h"

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

constexpr unsigned kNodes = 2;

}  // namespace

Mapping* Model::MappingOf(Handle mapping) const {
  const auto i = static_cast<std::size_t>(mapping);
  return mapping >= 0 && i < mappings_.size() ? mappings_[i].get() : nullptr;
}

Handle Model::Map(Handle file, std::uint64_t offset, std::uint64_t length, int protection,
                  int flags) {
  const File* const target = FileOf(file);
  if (target == nullptr) return -EBADF;
  if (!IsPageAligned(offset) || length == 0) return -EINVAL;
  if ((flags & MAP_HUGETLB) != 0) return -EINVAL;
  const int sharing = flags & MAP_TYPE;
  if (sharing == MAP_SHARED_VALIDATE && (flags & MAP_SYNC) != 0) return -EOPNOTSUPP;
  if ((protection & PROT_EXEC) != 0) return -EPERM;
  if ((target->inode->flags & abi::kGuestMemfdFlagMmap) == 0) return -ENODEV;
  if (sharing == MAP_PRIVATE) return -EINVAL;
  // Neither the size nor what is private matters here: accesses find out.
  auto mapping = std::make_shared<Mapping>();
  mapping->file = descriptors_[static_cast<std::size_t>(file)].file;
  mapping->first_page = offset / kPageSize;
  mapping->pages = AlignUp(length, kPageSize) / kPageSize;
  mapping->readable = (protection & (PROT_READ | PROT_WRITE)) != 0;
  mapping->writable = (protection & PROT_WRITE) != 0;
  mappings_.push_back(std::move(mapping));
  return static_cast<Handle>(mappings_.size() - 1);
}

Handle Model::MapAnonymous(std::uint64_t length) {
  if (length == 0) return -EINVAL;
  auto mapping = std::make_shared<Mapping>();
  mapping->pages = AlignUp(length, kPageSize) / kPageSize;
  mappings_.push_back(std::move(mapping));
  return static_cast<Handle>(mappings_.size() - 1);
}

int Model::Unmap(Handle mapping) {
  if (MappingOf(mapping) == nullptr) return -EINVAL;
  // A slot may still name its addresses: there is nothing there now.
  mappings_[static_cast<std::size_t>(mapping)].reset();
  return 0;
}

int Model::Advise(Handle mapping, std::uint64_t offset, std::uint64_t length, int advice) {
  Mapping* const target = MappingOf(mapping);
  if (target == nullptr || target->file == nullptr || !IsPageAligned(offset)) return -EINVAL;
  const std::uint64_t from = offset / kPageSize;
  const std::uint64_t to = from + AlignUp(length, kPageSize) / kPageSize;
  if (to > target->pages) return -ENOMEM;
  if (from == to) return 0;
  Inode& inode = *target->file->inode;
  const std::uint64_t first = target->first_page;
  switch (advice) {
    case MADV_NORMAL:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_DONTFORK:
    case MADV_DONTDUMP:
    case MADV_WILLNEED:
      return 0;
    case MADV_DONTNEED:  // takes entries, keeps contents
      target->entries.erase(target->entries.lower_bound(from), target->entries.lower_bound(to));
      return 0;
    case MADV_REMOVE:  // needs a descriptor that may write, which all have, not the mapping's right
      Punch(inode, first + from, std::min(first + to, inode.pages));
      return 0;
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
      if (!target->readable || (advice == MADV_POPULATE_WRITE && !target->writable)) return -EINVAL;
      for (std::uint64_t i = from; i < to; ++i) {
        const Reached reached = Reach(*target, i, advice == MADV_POPULATE_WRITE);
        if (reached.fault == Fault::kBusPoisoned) return -EHWPOISON;
        if (reached.fault != Fault::kNone) return -EFAULT;
      }
      return 0;
    case kAdviceGuardInstall:  // of this mapping alone; conversion does not end it, a hole may
      target->entries.erase(target->entries.lower_bound(from), target->entries.lower_bound(to));
      for (std::uint64_t i = from; i < to; ++i) target->guarded.insert(i);
      return 0;
    case kAdviceGuardRemove:
      target->guarded.erase(target->guarded.lower_bound(from), target->guarded.lower_bound(to));
      return 0;
    default:
      return -EINVAL;  // FREE, WIPEONFORK, COLLAPSE …
  }
}

Model::Reached Model::Reach(Mapping& mapping, std::uint64_t index, bool write) {
  if (index >= mapping.pages || !mapping.readable || (write && !mapping.writable))
    return {nullptr, Fault::kSegv};
  if (mapping.guarded.contains(index)) return {nullptr, Fault::kSegv};
  if (mapping.file == nullptr) return {&mapping.anonymous[index], Fault::kNone};
  // An entry that says the memory is broken outlives what is broken.
  if (mapping.poisoned.contains(index)) return {nullptr, Fault::kBusPoisoned};
  Inode& inode = *mapping.file->inode;
  const std::uint64_t i = mapping.first_page + index;
  if (i >= inode.pages) return {nullptr, Fault::kBus};
  if (inode.attributes.At(i) == Attribute::kPrivate) return {nullptr, Fault::kBus};
  PageAnswer answer = UsePage(inode, i);
  if (answer.error == EHWPOISON) return {nullptr, Fault::kBusPoisoned};
  if (answer.error != 0) return {nullptr, Fault::kBus};
  mapping.entries.insert(index);
  return {&answer.page->content, Fault::kNone, answer.page};
}

void Model::UnmapPages(const Inode& inode, std::uint64_t from, std::uint64_t to) {
  for (const auto& mapping : mappings_) {
    if (mapping == nullptr || mapping->file == nullptr || mapping->file->inode.get() != &inode)
      continue;
    const auto index = [&](std::uint64_t i) {
      return i < mapping->first_page ? 0 : i - mapping->first_page;
    };
    mapping->entries.erase(mapping->entries.lower_bound(index(from)),
                           mapping->entries.lower_bound(index(to)));
  }
}

void Model::DropGuards(const Inode& inode, std::uint64_t from, std::uint64_t to) {
  // A page that is in any page table is taken out of all of them together with whatever marks its
  // place (seen on 6.18); a page that is in none is not looked for.
  std::vector<Mapping*> views;
  for (const auto& mapping : mappings_) {
    if (mapping != nullptr && mapping->file != nullptr && mapping->file->inode.get() == &inode)
      views.push_back(mapping.get());
  }
  const auto shows = [](const Mapping* view, std::uint64_t i) {
    return i >= view->first_page && view->entries.contains(i - view->first_page);
  };
  const auto last = inode.present.lower_bound(to);
  for (auto it = inode.present.lower_bound(from); it != last; ++it) {
    const std::uint64_t i = it->first;
    if (std::ranges::none_of(views, [&](const Mapping* view) { return shows(view, i); })) continue;
    for (Mapping* const view : views)
      if (i >= view->first_page) view->guarded.erase(i - view->first_page);
  }
}

HostAccess Model::Read(Handle mapping, std::uint64_t offset) {
  Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return {Fault::kSegv, 0};
  const Reached reached = Reach(*target, offset / kPageSize, false);
  return {reached.fault, reached.fault == Fault::kNone ? *reached.word : 0};
}

HostAccess Model::Write(Handle mapping, std::uint64_t offset, Value value) {
  Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return {Fault::kSegv, 0};
  const Reached reached = Reach(*target, offset / kPageSize, true);
  if (reached.fault == Fault::kNone) *reached.word = value;
  return {reached.fault, 0};
}

Handle Model::Pin(Handle mapping, std::uint64_t offset) {
  Mapping* const target = MappingOf(mapping);
  if (target == nullptr || target->file == nullptr) return -EFAULT;
  Reached reached = Reach(*target, offset / kPageSize, false);
  if (reached.fault != Fault::kNone) return -EFAULT;
  ++reached.page->pins;
  pins_.push_back(std::move(reached.page));
  return static_cast<Handle>(pins_.size() - 1);
}

Value Model::PinnedValue(Handle pin) {
  const auto i = static_cast<std::size_t>(pin);
  return pin >= 0 && i < pins_.size() && pins_[i] != nullptr ? pins_[i]->content : 0;
}

void Model::Unpin(Handle pin) {
  const auto i = static_cast<std::size_t>(pin);
  if (pin < 0 || i >= pins_.size() || pins_[i] == nullptr) return;
  --pins_[i]->pins;
  pins_[i].reset();
}

int Model::Poison(Handle mapping, std::uint64_t offset) {
  Mapping* const target = MappingOf(mapping);
  if (target == nullptr || target->file == nullptr) return -EINVAL;
  const std::uint64_t index = offset / kPageSize;
  const Reached reached = Reach(*target, index, false);
  if (reached.fault != Fault::kNone) return -EFAULT;
  reached.page->poisoned = true;
  const Inode* const inode = target->file->inode.get();
  for (const auto& other : mappings_) {
    if (other == nullptr || other->file == nullptr || other->file->inode.get() != inode) continue;
    const std::uint64_t there = target->first_page + index - other->first_page;
    if (other->entries.contains(there)) other->poisoned.insert(there);
  }
  return -EBUSY;  // the file keeps the page, so memory failure calls its own work undone
}

int Model::SetPolicy(Handle mapping, std::uint64_t offset, std::uint64_t length, int mode,
                     unsigned node) {
  Mapping* const target = MappingOf(mapping);
  if (target == nullptr || target->file == nullptr) return -EINVAL;
  if ((mode != MPOL_DEFAULT && mode != MPOL_BIND) || node >= kNodes) return -EINVAL;
  const Policy wanted = mode == MPOL_DEFAULT ? Policy{} : Policy{mode, static_cast<int>(node)};
  for (std::uint64_t i = offset / kPageSize; i < (offset + length) / kPageSize; ++i) {
    // What the mapping has been told before is not told to the file again (seen on 7.3).
    if (target->policies.At(i) == wanted) continue;
    target->policies.Set(i, i + 1, wanted);
    // Of the file, for whoever allocates; what is allocated never moves.
    target->file->inode->policies.Set(target->first_page + i, target->first_page + i + 1, wanted);
  }
  return 0;
}

int Model::PolicyOf(Handle mapping, std::uint64_t offset) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr || target->file == nullptr) return -EFAULT;
  return target->file->inode->policies.At(target->first_page + offset / kPageSize).mode;
}

int Model::NodeOf(Handle mapping, std::uint64_t offset) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr || target->file == nullptr) return -EFAULT;
  const auto& present = target->file->inode->present;
  const auto found = present.find(target->first_page + offset / kPageSize);
  return found == present.end() ? -ENOENT : found->second->node;
}

int Model::Nodes() {
  return kNodes;
}

int Model::RegisterUserfault(Handle mapping) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return -EINVAL;
  return target->file == nullptr ? 0 : -EINVAL;
}

std::int64_t Model::InChild(const std::function<std::int64_t()>& what) {
  // Descriptors and mappings are those of the parent; only the address space is another's.
  const int parent = std::exchange(process_, process_ + 1);
  const std::int64_t answer = what();
  process_ = parent;
  return answer;
}

}  // namespace holdfast::model
