// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/thread_annotations.h"
#include "devices/pci/function.h"
#include "devices/virtio/transport_queue.h"
#include "devices/virtio/virtio_pci.h"

namespace holdfast::devices::virtio {

/// A virtio device on PCI Express (virtio 1.2, 4.1): configuration structures in one BAR, MSI-X.
///
/// Thread-safety: registers are the vCPUs' and under mutex_. The device and its queues are the
/// thread's of the device's loop. What the registers start (activation, reset) is posted to that
/// loop; a reset the driver asked for shows as done, by a status of 0, when it is.
class PciTransport final : public pci::Function, private Transport {
 public:
  static Result<std::unique_ptr<PciTransport>> Create(const DeviceEnvironment& environment,
                                                      std::string_view id, std::string_view model,
                                                      const TransportOptions& options,
                                                      std::unique_ptr<Device> device);
  ~PciTransport() override;

  std::string_view name() const noexcept override { return model_; }
  void ReadBar(unsigned bar, std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void WriteBar(unsigned bar, std::uint64_t offset,
                std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override HF_EXCLUDES(mutex_);
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override HF_EXCLUDES(mutex_);
  Status Migratable() const override { return device_->Migratable(); }

  Device& device() noexcept { return *device_; }

 private:
  // What the driver has written about a queue.
  struct QueueRegisters {
    std::uint16_t size = 0;
    std::uint16_t vector = 0xffff;
    bool enabled = false;
    std::uint64_t descriptors = 0;
    std::uint64_t driver_area = 0;
    std::uint64_t device_area = 0;
  };

  // Registers as they are saved.
  struct Registers {
    std::uint32_t device_select = 0;
    std::uint32_t driver_select = 0;
    std::uint64_t accepted = 0;
    std::uint16_t config_vector = 0xffff;
    std::uint16_t queue_select = 0;
    std::uint8_t status = 0;
    std::uint8_t isr = 0;
    std::uint8_t config_generation = 0;
    std::vector<QueueRegisters> queues;
  };
  // How the rings stood, by queue; nothing for one that was not in use.
  using Rings = std::vector<std::optional<QueueState>>;

  PciTransport(const DeviceEnvironment& environment, const pci::Identity& identity,
               std::string_view id, std::string_view model, const TransportOptions& options,
               std::unique_ptr<Device> device);
  Status Build(const TransportOptions& options);
  void AddStructure(std::uint8_t type, std::uint32_t offset, std::uint32_t length,
                    std::uint32_t multiplier = 0);

  // Registers, on vCPU threads.
  std::uint64_t ReadCommon(std::uint32_t offset) HF_REQUIRES(mutex_);
  void WriteCommon(std::uint32_t offset, std::uint64_t value, unsigned size) HF_REQUIRES(mutex_);
  void WriteStatus(std::uint8_t status) HF_REQUIRES(mutex_);
  void WriteQueueAddress(std::uint32_t offset, std::uint64_t value, unsigned size)
      HF_REQUIRES(mutex_);
  QueueRegisters* selected() HF_REQUIRES(mutex_);
  bool FeaturesAreGood() const HF_REQUIRES(mutex_);
  void ClearRegisters() HF_REQUIRES(mutex_);
  std::uint8_t TakeIsr() noexcept HF_EXCLUDES(mutex_);
  void ConfigWritten(std::uint16_t offset, unsigned size) noexcept override;
  void ConfigRead(std::uint16_t offset, unsigned size) noexcept override;
  void OnBarMoved(unsigned bar, std::optional<GuestAddress> where) noexcept override
      HF_EXCLUDES(mutex_);

  // The device's life, on its loop.
  void Activate(std::uint64_t generation) HF_EXCLUDES(mutex_);
  void FinishReset(std::uint64_t generation) HF_EXCLUDES(mutex_);
  void ResetDevice() noexcept HF_EXCLUDES(mutex_);
  QueueLayout LayoutOf(const QueueRegisters& registers) const HF_REQUIRES(mutex_);
  void AddDoorbells() HF_REQUIRES(mutex_);
  void RemoveDoorbells() noexcept HF_REQUIRES(mutex_);
  void PostToLoop(void (PciTransport::*work)(std::uint64_t)) HF_REQUIRES(mutex_);
  void KickAll();

  // What is saved, in pci_transport_state.cc.
  void EndReset() HF_EXCLUDES(mutex_);
  Registers SaveRegisters() const HF_EXCLUDES(mutex_);
  void VisitRegisters(state::Fields& fields, Registers& registers) const;
  void CheckRegisters(state::Fields& fields, const Registers& registers) const HF_EXCLUDES(mutex_);
  void SaveRings(state::Fields& fields, Rings& rings) const;
  void VisitRings(state::Fields& fields, Rings& rings);
  void VisitDevice(state::Fields& fields);
  void Apply(const Registers& registers) HF_EXCLUDES(mutex_);
  /// Runs `work` on the device's loop and waits. Main thread, which is never waited for.
  void RunOnLoop(const std::function<void()>& work) noexcept;

  // Transport, for the device.
  std::uint64_t features() const noexcept override { return agreed_; }
  bool restored() const noexcept override { return !restored_.empty(); }
  DeviceQueue& queue(unsigned index) override { return *queues_[index]; }
  const AddressSpace& memory() const noexcept override { return memory_; }
  void ConfigChanged() noexcept override HF_EXCLUDES(mutex_);
  void NeedsReset(const Error& why) noexcept override HF_EXCLUDES(mutex_);
  void InterruptQueue(unsigned index) noexcept HF_EXCLUDES(mutex_);
  void Interrupt(std::uint16_t vector, std::uint8_t isr) noexcept HF_EXCLUDES(mutex_);

  EventLoop& main_loop_;
  const AddressSpace& memory_;
  const std::string model_;
  const std::string label_;  // "virtio-blk-pci 'disk0'", for messages
  const std::unique_ptr<Device> device_;
  const std::uint64_t offered_;
  std::uint16_t config_access_ = 0;  // where the PCI configuration access capability is

  // The loop's.
  std::vector<std::unique_ptr<TransportQueue>> queues_;
  std::uint64_t agreed_ = 0;  // written before the device is activated
  bool active_ = false;
  bool serving_ = false;                     // active, and the device has agreed to be
  bool running_ = true;                      // the machine does
  std::optional<std::uint64_t> activation_;  // one that waits for that, by its generation
  Rings restored_;  // for that activation: how the rings stood when they were saved; else empty
  // Work that was posted and runs after the end finds this gone.
  std::shared_ptr<int> alive_ = std::make_shared<int>();

  mutable Mutex mutex_;
  std::uint32_t device_select_ HF_GUARDED_BY(mutex_) = 0;
  std::uint32_t driver_select_ HF_GUARDED_BY(mutex_) = 0;
  std::uint64_t accepted_ HF_GUARDED_BY(mutex_) = 0;
  std::uint16_t config_vector_ HF_GUARDED_BY(mutex_) = 0xffff;
  std::uint16_t queue_select_ HF_GUARDED_BY(mutex_) = 0;
  std::uint8_t status_ HF_GUARDED_BY(mutex_) = 0;
  std::uint8_t isr_ HF_GUARDED_BY(mutex_) = 0;
  std::uint8_t config_generation_ HF_GUARDED_BY(mutex_) = 0;
  bool resetting_ HF_GUARDED_BY(mutex_) = false;
  bool started_ HF_GUARDED_BY(mutex_) = false;  // activation was posted, no reset has ended since
  std::uint64_t generation_ HF_GUARDED_BY(mutex_) = 0;  // counts resets: posted work may be stale
  EventLoop::Clock::time_point quiet_until_ HF_GUARDED_BY(mutex_);  // for warnings
  std::vector<QueueRegisters> registers_ HF_GUARDED_BY(mutex_);
  std::optional<GuestAddress> notify_at_ HF_GUARDED_BY(mutex_);
  std::vector<unsigned> doorbells_ HF_GUARDED_BY(mutex_);  // queues that have one
};

}  // namespace holdfast::devices::virtio
