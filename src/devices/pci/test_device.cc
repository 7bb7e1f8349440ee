// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/test_device.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>

#include <holdfast/unique_fd.h>

#include "devices/pci/config_regs.h"
#include "devices/pci/function.h"

namespace holdfast::devices::pci {
namespace {

constexpr std::uint64_t kMemorySize = 0x1000;
constexpr std::uint64_t kIoSize = 0x20;
constexpr std::uint64_t kMsixBarSize = 0x1000;
constexpr std::uint32_t kPendingOffset = 0x800;

class TestDevice final : public Function {
 public:
  static Result<std::unique_ptr<Function>> Create(PciServices& services) {
    UniqueFd doorbell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!doorbell) return FailErrno("pci-testdev: eventfd");
    auto device = std::make_unique<TestDevice>(services, std::move(doorbell));
    HF_TRY_STATUS(device->AddMsix(testdev::kVectors, 2, 0, kPendingOffset));
    return device;
  }

  TestDevice(PciServices& services, UniqueFd doorbell)
      // QEMU's id for it, in the range Red Hat reserves for such.
      : Function(services, {.vendor = 0x1b36,
                            .device = 0x0005,
                            .subsystem_vendor = 0x1af4,
                            .subsystem = 0x1100,
                            .class_code = 0xff0000}),
        doorbell_(std::move(doorbell)) {
    AddBar(0, BarKind::kMemory32, kMemorySize);
    AddBar(1, BarKind::kIo, kIoSize);
    AddBar(2, BarKind::kMemory64, kMsixBarSize);
    AddExpressCapability(kExpressEndpoint);
  }
  ~TestDevice() override { OnBarMoved(0, std::nullopt); }

  std::string_view name() const noexcept override { return kPciTestdev.name; }

  void ReadBar(unsigned bar, std::uint64_t offset, std::span<std::byte> data) noexcept override {
    std::ranges::fill(data, std::byte{0xff});
    if (bar > 1 || data.size() != 4) return;
    const MutexLock lock(mutex_);
    std::uint32_t value = 0xffffffff;
    switch (offset) {
      case testdev::kMagic:
        value = testdev::kMagicValue;
        break;
      case testdev::kScratch:
        value = scratch_;
        break;
      case testdev::kInterrupt:
        value = interrupts_;
        break;
      case testdev::kDoorbell: {
        std::uint64_t rung = 0;
        if (::eventfd_read(doorbell_.get(), &rung) == 0) rings_ += static_cast<std::uint32_t>(rung);
        value = rings_;
        break;
      }
      default:
        break;
    }
    std::memcpy(data.data(), &value, sizeof value);
  }

  void WriteBar(unsigned bar, std::uint64_t offset,
                std::span<const std::byte> data) noexcept override {
    if (bar > 1 || data.size() != 4) return;
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), sizeof value);
    const MutexLock lock(mutex_);
    switch (offset) {
      case testdev::kScratch:
        scratch_ = value;
        break;
      case testdev::kInterrupt:
        ++interrupts_;
        if (!TriggerMsix(value)) SetIntx(true);
        break;
      case testdev::kAcknowledge:
        SetIntx(false);
        break;
      case testdev::kDoorbell:
        ::eventfd_write(doorbell_.get(), 1);
        break;
      default:
        break;
    }
  }

  void OnBarMoved(unsigned bar, std::optional<GuestAddress> where) noexcept override {
    if (bar != 0) return;
    const MutexLock lock(mutex_);
    if (bell_at_) services().RemoveDoorbell(*bell_at_, 4, std::nullopt, doorbell_.get());
    bell_at_.reset();
    if (!where) return;
    const GuestAddress address = *where + testdev::kDoorbell;
    if (services().AddDoorbell(address, 4, std::nullopt, doorbell_.get())) bell_at_ = address;
  }

  void VisitState(state::Fields& fields) override {
    Function::VisitState(fields);
    const MutexLock lock(mutex_);
    std::uint64_t rung = 0;
    if (::eventfd_read(doorbell_.get(), &rung) == 0) rings_ += static_cast<std::uint32_t>(rung);
    std::uint32_t values[] = {scratch_, interrupts_, rings_};
    fields.Value("scratch", values[0]);
    fields.Value("interrupts", values[1]);
    fields.Value("rings", values[2]);
    if (!fields.loading() || !fields.ok()) return;
    scratch_ = values[0];
    interrupts_ = values[1];
    rings_ = values[2];
  }

  void Reset() noexcept override {
    Function::Reset();
    const MutexLock lock(mutex_);
    scratch_ = 0;
    interrupts_ = 0;
    rings_ = 0;
  }

 private:
  const UniqueFd doorbell_;
  Mutex mutex_;
  std::optional<GuestAddress> bell_at_ HF_GUARDED_BY(mutex_);
  std::uint32_t scratch_ HF_GUARDED_BY(mutex_) = 0;
  std::uint32_t interrupts_ HF_GUARDED_BY(mutex_) = 0;
  std::uint32_t rings_ HF_GUARDED_BY(mutex_) = 0;
};

}  // namespace

constinit const DeviceModel kPciTestdev = {
    .name = "pci-testdev",
    .description = "PCI Test Device",
    .properties = [] { return std::vector<object::PropertyInfo>{}; },
    .check = [](const object::KeyValues& values) -> Status {
      if (values.empty()) return {};
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Property 'pci-testdev.{}' not found", values.front().key),
                  "It has only what every PCI device has: id, bus, addr, multifunction.");
    },
    .create = [](const DeviceEnvironment& environment, std::string_view,
                 const object::KeyValues&) { return TestDevice::Create(environment.pci); },
};

}  // namespace holdfast::devices::pci
