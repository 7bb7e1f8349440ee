// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "model/kernel.h"

/// What the kernel knows, as far as a program can tell: section by section what `Model` works on.
/// A reference that keeps something alive is a shared_ptr, one that does not is a weak_ptr.
namespace holdfast::model {

/// A value for every number, kept as ranges: neighbours with the same value are one.
template <typename T>
class RangeMap {
 public:
  explicit RangeMap(T everywhere) : starts_{{0, everywhere}} {}

  T At(std::uint64_t i) const { return std::prev(starts_.upper_bound(i))->second; }

  /// [from, to) all have it.
  bool IsAll(std::uint64_t from, std::uint64_t to, T value) const {
    auto it = std::prev(starts_.upper_bound(from));
    for (; it != starts_.end() && it->first < to; ++it)
      if (it->second != value) return false;
    return true;
  }

  void Set(std::uint64_t from, std::uint64_t to, T value) {
    if (from >= to) return;
    const T after = At(to);
    starts_.erase(starts_.lower_bound(from), starts_.upper_bound(to));
    if (from == 0 || At(from - 1) != value) starts_[from] = value;
    if (after != value) starts_[to] = after;
  }

  std::size_t ranges() const { return starts_.size(); }

 private:
  std::map<std::uint64_t, T> starts_;  // the first is at 0, no two neighbours are equal
};

enum class Attribute : std::uint8_t { kShared, kPrivate };

/// A page of memory. It is in a file until it is punched out or the inode goes; whoever has pinned
/// it keeps it longer.
struct Page {
  bool up_to_date = false;  ///< has been zeroed, which happens at its first use
  Value content = 0;
  bool poisoned = false;
  int pins = 0;
  int node = 0;  ///< where it lies for good
};

/// Where pages are allocated from now on.
struct Policy {
  int mode = 0;  ///< MPOL_DEFAULT
  int node = 0;
  bool operator==(const Policy&) const = default;
};

struct Inode {
  std::uint64_t number;
  std::uint64_t pages;  ///< its size
  std::uint64_t flags;
  RangeMap<Attribute> attributes;  ///< of every page, present or not
  std::map<std::uint64_t, std::shared_ptr<Page>> present;
  RangeMap<Policy> policies{Policy{}};
};

struct Vm;

/// An open guest_memfd: lives as long as its descriptors and mappings, and keeps its VM alive.
struct File {
  struct Binding {
    std::uint64_t end;
    std::uint32_t slot;
  };
  std::shared_ptr<Inode> inode;
  std::shared_ptr<Vm> vm;
  std::map<std::uint64_t, Binding> bindings;  ///< by first page, disjoint
};

/// A range of the host's addresses. A fork shares it.
struct Mapping {
  std::shared_ptr<File> file;  ///< null: anonymous
  std::uint64_t first_page = 0;
  std::uint64_t pages = 0;
  bool readable = true;
  bool writable = true;
  std::map<std::uint64_t, Value> anonymous;  ///< contents, where there is no file
  RangeMap<Policy> policies{Policy{}};       ///< what mbind() said to this mapping
  std::set<std::uint64_t> entries;           ///< pages that its page tables show
  std::set<std::uint64_t> guarded;           ///< that have a guard (MADV_GUARD_INSTALL)
  std::set<std::uint64_t> poisoned;          ///< whose entry says that the memory is broken
};

struct Slot {
  std::uint64_t first_page;  ///< guest page
  std::uint64_t pages;
  std::uint32_t flags;
  std::weak_ptr<Mapping> user;     ///< expired: no memory is there
  std::uint64_t user_page = 0;     ///< in `user`
  Handle user_handle = kNoHandle;  ///< with user_offset: the address as it was given
  std::uint64_t user_offset = 0;
  std::weak_ptr<File> file;  ///< expired: the last reference to it is gone
  std::uint64_t file_page = 0;
  /// Shared accesses too are served from the file, not from the host's addresses.
  bool file_only = false;
};

struct Vm {
  unsigned type = 0;
  int process = 0;  ///< whose VM it is: ioctls of any other fail
  std::map<std::uint32_t, Slot> slots;
  /// Guest pages that were found without memory: remembered until a slot changes, whatever else
  /// does.
  std::set<std::uint64_t> empty;
  RangeMap<Attribute> attributes{Attribute::kShared};  ///< per guest page; two layers only

  bool HasPrivateMemory() const { return type != kvm::abi::kVmTypeDefault; }
};

}  // namespace holdfast::model
