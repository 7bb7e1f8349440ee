// SPDX-License-Identifier: Apache-2.0
// The registers of virtio over PCI: virtio 1.2, 4.1.4.
#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/virtio/pci_transport.h"
#include "devices/virtio/virtio_pci_regs.h"

namespace holdfast::devices::virtio {
namespace {

using namespace regs;

// Width of the common configuration's register at `offset`: a driver accesses it as a whole.
unsigned WidthAt(std::uint32_t offset) {
  if (offset < kConfigVector) return 4;
  if (offset == kDeviceStatus || offset == kConfigGeneration) return 1;
  return offset < kQueueDescriptors ? 2 : 4;  // 64-bit fields are accessed in halves
}

std::uint64_t ToNumber(std::span<const std::byte> data) {
  std::uint64_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof value));
  return value;
}

// One half of a 64-bit word.
std::uint32_t HalfOf(std::uint64_t value, std::uint32_t select) {
  return select > 1 ? 0 : static_cast<std::uint32_t>(value >> (32 * select));
}

}  // namespace

PciTransport::QueueRegisters* PciTransport::selected() {
  return queue_select_ < registers_.size() ? &registers_[queue_select_] : nullptr;
}

void PciTransport::ClearRegisters() {
  device_select_ = driver_select_ = 0;
  accepted_ = 0;
  config_vector_ = kNoVector;
  queue_select_ = 0;
  status_ = 0;
  resetting_ = started_ = false;
  const auto sizes = device_->queue_sizes();
  registers_.assign(sizes.size(), {});
  for (std::size_t i = 0; i < sizes.size(); ++i) registers_[i].size = sizes[i];
}

std::uint64_t PciTransport::ReadCommon(std::uint32_t offset) {
  const QueueRegisters* const queue = selected();
  const auto of_queue = [&](std::uint64_t value) { return queue == nullptr ? 0 : value; };
  switch (offset) {
    case kDeviceFeatureSelect:
      return device_select_;
    case kDeviceFeature:
      return HalfOf(offered_, device_select_);
    case kDriverFeatureSelect:
      return driver_select_;
    case kDriverFeature:
      return HalfOf(accepted_, driver_select_);
    case kConfigVector:
      return config_vector_;
    case kNumQueues:
      return registers_.size();
    case kDeviceStatus:
      return status_;
    case kConfigGeneration:
      return config_generation_;
    case kQueueSelect:
      return queue_select_;
    case kQueueSize:
      return of_queue(queue == nullptr ? 0 : queue->size);
    case kQueueVector:
      return queue == nullptr ? kNoVector : queue->vector;
    case kQueueEnable:
      return queue != nullptr && queue->enabled ? 1 : 0;
    case kQueueNotifyOffset:
      return of_queue(queue_select_);
    case kQueueDescriptors:
    case kQueueDescriptors + 4:
      return queue == nullptr ? 0 : HalfOf(queue->descriptors, (offset & 4) / 4);
    case kQueueDriver:
    case kQueueDriver + 4:
      return queue == nullptr ? 0 : HalfOf(queue->driver_area, (offset & 4) / 4);
    case kQueueDevice:
    case kQueueDevice + 4:
      return queue == nullptr ? 0 : HalfOf(queue->device_area, (offset & 4) / 4);
    default:
      return 0;
  }
}

void PciTransport::WriteCommon(std::uint32_t offset, std::uint64_t value, unsigned size) {
  if (resetting_) return;  // only the end of the reset is waited for
  const auto word = static_cast<std::uint16_t>(value);
  const std::uint16_t vector = word < msix_vectors() ? word : kNoVector;
  QueueRegisters* const queue = selected();
  switch (offset) {
    case kDeviceFeatureSelect:
      device_select_ = static_cast<std::uint32_t>(value);
      return;
    case kDriverFeatureSelect:
      driver_select_ = static_cast<std::uint32_t>(value);
      return;
    case kDriverFeature:
      // After FEATURES_OK the agreement stands (2.2.2).
      if (driver_select_ > 1 || (status_ & kStatusFeaturesOk) != 0) return;
      accepted_ &= ~(0xffffffffULL << (32 * driver_select_));
      accepted_ |= (value & 0xffffffff) << (32 * driver_select_);
      return;
    case kConfigVector:
      config_vector_ = vector;
      return;
    case kDeviceStatus:
      WriteStatus(static_cast<std::uint8_t>(value));
      return;
    case kQueueSelect:
      queue_select_ = word;
      return;
    case kQueueSize:
      // A size that cannot be shows as a queue that does not start.
      if (queue != nullptr && !queue->enabled && word <= device_->queue_sizes()[queue_select_])
        queue->size = word;
      return;
    case kQueueVector:
      if (queue != nullptr) queue->vector = vector;
      return;
    case kQueueEnable:
      if (queue != nullptr && word == 1 && (status_ & kStatusDriverOk) == 0) queue->enabled = true;
      return;
    default:
      WriteQueueAddress(offset, value, size);
  }
}

void PciTransport::WriteQueueAddress(std::uint32_t offset, std::uint64_t value, unsigned size) {
  QueueRegisters* const queue = selected();
  if (queue == nullptr || queue->enabled || offset < kQueueDescriptors) return;
  std::uint64_t* const fields[] = {&queue->descriptors, &queue->driver_area, &queue->device_area};
  std::uint64_t& field = *fields[(offset - kQueueDescriptors) / 8];
  if (size == 8) {
    field = value;
    return;
  }
  const unsigned shift = (offset & 4) * 8;
  field &= ~(0xffffffffULL << shift);
  field |= (value & 0xffffffff) << shift;
}

