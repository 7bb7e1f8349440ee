// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/ram_block.h>
#include <holdfast/vm.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "memory/conversion_engines.h"

namespace holdfast {
namespace {

int MapFlags(const RamBlock::Attributes& attributes) {
  return (attributes.shared ? MAP_SHARED : MAP_PRIVATE) | (attributes.reserve ? 0 : MAP_NORESERVE);
}
int Protection(const RamBlock::Attributes& attributes) {
  return attributes.readonly ? PROT_READ : PROT_READ | PROT_WRITE;
}

}  // namespace

RamBlock::~RamBlock() = default;

Result<std::unique_ptr<RamBlock>> RamBlock::CreateGuestMemfd(kvm::Vm& vm, std::string id,
                                                             std::uint64_t size, bool bind) {
  HF_TRY(kvm::GuestMemfd memfd,
         kvm::GuestMemfd::Create(vm, size, kvm::GuestMemfd::Access::kHostShared));
  return MapGuestMemfd(std::move(id), std::move(memfd), bind);
}

Result<std::unique_ptr<RamBlock>> RamBlock::AdoptGuestMemfd(std::string id, UniqueFd fd,
                                                            std::uint64_t size) {
  HF_TRY(kvm::GuestMemfd memfd, kvm::GuestMemfd::Adopt(std::move(fd), size));
  return MapGuestMemfd(std::move(id), std::move(memfd), false);
}

Result<std::unique_ptr<RamBlock>> RamBlock::MapGuestMemfd(std::string id, kvm::GuestMemfd memfd,
                                                          bool bind) {
  const std::uint64_t size = memfd.size();
  std::unique_ptr<RamBlock> block(new RamBlock(std::move(id), size));
  // The guest view is readable and writable only because KVM's accesses through userspace_addr
  // need it; nothing here dereferences it.
  HF_TRY(block->guest_view_, Mapping::MapFile(memfd.fd(), 0, size, PROT_READ | PROT_WRITE,
                                              "the guest view of '" + block->id_ + "'"));
  HF_TRY(block->host_view_, Mapping::MapFile(memfd.fd(), 0, size, PROT_READ | PROT_WRITE,
                                             "the host view of '" + block->id_ + "'"));
  // Guest RAM is neither inherited by a fork (the child would keep it alive) nor dumped twice.
  for (const Mapping* view : {&block->guest_view_, &block->host_view_}) {
    if (::madvise(view->data(), size, MADV_DONTFORK) != 0 ||
        ::madvise(view->data(), size, MADV_DONTDUMP) != 0) {
      return FailErrno("advising the kernel on the views of '" + block->id_ + "'");
    }
  }
  block->guest_memfd_ = std::move(memfd);
  block->bound_ = bind;
  return block;
}

Status RamBlock::Adopt(Mapping view) {
  host_view_ = std::move(view);
  if (::madvise(host_view_.data(), host_view_.size(), MADV_DONTFORK) != 0)
    return FailErrno("advising the kernel on the memory of '" + id_ + "'");
  return {};
}

Result<std::unique_ptr<RamBlock>> RamBlock::CreateAnonymous(std::string id, std::uint64_t size,
                                                            const Attributes& attributes) {
  std::unique_ptr<RamBlock> block(new RamBlock(std::move(id), size));
  block->attributes_ = attributes;
  HF_TRY(Mapping view, Mapping::Map({.size = size,
                                     .prot = Protection(attributes),
                                     .flags = MAP_ANONYMOUS | MapFlags(attributes),
                                     .alignment = attributes.alignment},
                                    "'" + block->id_ + "'"));
  HF_TRY_STATUS(block->Adopt(std::move(view)));
  return block;
}

Result<std::unique_ptr<RamBlock>> RamBlock::CreateFromFd(std::string id, UniqueFd fd,
                                                         std::uint64_t offset, std::uint64_t size,
                                                         std::uint64_t page_size,
                                                         const Attributes& attributes) {
  std::unique_ptr<RamBlock> block(new RamBlock(std::move(id), size));
  block->attributes_ = attributes;
  block->fd_offset_ = offset;
  block->page_size_ = page_size;
  block->fd_ = std::move(fd);
  HF_TRY(Mapping view, Mapping::Map({.fd = block->fd_.get(),
                                     .offset = offset,
                                     .size = size,
                                     .prot = Protection(attributes),
                                     .flags = MapFlags(attributes),
                                     .alignment = attributes.alignment},
                                    "'" + block->id_ + "'"));
  HF_TRY_STATUS(block->Adopt(std::move(view)));
  return block;
}

Result<std::unique_ptr<RamBlock>> RamBlock::CreateMemfd(std::string id, std::uint64_t size) {
  if (size == 0 || !IsPageAligned(size)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("memory size {:#x} is not a non-zero multiple of {}", size,
                            FormatSize(kPageSize)));
  }
  UniqueFd fd(::memfd_create(id.c_str(), MFD_CLOEXEC));
  if (!fd) return FailErrno("creating a memfd");
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return FailErrno("sizing a memfd of " + FormatSize(size));
  return CreateFromFd(std::move(id), std::move(fd), 0, size, kPageSize, {});
}

