// SPDX-License-Identifier: Apache-2.0
// What the running kernel answers to calls on the file and to accesses of memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/units.h>
#include <linux/falloc.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>

#include "conformance/host_kernel.h"

namespace holdfast::conformance {

// ---- Handles
// --------------------------------------------------------------------------------------

int HostKernel::FdOf(Handle file) const {
  const auto i = static_cast<std::size_t>(file);
  return file >= 0 && i < files_.size() ? files_[i].get() : -1;
}

model::Handle HostKernel::AddFile(int fd) {
  if (fd < 0) return fd;
  files_.emplace_back(fd);
  return static_cast<Handle>(files_.size() - 1);
}

Mapping* HostKernel::MappingOf(Handle mapping) {
  const auto i = static_cast<std::size_t>(mapping);
  return mapping >= 0 && i < mappings_.size() && !unmapped_.contains(mapping) ? &mappings_[i]
                                                                              : nullptr;
}

// ---- Files
// ----------------------------------------------------------------------------------------

model::Handle HostKernel::Open(model::OtherFile kind) {
  switch (kind) {
    case model::OtherFile::kKvmDevice:
      return AddFile(Answer(::fcntl(system_.fd(), F_DUPFD_CLOEXEC, 0)));
    case model::OtherFile::kVm: {
      const auto vm = kvm::Vm::Create(system_);
      return AddFile(vm ? Answer(::fcntl(vm->fd(), F_DUPFD_CLOEXEC, 0)) : -EIO);
    }
    case model::OtherFile::kMemfd:
      return AddFile(Answer(::memfd_create("no guest_memfd", MFD_CLOEXEC)));
  }
  return -EINVAL;
}

model::Handle HostKernel::Duplicate(Handle file) {
  return AddFile(Answer(::fcntl(FdOf(file), F_DUPFD_CLOEXEC, 0)));
}

int HostKernel::Close(Handle file) {
  if (FdOf(file) < 0) return -EBADF;
  files_[static_cast<std::size_t>(file)].reset();
  return 0;
}

model::FileStatus HostKernel::Stat(Handle file) {
  struct stat status{};
  if (::fstat(FdOf(file), &status) != 0) return {};
  return {static_cast<std::uint64_t>(status.st_size), status.st_mode,
          static_cast<std::uint64_t>(status.st_blksize),
          static_cast<std::uint64_t>(status.st_blocks), status.st_ino};
}

int HostKernel::Fallocate(Handle file, int mode, std::int64_t offset, std::int64_t length) {
  int answer = 0;
  do {
    answer = Answer(::fallocate(FdOf(file), mode, offset, length));
  } while (answer == -EINTR);
  return answer;
}

std::int64_t HostKernel::Call(Handle file, model::FileCall call) {
  const int fd = FdOf(file);
  std::array<char, 64> buffer{};
  switch (call) {
    case model::FileCall::kRead:
      return Answer(::read(fd, buffer.data(), buffer.size()));
    case model::FileCall::kWrite:
      return Answer(::write(fd, buffer.data(), buffer.size()));
    case model::FileCall::kPread:
      return Answer(::pread(fd, buffer.data(), buffer.size(), 0));
    case model::FileCall::kPwrite:
      return Answer(::pwrite(fd, buffer.data(), buffer.size(), 0));
    case model::FileCall::kSeek:
      return Answer(::lseek(fd, 0, SEEK_SET));
    case model::FileCall::kTruncate:
      return Answer(::ftruncate(fd, static_cast<off_t>(kPageSize)));
    case model::FileCall::kSync:
      return Answer(::fsync(fd));
    case model::FileCall::kGetSeals:
      return Answer(::fcntl(fd, F_GET_SEALS));
    case model::FileCall::kUnknownIoctl:
      return Answer(::ioctl(fd, _IO('h', 1)));
    case model::FileCall::kReopen: {
      const UniqueFd again(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDWR | O_CLOEXEC));
      return again ? 0 : -errno;
    }
    case model::FileCall::kDescriptorFlags:
      return Answer(::fcntl(fd, F_GETFD));
  }
  return -EINVAL;
}

// ---- Memory of the host
// ---------------------------------------------------------------------------

model::Handle HostKernel::Map(Handle file, std::uint64_t offset, std::uint64_t length,
                              int protection, int flags) {
  auto mapping = Mapping::Map(
      {.fd = FdOf(file), .offset = offset, .size = length, .prot = protection, .flags = flags},
      "a file");
  if (!mapping) return -mapping.error().os_errno();
  mappings_.push_back(*std::move(mapping));
  return static_cast<Handle>(mappings_.size() - 1);
}

model::Handle HostKernel::MapAnonymous(std::uint64_t length) {
  auto mapping = Mapping::MapAnonymous(length, "memory");
  if (!mapping) return -mapping.error().os_errno();
  mappings_.push_back(*std::move(mapping));
  return static_cast<Handle>(mappings_.size() - 1);
}

