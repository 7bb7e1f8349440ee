// SPDX-License-Identifier: Apache-2.0
// Building, and the device's life. The registers are in pci_transport_registers.cc.
#include "devices/virtio/pci_transport.h"

#include <fmt/format.h>

#include <chrono>
#include <future>
#include <utility>

#include "base/log.h"
#include "devices/virtio/virtio_pci_regs.h"

namespace holdfast::devices::virtio {
namespace {

using namespace regs;

// How long a device says nothing more after it has told of a broken ring.
constexpr std::chrono::seconds kQuietTime{10};

// What PCI calls a device of this type, as in QEMU: base class, sub-class, interface.
std::uint32_t ClassOf(std::uint16_t type) {
  switch (type) {
    case 1:  // network
      return 0x020000;
    case 2:  // block
    case 8:  // SCSI host
      return 0x010000;
    case 3:   // console
    case 19:  // socket
      return 0x078000;
    case 26:  // file system
      return 0x018000;
    default:
      return 0x00ff00;
  }
}

std::uint64_t Offered(const Device& device, const TransportOptions& options) {
  std::uint64_t common = kFeatureVersion1;
  if (options.indirect) common |= kFeatureIndirect;
  if (options.event_index) common |= kFeatureEventIndex;
  if (options.packed) common |= kFeatureRingPacked;
  if (options.iommu_platform) common |= kFeatureAccessPlatform;
  return device.features() | (common & ~device.refused_common_features());
}

void Append32(std::vector<std::uint8_t>& bytes, std::uint32_t value) {
  for (unsigned shift = 0; shift < 32; shift += 8)
    bytes.push_back(static_cast<std::uint8_t>(value >> shift));
}

}  // namespace

Result<std::unique_ptr<PciTransport>> PciTransport::Create(const DeviceEnvironment& environment,
                                                           std::string_view id,
                                                           std::string_view model,
                                                           const TransportOptions& options,
                                                           std::unique_ptr<Device> device) {
  const std::uint16_t type = device->type();
  const pci::Identity identity{.vendor = kVendor,
                               .device = static_cast<std::uint16_t>(kFirstModernDevice + type),
                               .subsystem_vendor = kVendor,
                               .subsystem = kSubsystem,
                               .class_code = ClassOf(type),
                               .revision = 1};
  std::unique_ptr<PciTransport> transport(
      new PciTransport(environment, identity, id, model, options, std::move(device)));
  HF_TRY_STATUS(transport->Build(options));
  return transport;
}

PciTransport::PciTransport(const DeviceEnvironment& environment, const pci::Identity& identity,
                           std::string_view id, std::string_view model,
                           const TransportOptions& options, std::unique_ptr<Device> device)
    : Function(environment.pci, identity),
      main_loop_(environment.loop),
      memory_(environment.memory),
      model_(model),
      label_(id.empty() ? std::string(model) : fmt::format("{} '{}'", model, id)),
      device_(std::move(device)),
      offered_(Offered(*device_, options)) {}

Status PciTransport::Build(const TransportOptions& options) {
  const std::size_t count = device_->queue_sizes().size();
  if (count > kMaxQueues) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: {} queues are more than the {} there is room for", label_, count,
                            kMaxQueues));
  }
  AddBar(kBar, pci::BarKind::kMemory64Prefetchable, kBarSize);
  AddExpressCapability(0);
  AddStructure(kCommonConfig, kCommonAt, kAreaSize);
  AddStructure(kIsrConfig, kIsrAt, kAreaSize);
  AddStructure(kDeviceConfig, kDeviceAt, kAreaSize);
  AddStructure(kNotifyConfig, kNotifyAt, kAreaSize, kNotifyMultiplier);
  AddStructure(kPciConfig, 0, 0);

  const std::uint64_t vectors = options.vectors.value_or(count + 1);
  if (vectors > 2048) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: vectors={} is more than the 2048 of MSI-X", label_, vectors));
  }
  if (vectors != 0) {
    // A page of table for up to 256 vectors, then the pending bits.
    const auto table = static_cast<std::uint32_t>((vectors * 16 + 0xfff) / 0x1000 * 0x1000);
    std::uint64_t size = 0x1000;
    while (size < std::uint64_t{table} + 0x1000) size *= 2;
    AddBar(kMsixBar, pci::BarKind::kMemory32, size);
    HF_TRY_STATUS(AddMsix(static_cast<unsigned>(vectors), kMsixBar, 0, table));
  }

  for (unsigned i = 0; i < count; ++i) {
    HF_TRY(auto queue,
           TransportQueue::Create(device_->loop(),
                                  {.kicked =
                                       [this, i] {
                                         if (serving_ && running_) device_->HandleQueue(i);
                                       },
                                   .interrupt = [this, i] { InterruptQueue(i); },
                                   .broken = [this](const Error& why) { NeedsReset(why); }}));
    queues_.push_back(std::move(queue));
  }
  const MutexLock lock(mutex_);
  ClearRegisters();
  return {};
}