Result<std::unique_ptr<RamBlock>> RamBlock::CreateTwoLayer(kvm::Vm& vm, std::string id,
                                                           std::uint64_t size) {
  HF_TRY(std::unique_ptr<RamBlock> block, CreateMemfd(std::move(id), size));
  HF_TRY(block->private_layer_,
         kvm::GuestMemfd::Create(vm, size, kvm::GuestMemfd::Access::kPrivate));
  block->bound_ = true;
  return block;
}

Status RamBlock::EnableConversion(kvm::Vm& vm, ConversionEngineKind kind) {
  const bool two_layers = private_layer_.has_value();
  if (conversion_ || !bound_ || two_layers != (kind == ConversionEngineKind::kAttributes)) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("pages of '{}' cannot become private by the engine '{}'", id_, ToString(kind)),
        "It needs guest memory of its own kind, bound to its memslots.");
  }
  std::unique_ptr<ConversionEngine> engine;
  switch (kind) {
    case ConversionEngineKind::kKernel:
      engine = MakeKernelEngine(*guest_memfd_);
      break;
    case ConversionEngineKind::kGuard:
      engine = MakeGuardEngine(host_view());
      break;
    case ConversionEngineKind::kAttributes:
      engine = MakeAttributesEngine(vm, fd_.get(), host_view(), *private_layer_);
      break;
  }
  return EnableConversion(std::move(engine));
}

Status RamBlock::EnableConversion(std::unique_ptr<ConversionEngine> engine) {
  HF_TRY(conversion_, BlockConversion::Create(size_, std::move(engine), MemoryAttribute::kShared));
  return {};
}

int RamBlock::fd() const noexcept {
  return guest_memfd_ ? guest_memfd_->fd() : fd_.get();
}

std::span<std::byte> RamBlock::guest_view() const noexcept {
  return guest_memfd_ ? guest_view_.bytes() : host_view();
}

std::uint64_t RamBlock::guest_view_address() const noexcept {
  return guest_memfd_ ? guest_view_.address() : host_view_.address();
}

void RamBlock::SetMergeable(bool on) const noexcept {
  // A kernel without KSM answers EINVAL; there is nothing to be done about it.
  if (!guest_memfd_) {
    (void)::madvise(host_view_.data(), host_view_.size(), on ? MADV_MERGEABLE : MADV_UNMERGEABLE);
  }
}

Status RamBlock::Discard(std::uint64_t offset, std::uint64_t size) const {
  if (size == 0 || !RangeFits(offset, size, size_) || (offset | size) % page_size_ != 0) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("{:#x} bytes at {:#x} of '{}' are not whole pages of it", size, offset, id_));
  }
  if (guest_memfd_) {
    HF_TRY_STATUS(guest_memfd_->PunchHole(offset, size));
    return conversion_ ? conversion_->MemoryFreed(offset, size) : Status();
  }
  if (private_layer_) HF_TRY_STATUS(private_layer_->PunchHole(offset, size));
  if (fd_ && attributes_.shared) {
    if (::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                    static_cast<off_t>(fd_offset_ + offset), static_cast<off_t>(size)) == 0) {
      return {};
    }
    const bool no_holes = errno == EOPNOTSUPP;
    Error error = Error::FromErrno(fmt::format("freeing memory of '{}'", id_), errno);
    return Fail(no_holes ? Errc::kUnsupported : error.code(), error.message(), error.hint());
  }
  // Shared anonymous memory is a file without a name, of which DONTNEED only unmaps.
  std::byte* const start = host_view_.data() + offset;
  if (::madvise(start, size, attributes_.shared ? MADV_REMOVE : MADV_DONTNEED) != 0)
    return FailErrno(fmt::format("freeing memory of '{}'", id_));
  return {};
}

Status RamBlock::SetDumped(bool on) const {
  if (guest_memfd_) return {};
  if (::madvise(host_view_.data(), host_view_.size(), on ? MADV_DODUMP : MADV_DONTDUMP) != 0)
    return FailErrno("advising the kernel on core dumps of '" + id_ + "'");
  return {};
}

}  // namespace holdfast