int HostKernel::Unmap(Handle mapping) {
  const Mapping* const gone = MappingOf(mapping);
  if (gone == nullptr) return -EINVAL;
  // A slot may still name these addresses, and the guest write there: nothing else of this program
  // may come to lie on them.
  const void* const still = ::mmap(gone->data(), gone->size(), PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (still == MAP_FAILED) return -errno;
  unmapped_.insert(mapping);
  return 0;
}

int HostKernel::Advise(Handle mapping, std::uint64_t offset, std::uint64_t length, int advice) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return -EINVAL;
  return Answer(::madvise(target->data() + offset, length, advice));
}

model::HostAccess HostKernel::Read(Handle mapping, std::uint64_t offset) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return {model::Fault::kSegv, 0};
  const model::HostAccess access = FaultGuard::Read(target->data() + offset);
  return access;
}

model::HostAccess HostKernel::Write(Handle mapping, std::uint64_t offset, model::Value value) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return {model::Fault::kSegv, 0};
  return FaultGuard::Write(target->data() + offset, value);
}

Result<HostKernel::Pipe> HostKernel::TakePipe() {
  if (!spare_pipes_.empty()) {
    Pipe pipe = std::move(spare_pipes_.back());
    spare_pipes_.pop_back();
    return pipe;
  }
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return FailErrno("pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

model::Handle HostKernel::Pin(Handle mapping, std::uint64_t offset) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return -EFAULT;
  auto pipe = TakePipe();
  if (!pipe) return -pipe.error().os_errno();
  // The pipe holds a reference to the page itself until it is read.
  const iovec page{target->data() + offset, kPageSize};
  const ssize_t moved = Answer(::vmsplice(pipe->in.get(), &page, 1, 0));
  if (moved < 0) {
    spare_pipes_.push_back(*std::move(pipe));
    return static_cast<Handle>(moved);
  }
  pins_.push_back(*std::move(pipe));
  return static_cast<Handle>(pins_.size() - 1);
}

model::Value HostKernel::PinnedValue(Handle pin) {
  const auto i = static_cast<std::size_t>(pin);
  if (pin < 0 || i >= pins_.size() || !pins_[i].out) return 0;
  auto copy = TakePipe();
  model::Value value = 0;
  if (!copy) return value;
  // tee() leaves the page where it is.
  if (::tee(pins_[i].out.get(), copy->in.get(), kPageSize, 0) <= 0) return value;
  if (::read(copy->out.get(), &value, sizeof value) != sizeof value) value = 0;
  return value;
}

void HostKernel::Unpin(Handle pin) {
  const auto i = static_cast<std::size_t>(pin);
  if (pin < 0 || i >= pins_.size() || !pins_[i].out) return;
  std::array<std::byte, kPageSize> dropped;
  const ssize_t got = ::read(pins_[i].out.get(), dropped.data(), dropped.size());
  if (got == static_cast<ssize_t>(kPageSize)) spare_pipes_.push_back(std::move(pins_[i]));
  pins_[i] = Pipe();
}

int HostKernel::Poison(Handle mapping, std::uint64_t offset) {
  if (!may_poison_) return -EPERM;
  return Advise(mapping, offset, kPageSize, MADV_HWPOISON);
}

int HostKernel::SetPolicy(Handle mapping, std::uint64_t offset, std::uint64_t length, int mode,
                          unsigned node) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return -EINVAL;
  const unsigned long mask = mode == MPOL_DEFAULT ? 0 : 1UL << node;
  return static_cast<int>(Answer(
      ::syscall(SYS_mbind, target->data() + offset, length, mode, &mask, sizeof mask * 8, 0)));
}

int HostKernel::PolicyOf(Handle mapping, std::uint64_t offset) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return -EFAULT;
  int mode = 0;
  const long answer =
      ::syscall(SYS_get_mempolicy, &mode, nullptr, 0, target->data() + offset, MPOL_F_ADDR);
  return answer < 0 ? -errno : mode;
}

int HostKernel::NodeOf(Handle mapping, std::uint64_t offset) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return -EFAULT;
  void* page = target->data() + offset;
  int node = 0;
  const long answer = ::syscall(SYS_move_pages, 0, 1, &page, nullptr, &node, 0);
  return answer < 0 ? -errno : node;
}

int HostKernel::Nodes() {
  unsigned long mask[16] = {};  // up to 1024 nodes
  if (::syscall(SYS_get_mempolicy, nullptr, mask, sizeof mask * 8, nullptr, MPOL_F_MEMS_ALLOWED) !=
      0) {
    return 1;
  }
  return std::countr_one(mask[0]);
}

int HostKernel::RegisterUserfault(Handle mapping) {
  const Mapping* const target = MappingOf(mapping);
  if (target == nullptr) return -EINVAL;
  const UniqueFd monitor(
      static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  if (!monitor) return -errno;
  uffdio_api api{};
  api.api = UFFD_API;
  if (::ioctl(monitor.get(), UFFDIO_API, &api) != 0) return -errno;
  uffdio_register request{};
  request.range = {target->address(), AlignUp(target->size(), kPageSize)};
  request.mode = UFFDIO_REGISTER_MODE_MISSING;
  return Answer(::ioctl(monitor.get(), UFFDIO_REGISTER, &request));
}

}  // namespace holdfast::conformance
