// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost/kernel_vhost.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <holdfast/ram_block.h>

#include "devices/vhost/vhost_abi.h"

namespace holdfast::devices::vhost {
namespace {

using virtio::CommonFeature;

// What a ring may look like, and the kernel has to know. IN_ORDER and packed rings are left out: no
// kernel has the one for all its devices, none has the other.
constexpr std::uint64_t kRingFeatures = CommonFeature::kFeatureIndirect |
                                        CommonFeature::kFeatureEventIndex |
                                        CommonFeature::kFeatureVersion1;
constexpr std::uint64_t kNeverFeatures =
    CommonFeature::kFeatureRingPacked | CommonFeature::kFeatureInOrder;
// Addresses in rings are the guest's physical ones, whatever the driver calls them; the kernel
// would take this bit for an IOMMU in between.
constexpr std::uint64_t kNotForTheKernel = CommonFeature::kFeatureAccessPlatform;

// The host address of a part of a ring.
Result<std::uint64_t> HostAddress(const AddressSpace& memory, GuestAddress address,
                                  std::uint64_t size, std::string_view what) {
  GuestIoVec pinned;
  HF_TRY_STATUS(memory.Pin(address, size, MemoryAccess::kWrite, pinned));
  if (pinned.pieces().size() != 1) {
    return Fail(Errc::kMalformed, fmt::format("the {} lies in two pieces of memory", what));
  }
  return reinterpret_cast<std::uintptr_t>(pinned.pieces().front().iov_base);
}

}  // namespace

Result<std::unique_ptr<KernelVhost>> KernelVhost::Open(const std::string& path,
                                                       std::string_view module) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    return Fail(Error::FromErrno(fmt::format("could not open {}", path), errno)
                    .WithHint(fmt::format("Load the module (modprobe {}), or give this user "
                                          "rights on the file.",
                                          module)));
  }
  return Adopt(std::move(fd), path);
}

Result<std::unique_ptr<KernelVhost>> KernelVhost::Adopt(UniqueFd fd, std::string name) {
  std::unique_ptr<KernelVhost> device(new KernelVhost(std::move(fd), std::move(name)));
  HF_TRY_STATUS(device->Greet());
  return device;
}

Status KernelVhost::Greet() {
  if (::ioctl(fd(), abi::kGetFeatures, &features_) != 0) {
    const int os_errno = errno;
    if (os_errno == ENOTTY || os_errno == EINVAL || os_errno == EBADF) {
      return Fail(Errc::kInvalidArgument, fmt::format("{} is no vhost device", name_),
                  "The kernel's are /dev/vhost-net and /dev/vhost-vsock.");
    }
    return Fail(Error::FromErrno(fmt::format("{}: VHOST_GET_FEATURES", name_), os_errno));
  }
  // Programs that are started later have no business with it.
  if (::fcntl(fd(), F_SETFD, FD_CLOEXEC) != 0) return FailErrno(name_);
  if ((features_ & CommonFeature::kFeatureVersion1) == 0) {
    return Fail(Errc::kUnsupported, fmt::format("{} knows only legacy virtio", name_),
                "Update the host's kernel.");
  }
  if (::ioctl(fd(), abi::kSetOwner) != 0) {
    const int os_errno = errno;
    return Fail(Error::FromErrno(fmt::format("{}: VHOST_SET_OWNER", name_), os_errno)
                    .WithHint(os_errno == EBUSY ? "Another process uses this descriptor; open the "
                                                  "device anew for this one."
                                                : ""));
  }
  return {};
}

std::uint64_t KernelVhost::refused_ring_features() const noexcept {
  return kNeverFeatures | (kRingFeatures & ~features_);
}

Status KernelVhost::Ioctl(unsigned long request, void* argument, std::string_view what) const {
  if (::ioctl(fd(), request, argument) == 0) return {};
  return FailErrno(fmt::format("{}: {}", name_, what));
}

