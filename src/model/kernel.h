// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/kvm_abi.h>

#include <cstdint>
#include <functional>

namespace holdfast::model {

/// Names a VM, an open file, a mapping or a pin of one Kernel; a negative one is a negative errno.
using Handle = int;
inline constexpr Handle kNoHandle = -1;

/// What a page holds: its first word. Writes put the same word at a page's end, and a read that
/// finds two different words says so (Fault::kTorn).
using Value = std::uint64_t;

/// madvise's that are newer than the distribution's headers (Linux 6.13; on files 6.15).
inline constexpr int kAdviceGuardInstall = 102;
inline constexpr int kAdviceGuardRemove = 103;

/// Where kernels differ in what they answer.
struct Rules {
  /// Private and shared per VM (KVM_SET_MEMORY_ATTRIBUTES; Linux 6.8, depends on configuration).
  bool vm_attributes = false;
  /// Private and shared per guest_memfd, converted in place (as applied for Linux 7.4).
  bool in_place = false;
  /// Two slots on one range of a guest_memfd: EEXIST (Linux 7.2), before EINVAL.
  bool overlap_is_exist = true;
  /// A binding's end is compared unsigned (Linux 7.2); before, one beyond INT64_MAX passed.
  bool binding_is_unsigned = true;
  /// mbind() on a mapping is a policy of the file (Linux 6.19).
  bool file_policy = true;
  bool pre_fault = true;              ///< KVM_PRE_FAULT_MEMORY works (Linux 6.11, needs EPT or NPT)
  std::uint32_t vm_types = 1;         ///< KVM_CAP_VM_TYPES
  std::uint64_t gmem_attributes = 0;  ///< what KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES answers

  /// Those of a release, with nothing but default VMs.
  static Rules OfRelease(unsigned major, unsigned minor);
  /// These with software-protected VMs, whose private memory is a second layer.
  Rules WithTwoLayers() const;
  /// These with software-protected VMs and in-place conversion.
  Rules WithInPlace() const;
};

/// How an access of the host ended.
enum class Fault : std::uint8_t {
  kNone,
  kBus,          ///< SIGBUS, BUS_ADRERR: beyond the end, or private
  kBusPoisoned,  ///< SIGBUS, BUS_MCEERR_AR: the memory is broken
  kSegv,         ///< SIGSEGV: not mapped, or not for writing
  kTorn,         ///< no signal, but a page that nobody wrote as a whole
};
struct HostAccess {
  Fault fault = Fault::kNone;
  Value value = 0;  ///< what was read
  bool operator==(const HostAccess&) const = default;
};

/// How an access of the guest ended.
struct GuestAccess {
  enum class End : std::uint8_t {
    kDone,
    kMmio,         ///< KVM_EXIT_MMIO: there is no memory
    kMemoryFault,  ///< KVM_RUN failed, and KVM_EXIT_MEMORY_FAULT says where
    kError,        ///< KVM_RUN failed without a word
  };
  End end = End::kDone;
  int error = 0;            ///< errno of KVM_RUN
  std::uint64_t flags = 0;  ///< of the memory fault
  std::uint64_t gpa = 0;    ///< of the memory fault: its page
  Value value = 0;          ///< what was read
  bool operator==(const GuestAccess&) const = default;
};

/// KVM_SET_USER_MEMORY_REGION2, with handles where the ioctl has addresses and file descriptors.
struct Region {
  std::uint32_t slot = 0;
  std::uint32_t flags = 0;
  std::uint64_t gpa = 0;
  std::uint64_t size = 0;
  Handle user = kNoHandle;  ///< the mapping of userspace_addr; kNoHandle: the number user_offset
  std::uint64_t user_offset = 0;
  Handle file = kNoHandle;
  std::uint64_t file_offset = 0;
  bool first_version = false;  ///< KVM_SET_USER_MEMORY_REGION, which ends before the file
};

struct FileStatus {
  std::uint64_t size = 0;
  std::uint32_t mode = 0;
  std::uint64_t block_size = 0;
  std::uint64_t blocks = 0;
  std::uint64_t inode = 0;
};

/// Calls on the file descriptor itself, which mostly are refused.
enum class FileCall : std::uint8_t {
  kRead,
  kWrite,
  kPread,
  kPwrite,
  kSeek,
  kTruncate,
  kSync,
  kGetSeals,
  kUnknownIoctl,
  kReopen,
  kDescriptorFlags,  ///< F_GETFD
};
/// Files that are no guest_memfd.
enum class OtherFile : std::uint8_t { kKvmDevice, kVm, kMemfd };

struct PreFaulted {
  std::int64_t result = 0;
  std::uint64_t left = 0;  ///< bytes that are not mapped
  bool operator==(const PreFaulted&) const = default;
};

/// What a program can do with guest_memfd, and what it is answered: by the running kernel or by the
/// model of it. Every function is one system call or one access to memory. Numbers are those of the
/// system call; a negative answer is a negative errno.
///
/// Thread-safety: one thread.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual const Rules& rules() const noexcept = 0;

