// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/virtio/device.h"

namespace holdfast::devices::vhost {

/// One open vhost device of the kernel (drivers/vhost): virtqueues that the kernel serves by
/// itself. It has the guest's memory by the addresses of the host view, is kicked through eventfds
/// and interrupts through eventfds; this process only starts and stops it.
///
/// Thread-safety: one thread at a time.
class KernelVhost {
 public:
  /// Opens a device file and becomes its owner.
  /// @param path    "/dev/vhost-net"
  /// @param module  that has it, for the remedy: "vhost_net"
  /// @return kSystem with a remedy if it cannot be opened; kUnsupported if it is no vhost device or
  ///         knows only legacy virtio
  static Result<std::unique_ptr<KernelVhost>> Open(const std::string& path,
                                                   std::string_view module);
  /// The same for a descriptor that the process was started with.
  /// @param name  what messages call it: "vhostfd=7"
  static Result<std::unique_ptr<KernelVhost>> Adopt(UniqueFd fd, std::string name);

  /// Feature bits that the kernel can have, of the ring and of the device type.
  std::uint64_t features() const noexcept { return features_; }
  /// Of the ring's features those that the device cannot have, for
  /// virtio::Device::refused_common_features().
  std::uint64_t refused_ring_features() const noexcept;
  int fd() const noexcept { return fd_.get(); }

  /// What driver and device agreed on; what the kernel does not know of it, it need not know.
  /// Before queues are started. @return the failed system call
  Status SetFeatures(std::uint64_t features) const;
  /// Gives the kernel all of the guest's RAM, which it may write until ForgetMemory().
  /// @return kUnsupported if it is in too many pieces; the error of RAM that could not be filled
  Status SetMemory(const AddressSpace& memory);
  /// No queue is served any more, and none will be before SetMemory().
  void ForgetMemory() noexcept { access_ = {}; }
  /// Hands a queue over: the kernel has its rings, its kicks and its interrupts, and serves it once
  /// the device type's own call says so (VHOST_NET_SET_BACKEND, VHOST_VSOCK_SET_RUNNING).
  /// @param index     the kernel's number of the queue, from 0
  /// @param error_fd  written when the queue breaks the rules
  /// @return kMalformed if the driver has not set the queue up, or its rings are not contiguous
  ///         RAM; the failed system call
  Status TakeQueue(std::uint32_t index, virtio::DeviceQueue& queue, const AddressSpace& memory,
                   int error_fd) const;
  /// Where the kernel stopped: the next entry of the available ring.
  Result<std::uint32_t> Position(std::uint32_t index) const;

  /// One of the device type's own calls. @return the failed system call, named `what`
  template <typename T>
  Status Call(unsigned long request, const T& argument, std::string_view what) const {
    T copy = argument;
    return Ioctl(request, &copy, what);
  }

 private:
  KernelVhost(UniqueFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
  Status Greet();
  Status Ioctl(unsigned long request, void* argument, std::string_view what) const;

  const UniqueFd fd_;
  const std::string name_;
  std::uint64_t features_ = 0;
  ExternalAccess access_;
};

}  // namespace holdfast::devices::vhost
