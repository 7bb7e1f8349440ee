// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "base/thread_annotations.h"
#include "kvm/ioctl_handler.h"
#include "model/model.h"

namespace holdfast::model {

/// Stands before the kernel and answers, from the model, what no released kernel has: in-place
/// conversion of a guest_memfd (KVM_SET_MEMORY_ATTRIBUTES2), byte for byte as applied for
/// Linux 7.4. All else goes to the kernel. For tests:
///
///     model::KernelStandIn stand_in;                  // before the kernel until it goes
///     ASSERT_TRUE(stand_in.Register(memfd.fd(), size).has_value());
///     …                                               // memfd.SetAttributes() works
///     stand_in.Pin(memfd.fd(), 5 * kPageSize);        // now it refuses that page
///
/// Any file may stand for a guest_memfd, so that neither KVM nor a new kernel is needed. With
/// `Options::vms` also VMs and guest_memfds made from now on are registered: software-protected VMs
/// are offered, and are default ones in truth. Memory stays as it is, and stays reachable: that a
/// host access to a private page is caught is not played.
///
/// Thread-safety: any thread; nobody may be inside an ioctl when it comes or goes.
class KernelStandIn final : public kvm::IoctlHandler {
 public:
  struct Options {
    bool vms = false;  ///< also stand for VMs: KVM_CREATE_VM, KVM_CREATE_GUEST_MEMFD
  };
  KernelStandIn() : KernelStandIn(Options()) {}
  explicit KernelStandIn(const Options& options);
  ~KernelStandIn() override;
  KernelStandIn(const KernelStandIn&) = delete;
  KernelStandIn& operator=(const KernelStandIn&) = delete;

  /// From now on the file behind `fd` (and any duplicate of it) is a guest_memfd of a
  /// software-protected VM. @param size  a non-zero page multiple
  Status Register(int fd, std::uint64_t size, bool starts_shared = true);
  /// The page is in use, or no longer. @return false: no such file or page, or it was not in use
  bool Pin(int fd, std::uint64_t offset);
  bool Unpin(int fd, std::uint64_t offset);
  /// Whether the page is private; nothing: no such file or page.
  std::optional<bool> IsPrivate(int fd, std::uint64_t offset) const;
  /// The next `count` conversions that would change something fail with this errno: EAGAIN as for a
  /// page that is in use for a moment (the range's first), or ENOMEM.
  void FailNext(int count, int error);
  /// Conversions asked for, and those of them that were refused.
  std::uint64_t asked() const;
  std::uint64_t refused() const;

  std::optional<int> Ioctl(int fd, unsigned long number, unsigned long argument) override;

 private:
  using FileId = std::pair<std::uint64_t, std::uint64_t>;  // device, inode

  static std::optional<FileId> Identify(int fd);
  std::optional<Handle> Find(int fd) const HF_REQUIRES(mutex_);
  std::optional<int> CheckExtension(int fd, unsigned long capability) const HF_REQUIRES(mutex_);
  std::optional<int> CreateVm(int fd, unsigned long type) HF_REQUIRES(mutex_);
  std::optional<int> CreateGuestMemfd(int fd, unsigned long argument) HF_REQUIRES(mutex_);
  std::optional<int> SetAttributes(int fd, unsigned long argument) HF_REQUIRES(mutex_);

  const Options options_;
  kvm::IoctlHandler* const before_;
  mutable Mutex mutex_;
  Model model_ HF_GUARDED_BY(mutex_);
  Handle protected_vm_ HF_GUARDED_BY(mutex_);
  std::map<FileId, Handle> files_ HF_GUARDED_BY(mutex_);
  std::map<FileId, Handle> vms_ HF_GUARDED_BY(mutex_);
  std::uint64_t asked_ HF_GUARDED_BY(mutex_) = 0;
  std::uint64_t refused_ HF_GUARDED_BY(mutex_) = 0;
};

}  // namespace holdfast::model
