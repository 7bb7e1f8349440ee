// SPDX-License-Identifier: Apache-2.0
// memory-backend-ram and memory-backend-shm: memory without a name.
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "object/backend_properties.h"

namespace holdfast::object {
namespace {

// Huge pages of the kernel's own making need an address they fit.
constexpr std::uint64_t kHugePage = 2 * kMiB;

// Files and mappings have signed sizes.
constexpr std::uint64_t kLargest = static_cast<std::uint64_t>(INT64_MAX) - kPageSize;

constexpr auto kRamProperties = WithCommonProperties("off", std::array<Property<Object>, 0>{});
constexpr auto kShmProperties = WithCommonProperties("on", std::array<Property<Object>, 0>{});

template <typename Backend>
std::unique_ptr<Object> MakeBackend(std::string id) {
  return std::make_unique<Backend>(std::move(id));
}

tl::unexpected<Error> CannotSetUp(std::string_view id, int error) {
  return Fail(Error::FromErrno(fmt::format("cannot set up guest memory '{}'", id), error)
                  .WithHint("Make it smaller, or add reserve=off if the host may overcommit."));
}

// A POSIX shared memory object that nobody else can open: it has lost its name again.
Result<UniqueFd> OpenUnnamedShm() {
  static std::atomic<unsigned> next = 0;
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::string name = fmt::format("/holdfast-{}-{}", ::getpid(), next++);
    UniqueFd fd(::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));  // close-on-exec
    if (fd) {
      ::shm_unlink(name.c_str());
      return fd;
    }
    if (errno != EEXIST) break;
  }
  return FailErrno("failed to create POSIX shared memory");
}

}  // namespace

constexpr ObjectType RamBackend::kType = {
    .name = "memory-backend-ram",
    .description = "ordinary memory",
    .make = MakeBackend<RamBackend>,
    .properties = kRamProperties,
    .qemu_only = kBackendQemuOnly,
};

constexpr ObjectType ShmBackend::kType = {
    .name = "memory-backend-shm",
    .description = "POSIX shared memory",
    .make = MakeBackend<ShmBackend>,
    .properties = kShmProperties,
    .qemu_only = kBackendQemuOnly,
};

MemoryBackend::Adoption RamBackend::adoption() const {
  const std::uint64_t rounded = AlignUp(size(), kPageSize);
  return {.guest_memfd = false, .size = rounded, .alignment = rounded >= kHugePage ? kHugePage : 0};
}

Result<std::unique_ptr<RamBlock>> RamBackend::CreateRamBlock(kvm::Vm& /*vm*/,
                                                             Conversion /*conversion*/) const {
  if (size() > kLargest) return CannotSetUp(id(), ENOMEM);
  const std::uint64_t rounded = AlignUp(size(), kPageSize);
  const RamBlock::Attributes attributes{.shared = share(),
                                        .reserve = settings().reserve,
                                        .alignment = rounded >= kHugePage ? kHugePage : 0};
  if (!share()) {
    auto block = RamBlock::CreateAnonymous(id(), rounded, attributes);
    if (!block) return CannotSetUp(id(), block.error().os_errno());
    return block;
  }
  // Shared memory has an fd, so that another process can be given it.
  UniqueFd fd(::memfd_create(id().c_str(), MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(rounded)) != 0)
    return CannotSetUp(id(), errno);
  auto block = RamBlock::CreateFromFd(id(), std::move(fd), 0, rounded, kPageSize, attributes);
  if (!block) return CannotSetUp(id(), block.error().os_errno());
  return block;
}

Status ShmBackend::Check() const {
  if (share()) return {};
  return Fail(Errc::kInvalidArgument, "can't create shm backend with `share=off`",
              "Leave share out, or use memory-backend-ram.");
}

Result<std::unique_ptr<RamBlock>> ShmBackend::CreateRamBlock(kvm::Vm& /*vm*/,
                                                             Conversion /*conversion*/) const {
  if (!IsPageAligned(size())) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} backing store size 0x{:x} is too small for 'size' option 0x{:x} "
                            "plus 'offset' option 0x0",
                            id(), size(), AlignDown(size(), kPageSize) + kPageSize),
                "Make size a multiple of 4 KiB.");
  }
  HF_TRY(UniqueFd fd, OpenUnnamedShm());
  if (size() > kLargest || ::ftruncate(fd.get(), static_cast<off_t>(size())) != 0) {
    return Fail(
        Error::FromErrno(fmt::format("failed to resize POSIX shared memory to {}", size()), errno));
  }
  auto block = RamBlock::CreateFromFd(id(), std::move(fd), 0, size(), kPageSize,
                                      {.reserve = settings().reserve});
  if (!block) {
    return Fail(
        Error::FromErrno("unable to map backing store for guest RAM", block.error().os_errno()));
  }
  return block;
}

}  // namespace holdfast::object