Status KernelVhost::SetFeatures(std::uint64_t features) const {
  return Call(abi::kSetFeatures, features & features_ & ~kNotForTheKernel, "VHOST_SET_FEATURES");
}

Status KernelVhost::SetMemory(const AddressSpace& memory) {
  const auto& regions = memory.regions();
  if (regions.size() > abi::kMostRegions) {
    return Fail(Errc::kUnsupported,
                fmt::format("{} can have {} pieces of memory, and the guest's has {}", name_,
                            abi::kMostRegions, regions.size()),
                "Give the guest fewer memory backends.");
  }
  const abi::MemoryTable header{.count = static_cast<std::uint32_t>(regions.size()), .padding = 0};
  std::vector<abi::MemoryRegion> table;
  for (const AddressSpace::Region& region : regions) {
    const auto host = region.block->host_view().subspan(region.block_offset, region.size);
    table.push_back({.guest_address = region.base.value(),
                     .size = region.size,
                     .user_address = reinterpret_cast<std::uintptr_t>(host.data()),
                     .flags = 0});
  }
  std::vector<std::byte> bytes(sizeof header + table.size() * sizeof(abi::MemoryRegion));
  std::memcpy(bytes.data(), &header, sizeof header);
  if (!table.empty()) {
    std::memcpy(bytes.data() + sizeof header, table.data(),
                table.size() * sizeof(abi::MemoryRegion));
  }
  HF_TRY(access_, memory.GrantExternalAccess(name_));
  return Ioctl(abi::kSetMemoryTable, bytes.data(), "VHOST_SET_MEM_TABLE");
}

Status KernelVhost::TakeQueue(std::uint32_t index, virtio::DeviceQueue& queue,
                              const AddressSpace& memory, int error_fd) const {
  if (!queue.ready()) return Fail(Errc::kMalformed, "the driver has not set up all queues");
  const virtio::QueueLayout& layout = queue.layout();
  // virtio 1.2, 2.7: the sizes with the event indices, which may or may not be in use.
  const std::uint64_t entries = layout.size;
  abi::VringAddress rings{.index = index};
  HF_TRY(rings.descriptors,
         HostAddress(memory, layout.descriptors, 16 * entries, "descriptor table"));
  HF_TRY(rings.available,
         HostAddress(memory, layout.driver_area, 6 + 2 * entries, "available ring"));
  HF_TRY(rings.used, HostAddress(memory, layout.device_area, 6 + 8 * entries, "used ring"));
  HF_TRY(const int call_fd, queue.call_fd());
  queue.TakeKicks(true);
  const auto number = [index](std::uint32_t value) {
    return abi::VringState{.index = index, .value = value};
  };
  const auto file = [index](int descriptor) {
    return abi::VringFile{.index = index, .fd = descriptor};
  };
  HF_TRY_STATUS(Call(abi::kSetVringSize, number(layout.size), "VHOST_SET_VRING_NUM"));
  HF_TRY_STATUS(Call(abi::kSetVringBase, number(queue.position()), "VHOST_SET_VRING_BASE"));
  HF_TRY_STATUS(Call(abi::kSetVringAddress, rings, "VHOST_SET_VRING_ADDR"));
  HF_TRY_STATUS(Call(abi::kSetVringError, file(error_fd), "VHOST_SET_VRING_ERR"));
  HF_TRY_STATUS(Call(abi::kSetVringCall, file(call_fd), "VHOST_SET_VRING_CALL"));
  return Call(abi::kSetVringKick, file(queue.kick_fd()), "VHOST_SET_VRING_KICK");
}

Result<std::uint32_t> KernelVhost::Position(std::uint32_t index) const {
  abi::VringState state{.index = index, .value = 0};
  HF_TRY_STATUS(Ioctl(abi::kGetVringBase, &state, "VHOST_GET_VRING_BASE"));
  return state.value;
}

}  // namespace holdfast::devices::vhost
