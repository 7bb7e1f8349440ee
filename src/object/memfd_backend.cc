// SPDX-License-Identifier: Apache-2.0
// memory-backend-memfd and memory-backend-guest-memfd.
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/units.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "object/backend_properties.h"

namespace holdfast::object {
namespace {

Status SetHugetlbSize(Object& object, const PropertyValue& value) {
  const std::uint64_t size = std::get<std::uint64_t>(value);
  if (size == 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Property '{}.hugetlbsize' doesn't take value '0'", object.type().name),
                "Leave it out for the host's default size of huge pages.");
  }
  static_cast<MemfdBackend&>(object).own().hugetlbsize = size;
  return {};
}

// What auto became, once there is memory.
PropertyValue GetGuestMemfd(const Object& object) {
  const auto& backend = static_cast<const MemfdBackend&>(object);
  OnOffAuto value = backend.own().guest_memfd;
  if (const RamBlock* block = backend.block())
    value = block->guest_memfd() != nullptr ? OnOffAuto::kOn : OnOffAuto::kOff;
  return static_cast<std::uint64_t>(value);
}

template <auto Member>
constexpr auto kSet = SetOwn<MemfdBackend, Member>;
template <auto Member>
constexpr auto kGet = GetOwn<MemfdBackend, Member>;
using S = MemfdBackend::Settings;

constexpr auto kMemfdProperties = WithCommonProperties(
    "on",
    std::array<Property<Object>, 5>{{
        {{.name = "hugetlb",
          .type = PropertyType::kBool,
          .default_text = "off",
          .description = "use the host's huge pages"},
         kSet<&S::hugetlb>,
         kGet<&S::hugetlb>},
        {{.name = "hugetlbsize",
          .type = PropertyType::kSize,
          .default_text = "the host's default",
          .description = "size of the huge pages"},
         SetHugetlbSize,
         kGet<&S::hugetlbsize>},
        {{.name = "seal",
          .type = PropertyType::kBool,
          .default_text = "on",
          .description = "seal the memfd's size; a guest_memfd's never changes"},
         kSet<&S::seal>,
         kGet<&S::seal>},
        {{.name = "guest-memfd",
          .type = PropertyType::kEnum,
          .default_text = "auto",
          .description = "use a guest_memfd instead of a memfd; auto does where the host has it, "
                         "share is on and hugetlb off",
          .choices = kOnOffAutoWords,
          .qom_type = "OnOffAuto"},
         kSet<&S::guest_memfd>,
         GetGuestMemfd},
        BindProperty<MemfdBackend>(),
    }});

constexpr auto kGuestMemfdProperties = WithCommonProperties(
    "on", std::array<Property<Object>, 1>{{BindProperty<GuestMemfdBackend>()}});

}  // namespace

constexpr ObjectType MemfdBackend::kType = {
    .name = "memory-backend-memfd",
    .description = "a memfd, or a guest_memfd where the host has it",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<MemfdBackend>(std::move(id));
    },
    .properties = kMemfdProperties,
    .qemu_only = kBackendQemuOnly,
};

constexpr ObjectType GuestMemfdBackend::kType = {
    .name = "memory-backend-guest-memfd",
    .description = "a guest_memfd",
    .make = [](std::string id) -> std::unique_ptr<Object> {
      return std::make_unique<GuestMemfdBackend>(std::move(id));
    },
    .properties = kGuestMemfdProperties,
    .qemu_only = kBackendQemuOnly,
};

Status MemfdBackend::Check() const {
  if (own_.hugetlbsize != 0 && !std::has_single_bit(own_.hugetlbsize)) {
    return Fail(Errc::kInvalidArgument, "Hugepage size must be a power of 2",
                fmt::format("hugetlbsize={} is not; 2M and 1G are usual.", own_.hugetlbsize));
  }
  if (own_.guest_memfd == OnOffAuto::kOn) {
    if (!share()) {
      return Fail(Errc::kInvalidArgument, "guest-memfd=on must be used with share=on",
                  "Leave share out, or use guest-memfd=off.");
    }
    if (own_.hugetlb) {
      return Fail(Errc::kInvalidArgument, "guest-memfd=on doesn't support hugetlb=on",
                  "The pages of a guest_memfd are 4 KiB: leave one of the two out.");
    }
  }
  const bool never = own_.guest_memfd == OnOffAuto::kOff || !share() || own_.hugetlb;
  if (own_.bind == Bind::kOn && never) {
    return Fail(Errc::kInvalidArgument, "bind=on must be used with guest_memfd memory",
                "Leave bind out, or use guest-memfd=on with share=on and hugetlb=off.");
  }
  if (!own_.hugetlb && !IsPageAligned(size())) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} backing store size 0x{:x} is too small for 'size' option 0x{:x} "
                            "plus 'offset' option 0x0",
                            id(), size(), AlignDown(size(), kPageSize) + kPageSize),
                "Make size a multiple of 4 KiB.");
  }
  return {};
}

