// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "base/state.h"
#include "devices/virtio/queue.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices::virtio {

/// Feature bits that belong to no device type (virtio 1.2, 6).
enum CommonFeature : std::uint64_t {
  kFeatureNotifyOnEmpty = 1ULL << 24,
  kFeatureIndirect = 1ULL << 28,
  kFeatureEventIndex = 1ULL << 29,
  kFeatureVersion1 = 1ULL << 32,
  kFeatureAccessPlatform = 1ULL << 33,
  kFeatureRingPacked = 1ULL << 34,
  kFeatureInOrder = 1ULL << 35,
};

/// One queue as a device sees it while the driver is ready (DRIVER_OK): requests in, answers out.
/// A broken ring gives no more requests; the transport has told the driver by then.
///
/// Thread-safety: the thread of the device's event loop.
class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;
  /// Whether the driver has enabled it.
  virtual bool ready() const noexcept = 0;
  virtual std::optional<Chain> Pop() = 0;
  virtual void Unpop(Chain chain) = 0;
  /// Takes a request back that was popped at any time and is not answered: Pop() gives it again,
  /// before those it has not given yet, when the machine goes on, here or where its state was
  /// loaded. Several keep their order. For Device::SetRunning(false).
  virtual void Requeue(Chain chain) = 0;
  /// Gives a request back; Notify() then interrupts the driver if it wants that.
  virtual void Push(const Chain& chain, std::uint32_t written) = 0;
  virtual void Notify() = 0;
  void Complete(const Chain& chain, std::uint32_t written) {
    Push(chain, written);
    Notify();
  }
  virtual void DisableKicks() = 0;
  virtual bool EnableKicks() = 0;

  // For back ends that serve the queue themselves (vhost, vhost-user).
  virtual const QueueLayout& layout() const = 0;
  virtual std::uint32_t position() const = 0;
  virtual void set_position(std::uint32_t position) = 0;
  /// Written by the guest's kick. After TakeKicks() the transport no longer listens to it.
  virtual int kick_fd() const = 0;
  virtual void TakeKicks(bool taken) = 0;
  /// Writing 1 to it interrupts the driver for this queue.
  virtual Result<int> call_fd() = 0;
};

/// What a device gets from its transport. Outlives the device's active time.
class Transport {
 public:
  virtual ~Transport() = default;
  /// What driver and device agreed on.
  virtual std::uint64_t features() const noexcept = 0;
  bool has(std::uint64_t feature) const noexcept { return (features() & feature) != 0; }
  /// While Activate() runs: the driver has been ready for long, and what VisitState() loaded counts
  /// instead of a driver's first state.
  virtual bool restored() const noexcept { return false; }
  virtual DeviceQueue& queue(unsigned index) = 0;
  virtual const AddressSpace& memory() const noexcept = 0;
  /// Tells the driver that the device's configuration changed. Any thread.
  virtual void ConfigChanged() noexcept = 0;
  /// The device cannot go on until the driver resets it (DEVICE_NEEDS_RESET). Any thread.
  virtual void NeedsReset(const Error& why) noexcept = 0;
};

/// A virtio device without its transport.
///
/// Life: created; Activate() when the driver is ready; HandleQueue() for kicks; Reset() when the
/// driver or the machine resets it; Activate() again, any number of times. Thread-safety: all of
/// that runs on the thread of loop(). ReadConfig, WriteConfig and Accepts come from any vCPU's
/// thread at any time; the device locks what they touch.
class Device {
 public:
  Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  virtual ~Device() = default;

  /// The device type's number (virtio 1.2, 5): 2 is a block device.
  virtual std::uint16_t type() const noexcept = 0;
  /// For messages: "virtio-blk-pci 'disk0'" is made from it.
  virtual std::string_view name() const noexcept = 0;
  /// The device type's feature bits that are offered; the transport adds the common ones.
  virtual std::uint64_t features() const noexcept = 0;
  /// Common features that this device cannot have: kFeatureRingPacked for a back end that does not
  /// know it.
  virtual std::uint64_t refused_common_features() const noexcept { return 0; }
  /// Whether this combination of offered features works. Default: any.
  virtual bool Accepts(std::uint64_t features) const noexcept;
  /// The largest size of each queue; as many queues as it is long. Constant.
  virtual std::span<const std::uint16_t> queue_sizes() const noexcept = 0;
  /// The loop that everything below runs on. Constant.
  virtual EventLoop& loop() const noexcept = 0;

  /// Device configuration space; what lies outside reads as zero and is not written.
  virtual void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept;
  virtual void WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept;

  /// The driver is ready. Each queue that is ready is kicked once afterwards. An error puts the
  /// device into NEEDS_RESET.
  virtual Status Activate(Transport& transport) = 0;
  /// The driver kicked queue `index`, perhaps for nothing.
  virtual void HandleQueue(unsigned index) = 0;
  /// The machine stops, with all vCPUs standing, or goes on. When false returns, nobody touches the
  /// guest's memory until true comes: not the kernel, a back end, or the host's disks for this
  /// device. Requests that it has popped it has answered or given to DeviceQueue::Requeue(); Pop()
  /// gives none until then, and each queue that is ready is kicked once afterwards. A reset may
  /// come in between, an activation waits for true. Default: nothing to do.
  virtual void SetRunning(bool running) noexcept;

  /// Saves or loads what it remembers beside its configuration, the agreed features and the rings,
  /// after SetRunning(false). Loading follows a reset; where the device was active, Activate()
  /// comes when the machine goes on (Transport::restored()). Guest memory is not to be touched. On
  /// the thread of loop(), the main thread waiting for it. Default: nothing.
  virtual void VisitState(state::Fields& fields);
  /// Version of what VisitState() saves.
  virtual std::uint32_t state_version() const noexcept { return 1; }
  /// @return kUnsupported, in a sentence, if there is state that nobody here knows. Main thread.
  virtual Status Migratable() const;
  /// Ends everything under way: when it returns, no request is in flight, no buffer in use.
  virtual void Reset() noexcept = 0;
};

}  // namespace holdfast::devices::virtio
