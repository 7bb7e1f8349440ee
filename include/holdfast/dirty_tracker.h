// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string_view>

#include <holdfast/error.h>
#include <holdfast/page_bitmap.h>

namespace holdfast {

class AddressSpace;
namespace kvm {
class Vm;
}

/// How it is found out which pages were written.
enum class DirtyMethod : std::uint8_t {
  kAuto,    ///< kRing where the VM has rings, else kBitmap; kHash where something is against it
  kBitmap,  ///< KVM's dirty log; bound memslots are unbound for as long as it lasts
  kRing,    ///< KVM's dirty rings (kvm::Vm::EnableDirtyRings); bound memslots as with kBitmap
  kHash,    ///< a hash of each page's contents, compared with the one before: no help from KVM
};
/// "auto", "bitmap", "ring", "hash".
std::string_view ToString(DirtyMethod method) noexcept;

/// Finds the pages of guest RAM that are written from its start on, by the guest, by devices and
/// by the monitor, until it is destroyed.
///
///     HF_TRY(auto tracker, DirtyTracker::Start(memory, vm));   // vCPUs standing
///     DirtyPages dirty(memory);
///     HF_TRY_STATUS(tracker->Collect(dirty));                  // vCPUs may run
///
/// A page that is written while Collect() works is reported by it or by the next one, never lost:
/// who reads a page after Collect() has reported it either sees the write or hears of it again.
///
/// More than that may be reported with kBitmap and kRing: a page that is not in KVM's page tables
/// is mapped writable, and so logged, when the guest first touches it, even to read. After the
/// exchange of a bound memslot that is every page.
///
/// What writes guest RAM without going through KVM or AddressSpace has to have said so
/// (AddressSpace::GrantExternalAccess): kHash sees its writes; with the others every page counts as
/// written while such a writer is there, and a tracker cannot start that way.
///
/// Thread-safety: Start(), Stop() and destruction on the main thread with the vCPUs standing and no
/// device request in flight; Collect() on any thread, one at a time.
class DirtyTracker {
 public:
  struct Options {
    DirtyMethod method = DirtyMethod::kAuto;
    /// The first Collect() reports every page. Start() then need not touch what a page costs (no
    /// write protection, no hashing): the vCPUs stand still for a time that does not depend on the
    /// size of RAM.
    bool all_dirty_at_first = false;
    unsigned threads = 0;  ///< that hash; 0: one for each processor
  };

  /// @return kInvalidArgument, with the remedy, where the method cannot work here: private memory
  ///         of an engine that needs bound memslots, an external writer, a tracker by KVM's log
  ///         that exists already; else the failed ioctl, with all as it was
  static Result<std::unique_ptr<DirtyTracker>> Start(AddressSpace& memory, const kvm::Vm& vm,
                                                     const Options& options);
  static Result<std::unique_ptr<DirtyTracker>> Start(AddressSpace& memory, const kvm::Vm& vm) {
    return Start(memory, vm, Options());
  }
  DirtyTracker(const DirtyTracker&) = delete;
  DirtyTracker& operator=(const DirtyTracker&) = delete;
  virtual ~DirtyTracker() = default;  ///< Stop()

  /// Adds to `pages`, which is for the same address space, what was written since Start() or the
  /// last Collect(). @return the failed ioctl; then `pages` may have some of them, and none is lost
  virtual Status Collect(DirtyPages& pages) = 0;
  /// Memslots are again as they were. Nothing after this is reported. Idempotent.
  /// @return the failed ioctl: a memslot is missing, and the VM cannot go on
  virtual Status Stop() = 0;

  /// Never kAuto.
  virtual DirtyMethod method() const noexcept = 0;
  /// For how long the vCPUs had to stand still for the exchange of memslots at the start.
  std::chrono::nanoseconds exchange_time() const noexcept { return exchange_time_; }

 protected:
  DirtyTracker() = default;
  std::chrono::nanoseconds exchange_time_{0};
};

}  // namespace holdfast
