// SPDX-License-Identifier: Apache-2.0
// What a virtio device on PCI is saved as. Loading leaves an active device to be activated when the
// machine goes on: until then there may be nothing in the guest's memory.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "devices/virtio/pci_transport.h"
#include "devices/virtio/virtio_pci_regs.h"

namespace holdfast::devices::virtio {
namespace {

using namespace regs;

constexpr std::size_t kMostDeviceState = 1 << 20;

bool IsActive(std::uint8_t status) {
  return (status & kStatusDriverOk) != 0 && (status & kStatusNeedsReset) == 0;
}

}  // namespace

void PciTransport::VisitState(state::Fields& fields) {
  Function::VisitState(fields);
  Registers registers;
  if (!fields.loading()) {
    EndReset();
    registers = SaveRegisters();
  }
  VisitRegisters(fields, registers);
  if (fields.loading()) CheckRegisters(fields, registers);
  if (!fields.ok()) return;
  RunOnLoop([&] {
    Rings rings;
    if (!fields.loading() && IsActive(registers.status)) SaveRings(fields, rings);
    VisitRings(fields, rings);
    fields.Check(rings.empty() || IsActive(registers.status),
                 "queues are in use and the driver is not ready");
    VisitDevice(fields);
    if (fields.loading() && fields.ok()) restored_ = std::move(rings);
  });
  if (fields.loading() && fields.ok()) Apply(registers);
}

// ---- Registers ----------------------------------------------------------------------------------

// A reset that the driver waits for is done now and not when the loop comes to it: the driver finds
// its end where this is loaded.
void PciTransport::EndReset() {
  {
    const MutexLock lock(mutex_);
    if (!resetting_) return;
    ++generation_;
  }
  RunOnLoop([this] { ResetDevice(); });
  const MutexLock lock(mutex_);
  ClearRegisters();
}

PciTransport::Registers PciTransport::SaveRegisters() const {
  const MutexLock lock(mutex_);
  Registers registers{.isr = isr_, .config_generation = config_generation_, .queues = {}};
  registers.device_select = device_select_;
  registers.driver_select = driver_select_;
  registers.accepted = accepted_;
  registers.config_vector = config_vector_;
  registers.queue_select = queue_select_;
  registers.status = status_;
  registers.queues = registers_;
  return registers;
}

void PciTransport::VisitRegisters(state::Fields& fields, Registers& registers) const {
  fields.Value("device-feature-select", registers.device_select);
  fields.Value("driver-feature-select", registers.driver_select);
  fields.Value("features", registers.accepted);
  fields.Value("config-vector", registers.config_vector);
  fields.Value("queue-select", registers.queue_select);
  fields.Value("status", registers.status);
  fields.Value("isr", registers.isr);
  fields.Value("config-generation", registers.config_generation);
  fields.List("queues", registers.queues, kMaxQueues,
              [](state::Fields& each, QueueRegisters& queue) {
                each.Value("size", queue.size);
                each.Value("vector", queue.vector);
                each.Value("enabled", queue.enabled);
                each.Value("descriptors", queue.descriptors);
                each.Value("driver-area", queue.driver_area);
                each.Value("device-area", queue.device_area);
              });
}

void PciTransport::CheckRegisters(state::Fields& fields, const Registers& registers) const {
  const auto is_vector = [this](std::uint16_t vector) {
    return vector == kNoVector || vector < msix_vectors();
  };
  const auto sizes = device_->queue_sizes();
  if (registers.queues.size() != sizes.size()) {
    return fields.Malformed(fmt::format("it has {} queues and the device here has {}",
                                        registers.queues.size(), sizes.size()));
  }
  bool good = is_vector(registers.config_vector);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const QueueRegisters& queue = registers.queues[i];
    good = good && is_vector(queue.vector) && queue.size <= sizes[i];
  }
  fields.Check(good, "a queue has a size or an interrupt vector that the device here has not");
  fields.Check((registers.isr & ~(kIsrQueue | kIsrConfigChanged)) == 0, "impossible ISR bits");
  const bool agreed = (registers.status & kStatusFeaturesOk) != 0;
  fields.Check(agreed || (registers.status & kStatusDriverOk) == 0,
               "the driver is ready without having agreed on features");
  if (!agreed) return;
  if (const std::uint64_t missing = registers.accepted & ~offered_; missing != 0) {
    return fields.Malformed(
        fmt::format("the guest uses features {:#x} that the device here does not offer", missing));
  }
  fields.Check((registers.accepted & kFeatureVersion1) != 0 && device_->Accepts(registers.accepted),
               "the driver agreed on features that do not go together");
}

void PciTransport::Apply(const Registers& registers) {
  std::uint64_t generation = 0;
  {
    const MutexLock lock(mutex_);
    device_select_ = registers.device_select;
    driver_select_ = registers.driver_select;
    accepted_ = registers.accepted;
    config_vector_ = registers.config_vector;
    queue_select_ = registers.queue_select;
    status_ = registers.status;
    isr_ = registers.isr;
    config_generation_ = registers.config_generation;
    registers_ = registers.queues;
    started_ = (status_ & kStatusDriverOk) != 0;
    generation = generation_;
  }
  if (!IsActive(registers.status)) return;
  RunOnLoop([&] { Activate(generation); });  // waits until the machine goes on
}

// ---- Rings and device ---------------------------------------------------------------------------

void PciTransport::SaveRings(state::Fields& fields, Rings& rings) const {
  if (!serving_) {
    rings = restored_;  // not activated since it was loaded itself
    return;
  }
  for (const auto& queue : queues_) {
    auto& ring = rings.emplace_back();
    if (!queue->ready()) continue;
    Result<QueueState> saved = queue->Save(memory_);
    if (!saved) return fields.Malformed(saved.error().message());
    ring = *std::move(saved);
  }
}

// No rings: of a device that is not active, or whose activation had to wait.
void PciTransport::VisitRings(state::Fields& fields, Rings& rings) {
  const auto sizes = device_->queue_sizes();
  std::size_t next = 0;
  fields.List("rings", rings, sizes.size(),
              [&](state::Fields& each, std::optional<QueueState>& ring) {
                bool used = ring.has_value();
                each.Value("used", used);
                if (each.loading() && used) ring.emplace();
                if (used) ring->Visit(each, sizes[next]);
                ++next;
              });
  fields.Check(rings.empty() || rings.size() == sizes.size(), "it has too few rings");
}

void PciTransport::VisitDevice(state::Fields& fields) {
  std::uint32_t version = device_->state_version();
  std::vector<std::byte> bytes;
  if (!fields.loading()) {
    state::Fields inside(version);
    device_->VisitState(inside);
    if (const Status status = inside.status(); !status) {
      return fields.Malformed(status.error().message());
    }
    bytes = std::move(inside).Take();
  }
  fields.Value("device-version", version);
  fields.Blob("device", bytes, kMostDeviceState);
  if (!fields.loading() || !fields.ok()) return;
  if (version == 0 || version > device_->state_version()) {
    return fields.Malformed(
        fmt::format("the device's part has version {}; versions 1 to {} are "
                    "known",
                    version, device_->state_version()));
  }
  state::Fields inside(version, bytes);
  device_->VisitState(inside);
  if (const Status status = inside.status(); !status) {
    fields.Malformed(status.error().message());
  }
}

}  // namespace holdfast::devices::virtio