MemoryBackend::Adoption MemfdBackend::adoption() const {
  Adoption wanted{.guest_memfd = std::nullopt, .bind = own_.bind, .size = size()};
  if (own_.guest_memfd != OnOffAuto::kAuto) wanted.guest_memfd = own_.guest_memfd == OnOffAuto::kOn;
  return wanted;
}

Result<std::unique_ptr<RamBlock>> MemfdBackend::CreateRamBlock(kvm::Vm& vm,
                                                               Conversion conversion) const {
  const bool possible = share() && !own_.hugetlb;
  if (own_.guest_memfd != OnOffAuto::kOff && possible) {
    auto block = CreateGuestMemfd(vm, own_.bind, conversion);
    // auto takes what there is: no guest_memfd, or none that takes the policy, is no reason to
    // fail.
    const bool settled =
        own_.guest_memfd == OnOffAuto::kOn || own_.bind == Bind::kOn || conversion.has_value();
    if (block || settled || block.error().code() != Errc::kUnsupported) return block;
  }
  return CreateMemfd();
}

Result<std::unique_ptr<RamBlock>> MemfdBackend::CreateMemfd() const {
  unsigned flags = MFD_CLOEXEC;
  if (own_.seal) flags |= MFD_ALLOW_SEALING;
  if (own_.hugetlb) {
    flags |= MFD_HUGETLB;
    if (own_.hugetlbsize != 0)
      flags |= static_cast<unsigned>(std::countr_zero(own_.hugetlbsize)) << MFD_HUGE_SHIFT;
  }
  UniqueFd fd(::memfd_create(id().c_str(), flags));
  if (!fd) {
    return Fail(
        Error::FromErrno(fmt::format("failed to create memfd with flags 0x{:x}", flags), errno)
            .WithHint(own_.hugetlb ? "Folders /sys/kernel/mm/hugepages/hugepages-* show "
                                     "the huge pages that this host has."
                                   : ""));
  }
  const auto bytes = static_cast<off_t>(size());
  if (::ftruncate(fd.get(), bytes) != 0) {
    return Fail(Error::FromErrno(fmt::format("failed to resize memfd to {}", size()), errno)
                    .WithHint("size has to be a multiple of the page size."));
  }
  constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (own_.seal && ::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0)
    return Fail(Error::FromErrno(fmt::format("failed to add seals 0x{:x}", kSeals), errno));
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return FailErrno("looking at a memfd");
  const std::uint64_t page = own_.hugetlb ? static_cast<std::uint64_t>(info.st_blksize) : kPageSize;
  auto block =
      RamBlock::CreateFromFd(id(), std::move(fd), 0, size(), page,
                             {.shared = share(), .reserve = settings().reserve, .alignment = page});
  if (!block) {
    return Fail(
        Error::FromErrno("unable to map backing store for guest RAM", block.error().os_errno())
            .WithHint(own_.hugetlb ? "The host may have too few free huge pages: see "
                                     "/proc/meminfo and /proc/sys/vm/nr_hugepages."
                                   : ""));
  }
  return block;
}

Status GuestMemfdBackend::Check() const {
  if (size() == 0) {
    return Fail(Errc::kInvalidArgument, "can't create backend with size 0",
                "Give it a size of at least 4 KiB, for example size=2G.");
  }
  if (!IsPageAligned(size())) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("backend '{}' memory size must be multiple of 4 KiB", kType.name),
        fmt::format("{} is not; the one below is {}.", size(), AlignDown(size(), kPageSize)));
  }
  if (!share()) {
    return Fail(Errc::kInvalidArgument, "can't create backend with share=off",
                "guest_memfd memory cannot be private to a process: use share=on or leave it out.");
  }
  return {};
}

Result<std::unique_ptr<RamBlock>> GuestMemfdBackend::CreateRamBlock(kvm::Vm& vm,
                                                                    Conversion conversion) const {
  return CreateGuestMemfd(vm, own_.bind, conversion);
}

}  // namespace holdfast::object