void PciTransport::AddStructure(std::uint8_t type, std::uint32_t offset, std::uint32_t length,
                                std::uint32_t multiplier) {
  // 4.1.4: length of the capability, type, BAR, id, padding, offset, length; what some have more.
  const bool is_access = type == kPciConfig;
  const bool longer = type == kNotifyConfig || is_access;
  std::vector<std::uint8_t> body{static_cast<std::uint8_t>(longer ? 20 : 16),
                                 type,
                                 static_cast<std::uint8_t>(is_access ? 0 : kBar),
                                 0,
                                 0,
                                 0};
  Append32(body, offset);
  Append32(body, length);
  if (longer) Append32(body, multiplier);
  std::vector<std::uint8_t> writable;
  if (is_access) {
    // BAR, offset, length and data are the driver's (4.1.4.9).
    writable.assign(body.size(), 0xff);
    writable[0] = writable[1] = writable[3] = writable[4] = writable[5] = 0;
  }
  const std::uint16_t at = AddCapability(kCapabilityId, body, writable);
  if (is_access) config_access_ = at;
}

PciTransport::~PciTransport() {
  RunOnLoop([this] {
    ResetDevice();
    queues_.clear();
    alive_.reset();
  });
}

void PciTransport::RunOnLoop(const std::function<void()>& work) noexcept {
  if (&device_->loop() == &main_loop_) {
    work();
    return;
  }
  std::promise<void> done;
  device_->loop().Post([&] {
    work();
    done.set_value();
  });
  done.get_future().wait();
}

void PciTransport::PostToLoop(void (PciTransport::*work)(std::uint64_t)) {
  device_->loop().Post([this, work, alive = std::weak_ptr<int>(alive_), generation = generation_] {
    if (!alive.expired()) (this->*work)(generation);
  });
}

QueueLayout PciTransport::LayoutOf(const QueueRegisters& registers) const {
  return {.size = registers.size,
          .descriptors = GuestAddress(registers.descriptors),
          .driver_area = GuestAddress(registers.driver_area),
          .device_area = GuestAddress(registers.device_area),
          .packed = (accepted_ & kFeatureRingPacked) != 0,
          .event_index = (accepted_ & kFeatureEventIndex) != 0,
          .indirect = (accepted_ & kFeatureIndirect) != 0,
          .in_order = (accepted_ & kFeatureInOrder) != 0};
}

void PciTransport::SetRunning(bool running) noexcept {
  RunOnLoop([this, running] {
    running_ = running;
    for (const auto& queue : queues_) queue->Hold(!running);
    device_->SetRunning(running);
    if (!running) return;
    // Kicks that came while the machine stood, and what the device gave back for that time.
    KickAll();
    if (activation_) Activate(*std::exchange(activation_, std::nullopt));
  });
}

void PciTransport::KickAll() {
  for (unsigned i = 0; serving_ && i < queues_.size(); ++i) {
    if (queues_[i]->ready()) device_->HandleQueue(i);
  }
}

void PciTransport::Activate(std::uint64_t generation) {
  if (!running_) {
    activation_ = generation;
    return;
  }
  std::vector<std::pair<unsigned, QueueLayout>> layouts;
  {
    const MutexLock lock(mutex_);
    // A reset came after it, and has been posted after it too.
    if (generation != generation_ || resetting_) return;
    for (unsigned i = 0; i < registers_.size(); ++i) {
      if (registers_[i].enabled) layouts.emplace_back(i, LayoutOf(registers_[i]));
    }
    agreed_ = accepted_;
  }
  active_ = true;
  const auto fail = [this](Error error) {
    restored_.clear();
    NeedsReset(error);
  };
  for (const auto& [index, layout] : layouts) {
    const bool stood = restored() && restored_[index];
    if (auto started = queues_[index]->Start(memory_, layout, stood ? &*restored_[index] : nullptr);
        !started) {
      return fail(std::move(started).error().Wrap(fmt::format("queue {}", index)));
    }
  }
  if (auto activated = device_->Activate(*this); !activated) {
    return fail(std::move(activated).error());
  }
  serving_ = true;
  const bool was_restored = !std::exchange(restored_, {}).empty();
  {
    const MutexLock lock(mutex_);
    AddDoorbells();
  }
  // Kicks from before the doorbells and from before the activation are one look.
  KickAll();
  if (!was_restored) return;
  // An interrupt may have been on its way when the machine was saved; one too many does no harm.
  for (const auto& [index, layout] : layouts) queues_[index]->Interrupt();
}