  // ---- KVM ------------------------------------------------------------------------------------
  /// @param vm  kNoHandle: at system scope
  virtual int CheckExtension(Handle vm, int capability) = 0;
  virtual Handle CreateVm(unsigned type) = 0;
  /// Closes the VM's file descriptor and its vCPU; what its files need of it lives on.
  virtual void CloseVm(Handle vm) = 0;
  virtual Handle CreateGuestMemfd(Handle vm, std::uint64_t size, std::uint64_t flags) = 0;
  virtual int SetRegion(Handle vm, const Region& region) = 0;
  /// KVM_SET_MEMORY_ATTRIBUTES.
  virtual int SetVmAttributes(Handle vm, const kvm::abi::MemoryAttributes& request) = 0;
  /// KVM_SET_MEMORY_ATTRIBUTES2. @param request  error_offset is written as the kernel would
  virtual int SetAttributes(Handle file, kvm::abi::MemoryAttributes2& request) = 0;
  virtual GuestAccess GuestRead(Handle vm, std::uint64_t gpa) = 0;
  virtual GuestAccess GuestWrite(Handle vm, std::uint64_t gpa, Value value) = 0;
  virtual PreFaulted PreFault(Handle vm, std::uint64_t gpa, std::uint64_t size,
                              std::uint64_t flags) = 0;

  // ---- Files ----------------------------------------------------------------------------------
  virtual Handle Open(OtherFile kind) = 0;
  virtual Handle Duplicate(Handle file) = 0;
  virtual int Close(Handle file) = 0;
  virtual FileStatus Stat(Handle file) = 0;
  virtual int Fallocate(Handle file, int mode, std::int64_t offset, std::int64_t length) = 0;
  virtual std::int64_t Call(Handle file, FileCall call) = 0;

  // ---- Memory of the host ---------------------------------------------------------------------
  virtual Handle Map(Handle file, std::uint64_t offset, std::uint64_t length, int protection,
                     int flags) = 0;
  virtual Handle MapAnonymous(std::uint64_t length) = 0;
  virtual int Unmap(Handle mapping) = 0;
  virtual int Advise(Handle mapping, std::uint64_t offset, std::uint64_t length, int advice) = 0;
  /// `offset` is that of a page.
  virtual HostAccess Read(Handle mapping, std::uint64_t offset) = 0;
  virtual HostAccess Write(Handle mapping, std::uint64_t offset, Value value) = 0;
  /// Takes a reference to a page as a device would: it stays in use until Unpin.
  virtual Handle Pin(Handle mapping, std::uint64_t offset) = 0;
  /// What whoever has pinned the page finds in it.
  virtual Value PinnedValue(Handle pin) = 0;
  virtual void Unpin(Handle pin) = 0;
  /// Breaks the page of memory (MADV_HWPOISON). May leave its mark in the mapping only.
  virtual int Poison(Handle mapping, std::uint64_t offset) = 0;
  /// mbind(): allocate on this node. `mode` is MPOL_DEFAULT or MPOL_BIND.
  virtual int SetPolicy(Handle mapping, std::uint64_t offset, std::uint64_t length, int mode,
                        unsigned node) = 0;
  /// get_mempolicy() of an address: the mode.
  virtual int PolicyOf(Handle mapping, std::uint64_t offset) = 0;
  /// The NUMA node of a page that has been touched through the mapping.
  virtual int NodeOf(Handle mapping, std::uint64_t offset) = 0;
  /// How many nodes there are, from 0 on.
  virtual int Nodes() = 0;
  /// userfaultfd: registers the mapping for missing pages.
  virtual int RegisterUserfault(Handle mapping) = 0;

  /// Forks and does `what` in the child. @return what it returned
  virtual std::int64_t InChild(const std::function<std::int64_t()>& what) = 0;
};

}  // namespace holdfast::model