bool PciTransport::FeaturesAreGood() const {
  // A driver without VERSION_1 would use the layout of before 1.0, which there is none of here.
  return (accepted_ & ~offered_) == 0 && (accepted_ & kFeatureVersion1) != 0 &&
         device_->Accepts(accepted_);
}

void PciTransport::WriteStatus(std::uint8_t status) {
  if (status == 0) {
    ++generation_;
    if (!started_) {
      ClearRegisters();
      return;
    }
    resetting_ = true;
    PostToLoop(&PciTransport::FinishReset);
    return;
  }
  const std::uint8_t before = status_;
  // The driver never clears a bit (2.1.1), and NEEDS_RESET is the device's.
  std::uint8_t now = static_cast<std::uint8_t>(before | (status & ~kStatusNeedsReset));
  if ((now & kStatusFeaturesOk) != 0 && (before & kStatusFeaturesOk) == 0 && !FeaturesAreGood()) {
    now = static_cast<std::uint8_t>(now & ~kStatusFeaturesOk);
  }
  if ((now & kStatusFeaturesOk) == 0) now = static_cast<std::uint8_t>(now & ~kStatusDriverOk);
  status_ = now;
  if ((now & kStatusDriverOk) != 0 && (before & kStatusDriverOk) == 0) {
    started_ = true;
    PostToLoop(&PciTransport::Activate);
  }
}

std::uint8_t PciTransport::TakeIsr() noexcept {
  // The line goes with the bits: an interrupt that comes in between would be lost.
  const MutexLock lock(mutex_);
  SetIntx(false);
  return std::exchange(isr_, std::uint8_t{0});
}

void PciTransport::ReadBar(unsigned bar, std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0});
  if (bar != kBar || offset >= kBarSize) return;
  const auto at = static_cast<std::uint32_t>(offset % kAreaSize);
  switch (offset / kAreaSize * kAreaSize) {
    case kCommonAt: {
      if (at >= kCommonEnd) return;
      const MutexLock lock(mutex_);
      std::uint64_t value = ReadCommon(at);
      if (data.size() == 8) value |= ReadCommon(at + 4) << 32;
      std::memcpy(data.data(), &value, std::min(data.size(), sizeof value));
      return;
    }
    case kIsrAt:
      if (at == 0) data[0] = std::byte{TakeIsr()};
      return;
    case kDeviceAt:
      device_->ReadConfig(at, data);
      return;
    default:
      return;
  }
}

void PciTransport::WriteBar(unsigned bar, std::uint64_t offset,
                            std::span<const std::byte> data) noexcept {
  if (bar != kBar || offset >= kBarSize) return;
  const auto at = static_cast<std::uint32_t>(offset % kAreaSize);
  switch (offset / kAreaSize * kAreaSize) {
    case kCommonAt: {
      const bool whole =
          data.size() == WidthAt(at) || (data.size() == 8 && at >= kQueueDescriptors);
      if (at >= kCommonEnd || !whole || at % data.size() != 0) return;
      const MutexLock lock(mutex_);
      WriteCommon(at, ToNumber(data), static_cast<unsigned>(data.size()));
      return;
    }
    case kDeviceAt:
      device_->WriteConfig(at, data);
      return;
    case kNotifyAt: {
      const std::uint32_t index = at / kNotifyMultiplier;
      if (at % kNotifyMultiplier != 0 || index >= queues_.size()) return;
      // The eventfd wakes the device's loop, as a doorbell would.
      (void)::eventfd_write(queues_[index]->kick_fd(), 1);  // a full one is a kick already
      return;
    }
    default:
      return;
  }
}

// The window that drivers without access to the BAR use: reading or writing its data field is an
// access to where its other fields point.
void PciTransport::ConfigRead(std::uint16_t offset, unsigned size) noexcept {
  const std::uint32_t data_at = std::uint32_t{config_access_} + 16;
  if (offset < data_at || offset + size > data_at + 4) return;
  const std::uint32_t length = PeekConfig(static_cast<std::uint16_t>(config_access_ + 12), 4);
  if (PeekConfig(static_cast<std::uint16_t>(config_access_ + 4), 1) != kBar) return;
  if (length != 1 && length != 2 && length != 4) return;
  const std::uint32_t where = PeekConfig(static_cast<std::uint16_t>(config_access_ + 8), 4);
  std::uint32_t value = 0;
  ReadBar(kBar, where, std::as_writable_bytes(std::span(&value, 1)).first(length));
  PokeConfig(static_cast<std::uint16_t>(data_at), 4, value);
}

void PciTransport::ConfigWritten(std::uint16_t offset, unsigned size) noexcept {
  const std::uint32_t data_at = std::uint32_t{config_access_} + 16;
  if (offset < data_at || offset + size > data_at + 4) return;
  const std::uint32_t length = PeekConfig(static_cast<std::uint16_t>(config_access_ + 12), 4);
  if (PeekConfig(static_cast<std::uint16_t>(config_access_ + 4), 1) != kBar) return;
  if (length != 1 && length != 2 && length != 4) return;
  const std::uint32_t where = PeekConfig(static_cast<std::uint16_t>(config_access_ + 8), 4);
  const std::uint32_t value = PeekConfig(static_cast<std::uint16_t>(data_at), 4);
  WriteBar(kBar, where, std::as_bytes(std::span(&value, 1)).first(length));
}

}  // namespace holdfast::devices::virtio
