// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include "devices/chardev.h"
#include "devices/child_bus.h"
#include "devices/device_model.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

class VirtioSerial;

/// A port of virtio-serial: a console (hvc0) or a named stream of bytes (/dev/virtio-ports/NAME)
/// between the guest and a chardev. Nothing is lost while somebody is at the chardev's far end: a
/// guest that writes faster than it is read waits, and the other way round.
///
/// Thread-safety: the loop's thread.
class SerialPort final : public ChildDevice {
 public:
  struct Config {
    std::string name;  ///< of a port that is no console
    std::uint32_t number = 0;
    bool console = false;
  };
  /// Called when the guest opens or closes the port.
  using OpenChanged = std::function<void(bool open)>;

  /// Attaches to `serial` and takes over `chardev`'s callbacks; null: what the guest writes
  /// vanishes. @return why the bus or the chardev refuses
  static Result<std::unique_ptr<SerialPort>> Create(VirtioSerial& serial, Config config,
                                                    Chardev* chardev, OpenChanged open_changed);
  ~SerialPort() override;

  const std::string& name() const noexcept { return config_.name; }
  std::uint32_t number() const noexcept { return config_.number; }
  bool console() const noexcept { return config_.console; }

  void VisitState(state::Fields& fields) override;

  // From the bus.
  void GuestOpens(bool open);
  void GuestReset() noexcept;
  /// The guest has given buffers for input.
  void RoomInGuest();
  /// Takes what the guest has written, as far as the chardev has room.
  void PumpOutput();
  /// The machine stops: what is sent in part goes on from there later.
  void GiveRequestBack();
  void BusGone() noexcept {
    serial_ = nullptr;
    sending_.reset();
  }

 private:
  SerialPort(VirtioSerial& serial, Config config, Chardev* chardev, OpenChanged open_changed);
  std::size_t Receive(std::span<const std::byte> data);
  /// Sends more of `chain`. @return whether all of it is sent
  bool SendSome(const Chain& chain, std::size_t& budget);

  VirtioSerial* serial_;  // null once it is gone
  const Config config_;
  Chardev* const chardev_;
  const OpenChanged open_changed_;
  bool open_ = false;
  bool refused_ = false;          // the chardev has input that there was no room for
  std::optional<Chain> sending_;  // partly written
  std::uint64_t sent_ = 0;        // bytes of it
  bool goes_on_ = false;          // sent_ is of the request that comes next
  std::uint64_t session_ = 0;     // counts resets
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
};

/// `virtserialport` and `virtconsole`.
extern const DeviceModel kVirtserialport;
extern const DeviceModel kVirtconsole;

}  // namespace holdfast::devices::virtio
