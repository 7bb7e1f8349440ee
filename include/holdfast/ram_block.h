// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <holdfast/conversion.h>
#include <holdfast/error.h>
#include <holdfast/guest_memfd.h>
#include <holdfast/mapping.h>
#include <holdfast/unique_fd.h>
#include <holdfast/units.h>

namespace holdfast {

namespace kvm {
class Vm;
}

/// Guest RAM of one backend: an fd (or none), a size, and the two views of it.
///
/// The guest view is the address KVM is given (`userspace_addr`); nothing in this program reads or
/// writes through it. The host view is what loader, devices and migration use. For a guest_memfd
/// they are two mappings of one inode, so that the guest view can be populated lazily and the host
/// view closed page by page without either knowing of the other. All other memory is mapped once.
///
/// Thread-safety: constant after creation, apart from EnableConversion, SetMergeable and SetDumped,
/// which are the owner's. The BlockConversion has rules of its own.
class RamBlock {
 public:
  /// How ordinary memory is mapped.
  struct Attributes {
    bool shared = true;           ///< MAP_SHARED; otherwise writes stay in this process
    bool readonly = false;        ///< neither guest nor monitor may write
    bool reserve = true;          ///< false: no swap space is set aside (MAP_NORESERVE)
    std::uint64_t alignment = 0;  ///< of the mapping's address, a power of two; 0: any page
  };

  /// Memory in a guest_memfd of `vm`, mapped twice. `bind` says whether memslots carry the
  /// guest_memfd (KVM_MEM_GUEST_MEMFD) or only its mapping.
  /// @return kUnsupported when the kernel has no host-mappable guest_memfd (needs Linux 6.18),
  ///         kInvalidArgument for a bad size, else the failed system call.
  static Result<std::unique_ptr<RamBlock>> CreateGuestMemfd(kvm::Vm& vm, std::string id,
                                                            std::uint64_t size, bool bind);
  /// The same around the guest_memfd of another VM, which only its mapping can make guest memory
  /// of: the block is not bound. The contents stay, and nothing is copied or allocated.
  /// @return as kvm::GuestMemfd::Adopt(), and the failed mmap
  static Result<std::unique_ptr<RamBlock>> AdoptGuestMemfd(std::string id, UniqueFd fd,
                                                           std::uint64_t size);
  /// Memory in two layers, for conversion by VM attributes: shared pages in a memfd, which is both
  /// views, private ones in a guest_memfd of `vm` that memslots carry.
  /// @return as CreateGuestMemfd, and the failed memfd_create
  static Result<std::unique_ptr<RamBlock>> CreateTwoLayer(kvm::Vm& vm, std::string id,
                                                          std::uint64_t size);
  /// Anonymous memory of this process. @return the failed mmap.
  static Result<std::unique_ptr<RamBlock>> CreateAnonymous(std::string id, std::uint64_t size,
                                                           const Attributes& attributes);
  /// `size` bytes of `fd` from `offset` on. `page_size` is the file's: 4 KiB or its huge page.
  /// @return the failed mmap.
  static Result<std::unique_ptr<RamBlock>> CreateFromFd(std::string id, UniqueFd fd,
                                                        std::uint64_t offset, std::uint64_t size,
                                                        std::uint64_t page_size,
                                                        const Attributes& attributes);
  /// A plain memfd of `size` bytes, shared: the shared layer of two, and memory for unit tests,
  /// fuzzing and tools without KVM.
  static Result<std::unique_ptr<RamBlock>> CreateMemfd(std::string id, std::uint64_t size);

  ~RamBlock();

  const std::string& id() const noexcept { return id_; }
  std::uint64_t size() const noexcept { return size_; }
  /// Whether memslots of this block carry KVM_MEM_GUEST_MEMFD.
  bool bound() const noexcept { return bound_; }
  /// The guest_memfd, null for other memory.
  const kvm::GuestMemfd* guest_memfd() const noexcept {
    return guest_memfd_ ? &*guest_memfd_ : nullptr;
  }
  /// What memslots of a bound block carry: the guest_memfd, or the private one of two layers. Null
  /// where bound() is false.
  const kvm::GuestMemfd* slot_memfd() const noexcept {
    if (!bound_) return nullptr;
    return private_layer_ ? &*private_layer_ : guest_memfd();
  }
  /// The fd of the memory, -1 for anonymous memory; the block starts at fd_offset() in it.
  int fd() const noexcept;
  std::uint64_t fd_offset() const noexcept { return fd_offset_; }
  /// What one page fault allocates at least: 4 KiB, or the huge page of hugetlb memory.
  std::uint64_t page_size() const noexcept { return page_size_; }
  bool shared() const noexcept { return attributes_.shared; }
  bool readonly() const noexcept { return attributes_.readonly; }
  /// Address for KVM's userspace_addr. Never dereferenced here.
  std::uint64_t guest_view_address() const noexcept;
  /// The monitor's own window onto the memory.
  std::span<std::byte> host_view() const noexcept { return host_view_.bytes().first(size_); }
  /// The guest view's range, for madvise and mbind; equal to host_view() where both are one.
  std::span<std::byte> guest_view() const noexcept;

  /// Whether the kernel may merge equal pages (MADV_MERGEABLE). Kernels without KSM, and memory
  /// that cannot be merged (guest_memfd, all that is shared), take no notice.
  void SetMergeable(bool on) const noexcept;
  /// Lets pages of the block become private, with the engine that its layers fit: kKernel and
  /// kGuard need a bound guest_memfd, kAttributes two layers. All pages are shared at first. Once,
  /// before the block is mapped. @return kInvalidArgument where the block does not fit
  Status EnableConversion(kvm::Vm& vm, ConversionEngineKind kind);
  /// The same with an engine of the caller's own. Once, before the block is mapped.
  /// @return kUnsupported for a block beyond 16 TiB; the failed mmap of the pin counters
  Status EnableConversion(std::unique_ptr<ConversionEngine> engine);
  /// Null: no page can ever be private.
  BlockConversion* conversion() const noexcept { return conversion_.get(); }

  /// Gives [offset, offset + size) back to the host: the next use, by guest or monitor, finds
  /// zeroes (or, of a private file mapping, the file's contents). Neither memslots nor views
  /// change, and addresses stay valid. guest_memfd and shared files get a hole; other memory is
  /// forgotten.
  /// @return kInvalidArgument for a range that is empty, outside the block or not a multiple of
  ///         page_size(); else the failed system call (a file system without holes: kUnsupported)
  /// Thread-safety: any thread.
  Status Discard(std::uint64_t offset, std::uint64_t size) const;
  /// Whether a core dump has the memory. guest_memfd is never dumped.
  Status SetDumped(bool on) const;

 private:
  RamBlock(std::string id, std::uint64_t size) : id_(std::move(id)), size_(size) {}
  Status Adopt(Mapping view);
  static Result<std::unique_ptr<RamBlock>> MapGuestMemfd(std::string id, kvm::GuestMemfd memfd,
                                                         bool bind);

  std::string id_;
  std::uint64_t size_;
  std::uint64_t fd_offset_ = 0;
  std::uint64_t page_size_ = kPageSize;
  Attributes attributes_;
  bool bound_ = false;
  std::optional<kvm::GuestMemfd> guest_memfd_;
  UniqueFd fd_;
  Mapping guest_view_;  // empty where both views are one mapping
  Mapping host_view_;
  std::optional<kvm::GuestMemfd> private_layer_;  // of two layers
  std::unique_ptr<BlockConversion> conversion_;   // last: its engine uses the above
};

}  // namespace holdfast
