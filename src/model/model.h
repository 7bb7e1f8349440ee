// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <optional>
#include <vector>

#include "model/kernel.h"
#include "model/state.h"

namespace holdfast::model {

/// guest_memfd as an executable text: what every call that touches it does and answers, with the
/// checks in the kernel's order. It allocates no guest memory, needs no KVM and is deterministic;
/// it stands behind unit tests, the conformance suite compares the kernel with it, and the
/// differential fuzzer drives both.
///
/// Two things it leaves out because no program can see them: the guest's page tables (whatever
/// changes a page takes it out of them first) and what happens between two calls.
/// Software-protected VMs keep contents when memory is converted; no other kind with private memory
/// is modelled.
///
/// Sources: Documentation/virt/kvm/api.rst and virt/kvm/guest_memfd.c of Linux 6.18 to 7.3, and the
/// in-place conversion series as applied for 7.4 (v13).
///
/// Thread-safety: one thread.
class Model : public Kernel {
 public:
  explicit Model(const Rules& rules) : rules_(rules) {}

  const Rules& rules() const noexcept override { return rules_; }

  int CheckExtension(Handle vm, int capability) override;
  Handle CreateVm(unsigned type) override;
  void CloseVm(Handle vm) override;
  Handle CreateGuestMemfd(Handle vm, std::uint64_t size, std::uint64_t flags) override;
  int SetRegion(Handle vm, const Region& region) override;
  int SetVmAttributes(Handle vm, const kvm::abi::MemoryAttributes& request) override;
  int SetAttributes(Handle file, kvm::abi::MemoryAttributes2& request) override;
  GuestAccess GuestRead(Handle vm, std::uint64_t gpa) override;
  GuestAccess GuestWrite(Handle vm, std::uint64_t gpa, Value value) override;
  PreFaulted PreFault(Handle vm, std::uint64_t gpa, std::uint64_t size,
                      std::uint64_t flags) override;

  Handle Open(OtherFile kind) override;
  Handle Duplicate(Handle file) override;
  int Close(Handle file) override;
  FileStatus Stat(Handle file) override;
  int Fallocate(Handle file, int mode, std::int64_t offset, std::int64_t length) override;
  std::int64_t Call(Handle file, FileCall call) override;

  Handle Map(Handle file, std::uint64_t offset, std::uint64_t length, int protection,
             int flags) override;
  Handle MapAnonymous(std::uint64_t length) override;
  int Unmap(Handle mapping) override;
  int Advise(Handle mapping, std::uint64_t offset, std::uint64_t length, int advice) override;
  HostAccess Read(Handle mapping, std::uint64_t offset) override;
  HostAccess Write(Handle mapping, std::uint64_t offset, Value value) override;
  Handle Pin(Handle mapping, std::uint64_t offset) override;
  Value PinnedValue(Handle pin) override;
  void Unpin(Handle pin) override;
  int Poison(Handle mapping, std::uint64_t offset) override;
  int SetPolicy(Handle mapping, std::uint64_t offset, std::uint64_t length, int mode,
                unsigned node) override;
  int PolicyOf(Handle mapping, std::uint64_t offset) override;
  int NodeOf(Handle mapping, std::uint64_t offset) override;
  int Nodes() override;
  int RegisterUserfault(Handle mapping) override;
  std::int64_t InChild(const std::function<std::int64_t()>& what) override;

  // ---- What no system call of a program without special hardware does ---------------------------
  /// The initial image (kvm_gmem_populate): `source` in turn into the pages from `gpa` on; empty:
  /// the pages themselves, as they are. @return pages done, or the error of the first
  std::int64_t Populate(Handle vm, std::uint64_t gpa, std::uint64_t pages,
                        const std::vector<Value>& source);
  /// From now on only so many pages can be allocated; nothing: as many as one likes.
  void SetFreePages(std::optional<std::uint64_t> pages) { free_pages_ = pages; }
  /// The next `count` conversions in place that would change something fail with this errno at the
  /// range's start: ENOMEM, or EAGAIN as for a reference that is gone a moment later.
  void FailConversions(int count, int error) {
    failures_ = count;
    failure_ = error;
  }

  // ---- For who wants to look inside
  // --------------------------------------------------------------
  std::optional<Attribute> AttributeOf(Handle file, std::uint64_t page) const;
  bool IsPresent(Handle file, std::uint64_t page) const;
  int PinsOf(Handle file, std::uint64_t page) const;
  /// Pins the page without a mapping; absent pages are allocated. @return false: no such page
  bool PinPage(Handle file, std::uint64_t page);
  bool UnpinPage(Handle file, std::uint64_t page);
  std::size_t AttributeRanges(Handle file) const;

 private:
  struct Descriptor {
    std::shared_ptr<File> file;  // null: no guest_memfd
    bool open = false;
  };
  struct PageAnswer {
    std::shared_ptr<Page> page;
    int error = 0;  // errno
  };

  Vm* VmOf(Handle vm) const;
  File* FileOf(Handle file) const;
  bool IsOpen(Handle file) const;
  Mapping* MappingOf(Handle mapping) const;
  // 0, or why this process may not use the VM.
  int CheckProcess(const Vm* vm) const { return vm->process == process_ ? 0 : -EIO; }
  std::uint64_t FlagsFor(const Vm* vm) const;
  Handle AddFile(std::shared_ptr<File> file);

  // A new page in the file, by its policy; null: there is no memory.
  std::shared_ptr<Page> Allocate(Inode& inode, std::uint64_t i);
  // The page, allocated if it is absent and zeroed if this is its first use.
  PageAnswer UsePage(Inode& inode, std::uint64_t i);
  void Punch(Inode& inode, std::uint64_t from, std::uint64_t to);
  // Takes [from, to) out of every mapping's page tables.
  void UnmapPages(const Inode& inode, std::uint64_t from, std::uint64_t to);
  // What truncation does to the guards of pages that some mapping shows.
  void DropGuards(const Inode& inode, std::uint64_t from, std::uint64_t to);
  // What a host access to the mapping's page `index` reaches, or how it faults.
  struct Reached {
    Value* word = nullptr;
    Fault fault = Fault::kNone;
    std::shared_ptr<Page> page = nullptr;  // null: anonymous
  };
  Reached Reach(Mapping& mapping, std::uint64_t index, bool write);

  int CheckRegion(const Region& region) const;
  int ChangeSlot(Slot& slot, const Region& region) const;
  int Bind(File& file, const Region& region) const;
  GuestAccess Access(Handle vm, std::uint64_t gpa, std::optional<Value> write);
  bool IsKnownEmpty(Handle vm, std::uint64_t gpa) const;
  bool IsPrivate(const Vm& vm, const Slot* slot, std::uint64_t guest_page) const;

  Rules rules_;
  int process_ = 0;
  std::optional<std::uint64_t> free_pages_;
  int failures_ = 0;
  int failure_ = 0;
  std::uint64_t next_inode_ = 1;
  std::vector<std::shared_ptr<Vm>> vms_;
  std::vector<Descriptor> descriptors_;
  std::vector<std::shared_ptr<Mapping>> mappings_;
  std::vector<std::shared_ptr<Page>> pins_;
};

/// The slot of a guest page; null: there is none.
Slot* FindSlot(Vm& vm, std::uint64_t guest_page);

}  // namespace holdfast::model
