// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "devices/child_bus.h"
#include "devices/device_model.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

class SerialPort;

/// virtio-console with several ports (virtio 1.2, 5.3), which QEMU calls virtio-serial: the bus
/// that consoles and named byte streams are put on. Ports may come and go while the guest runs.
///
/// Thread-safety: the loop's thread, as Device.
class VirtioSerial final : public Device {
 public:
  static constexpr std::string_view kBusType = "virtio-serial-bus";
  static constexpr std::uint32_t kMostPorts = 31;  // as QEMU
  static constexpr unsigned kControlIn = 2;        // from the device to the driver
  static constexpr unsigned kControlOut = 3;

  /// What control messages say (5.3.6.2).
  enum class Event : std::uint16_t {
    kDeviceReady = 0,
    kDeviceAdd = 1,
    kDeviceRemove = 2,
    kPortReady = 3,
    kConsolePort = 4,
    kPortOpen = 6,
    kPortName = 7,
  };

  /// @param name  of the bus, "vs0.0"
  /// @param max_ports  1 to kMostPorts
  /// @param buses  where it is entered for its lifetime; may be null
  VirtioSerial(EventLoop& loop, std::string name, std::uint32_t max_ports, ChildBuses* buses);
  ~VirtioSerial() override;

  std::uint16_t type() const noexcept override { return 3; }
  std::string_view name() const noexcept override { return "virtio-serial"; }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  EventLoop& loop() const noexcept override { return loop_; }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override;
  void Reset() noexcept override;

  /// The bus as devices that go onto it find it.
  class Bus final : public ChildBus {
   public:
    explicit Bus(VirtioSerial& owner) : owner_(owner) {}
    std::string_view type() const noexcept override { return kBusType; }
    VirtioSerial& owner() const noexcept { return owner_; }

   private:
    VirtioSerial& owner_;
  };

  /// The number for a port: `wanted`, or the first that is free; 0 is for the first console.
  /// @return QEMU's sentences for one that is taken or too large, and for a full bus
  Result<std::uint32_t> ChooseNumber(std::optional<std::uint32_t> wanted, bool console) const;
  /// Puts a port on its number. It takes itself off before it goes.
  Status Attach(SerialPort& port);
  void Detach(SerialPort& port) noexcept;

  /// The queues of a port while the driver is ready; null otherwise.
  DeviceQueue* in(std::uint32_t port) const;
  DeviceQueue* out(std::uint32_t port) const;
  /// Whether ports are opened and closed by messages; else there is port 0, always open.
  bool multiport() const noexcept;

 private:
  void ServeControl();
  void OnMessage(std::uint32_t port, Event event, std::uint16_t value);
  void Introduce(const SerialPort& port);
  void Send(std::uint32_t port, Event event, std::uint16_t value, std::string_view text = {});
  void FlushMessages();
  DeviceQueue* Ready(unsigned index) const;

  EventLoop& loop_;
  Bus bus_{*this};
  ChildBuses* const buses_;
  const std::uint32_t max_ports_;
  std::vector<std::uint16_t> queue_sizes_;
  Transport* transport_ = nullptr;  // while active
  bool driver_ready_ = false;       // it wants to hear of ports
  std::uint64_t activation_ = 0;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
  std::map<std::uint32_t, SerialPort*> ports_;
  std::deque<std::vector<std::byte>> messages_;  // for which the driver has no buffer yet
};

/// `virtio-serial-pci`.
extern const DeviceModel kVirtioSerialPci;

}  // namespace holdfast::devices::virtio