void PciTransport::ResetDevice() noexcept {
  {
    const MutexLock lock(mutex_);
    RemoveDoorbells();
  }
  restored_.clear();
  serving_ = false;
  if (!std::exchange(active_, false)) return;
  device_->Reset();
  for (const auto& queue : queues_) queue->Stop();
}

void PciTransport::FinishReset(std::uint64_t generation) {
  ResetDevice();
  const MutexLock lock(mutex_);
  if (generation != generation_) return;
  ClearRegisters();
}

void PciTransport::Reset() noexcept {
  {
    const MutexLock lock(mutex_);
    ++generation_;  // whatever was posted is about a guest that is gone
  }
  RunOnLoop([this] { ResetDevice(); });
  {
    const MutexLock lock(mutex_);
    ClearRegisters();
    isr_ = 0;
  }
  SetIntx(false);
  Function::Reset();
}

void PciTransport::AddDoorbells() {
  if (!notify_at_ || !started_ || !doorbells_.empty()) return;
  for (unsigned i = 0; i < registers_.size(); ++i) {
    if (!registers_[i].enabled) continue;
    // Without a doorbell the write comes to WriteBar(), which does the same, slower.
    if (services().AddDoorbell(*notify_at_ + std::uint64_t{i} * kNotifyMultiplier, 2, std::nullopt,
                               queues_[i]->kick_fd())) {
      doorbells_.push_back(i);
    }
  }
}

void PciTransport::RemoveDoorbells() noexcept {
  for (const unsigned i : doorbells_) {
    services().RemoveDoorbell(*notify_at_ + std::uint64_t{i} * kNotifyMultiplier, 2, std::nullopt,
                              queues_[i]->kick_fd());
  }
  doorbells_.clear();
}

void PciTransport::OnBarMoved(unsigned bar, std::optional<GuestAddress> where) noexcept {
  if (bar != kBar) return;
  const MutexLock lock(mutex_);
  RemoveDoorbells();
  notify_at_ = where ? std::optional(*where + kNotifyAt) : std::nullopt;
  // Until the device is active there is nobody to hear them.
  if ((status_ & kStatusDriverOk) != 0 && !resetting_) AddDoorbells();
}

// ---- What the device tells ----------------------------------------------------------------------

void PciTransport::Interrupt(std::uint16_t vector, std::uint8_t isr) noexcept {
  if (msix_enabled()) {
    if (vector != kNoVector) (void)TriggerMsix(vector);
    return;
  }
  const MutexLock lock(mutex_);
  isr_ |= isr;
  SetIntx(true);
}

void PciTransport::InterruptQueue(unsigned index) noexcept {
  std::uint16_t vector = kNoVector;
  {
    const MutexLock lock(mutex_);
    vector = registers_[index].vector;
  }
  Interrupt(vector, kIsrQueue);
}

void PciTransport::ConfigChanged() noexcept {
  std::uint16_t vector = kNoVector;
  {
    const MutexLock lock(mutex_);
    ++config_generation_;
    if ((status_ & kStatusDriverOk) == 0) return;
    vector = config_vector_;
  }
  Interrupt(vector, kIsrConfigChanged);
}

void PciTransport::NeedsReset(const Error& why) noexcept {
  bool tell = false;
  {
    const MutexLock lock(mutex_);
    if ((status_ & kStatusNeedsReset) != 0 || resetting_) return;
    status_ |= kStatusNeedsReset;
    // A guest may reset the device and break it again as often as it likes.
    const EventLoop::Clock::time_point now = EventLoop::Clock::now();
    tell = now >= quiet_until_;
    if (tell) quiet_until_ = now + kQuietTime;
  }
  if (tell) {
    log::Warn(
        fmt::format("{}: {}; the device waits for the guest to reset it", label_, why.ToString()));
  }
  ConfigChanged();
}

}  // namespace holdfast::devices::virtio
