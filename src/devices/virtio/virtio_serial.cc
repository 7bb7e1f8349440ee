// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_serial.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/virtio/serial_port.h"

namespace holdfast::devices::virtio {
namespace {

constexpr std::uint64_t kMultiport = 1 << 1;
constexpr std::uint16_t kPortQueueSize = 128;
constexpr std::uint16_t kControlQueueSize = 32;
constexpr unsigned kControlRequestsAtOnce = 64;
// A driver that asks and gives no buffers for the answers gets no more than that.
constexpr std::size_t kMostMessages = 1024;
constexpr std::size_t kMostMessage = 4096;  // bytes, with a port's name

struct Config {
  std::uint16_t columns = 0;
  std::uint16_t rows = 0;
  std::uint32_t max_ports = 0;
  std::uint32_t emergency_write = 0;
};

struct Message {
  std::uint32_t port = 0;
  std::uint16_t event = 0;
  std::uint16_t value = 0;
};

// Port 0 has the first two queues, the control messages the next two, then the others come.
unsigned InQueue(std::uint32_t port) {
  return port == 0 ? 0 : 2 * port + 2;
}

}  // namespace

VirtioSerial::VirtioSerial(EventLoop& loop, std::string name, std::uint32_t max_ports,
                           ChildBuses* buses)
    : loop_(loop), buses_(buses), max_ports_(max_ports) {
  queue_sizes_.assign(2 * (std::size_t{max_ports} + 1), kPortQueueSize);
  queue_sizes_[kControlIn] = queue_sizes_[kControlOut] = kControlQueueSize;
  if (buses_ != nullptr) buses_->Add(std::move(name), bus_);
}

VirtioSerial::~VirtioSerial() {
  if (buses_ != nullptr) buses_->Remove(bus_);
  for (const auto& [number, port] : std::exchange(ports_, {})) port->BusGone();
}

std::uint64_t VirtioSerial::features() const noexcept {
  return kMultiport;
}

void VirtioSerial::ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0});
  const Config config{.max_ports = max_ports_};
  const auto bytes = std::as_bytes(std::span(&config, 1));
  if (offset >= bytes.size()) return;
  std::ranges::copy(bytes.subspan(offset, std::min(data.size(), bytes.size() - offset)),
                    data.begin());
}

Status VirtioSerial::Activate(Transport& transport) {
  transport_ = &transport;
  ++activation_;
  // Without messages there is only port 0, and it is open from the start.
  if (!multiport()) {
    if (const auto port = ports_.find(0); port != ports_.end()) port->second->GuestOpens(true);
  }
  return {};
}

void VirtioSerial::SetRunning(bool running) noexcept {
  if (running || transport_ == nullptr) return;
  for (const auto& [number, port] : ports_) port->GiveRequestBack();
}

void VirtioSerial::VisitState(state::Fields& fields) {
  bool driver_ready = driver_ready_;
  std::vector<std::vector<std::byte>> messages(messages_.begin(), messages_.end());
  fields.Value("driver-ready", driver_ready);
  fields.List("messages", messages, kMostMessages,
              [](state::Fields& each, std::vector<std::byte>& message) {
                each.Blob("message", message, kMostMessage);
                each.Check(message.size() >= sizeof(Message), "a message is too short");
              });
  if (!fields.loading() || !fields.ok()) return;
  driver_ready_ = driver_ready;
  messages_.assign(messages.begin(), messages.end());
}

void VirtioSerial::Reset() noexcept {
  for (const auto& [number, port] : ports_) port->GuestReset();
  transport_ = nullptr;
  driver_ready_ = false;
  ++activation_;
  messages_.clear();
}

bool VirtioSerial::multiport() const noexcept {
  return transport_ != nullptr && transport_->has(kMultiport);
}

DeviceQueue* VirtioSerial::Ready(unsigned index) const {
  if (transport_ == nullptr || index >= queue_sizes_.size()) return nullptr;
  DeviceQueue& queue = transport_->queue(index);
  return queue.ready() ? &queue : nullptr;
}
DeviceQueue* VirtioSerial::in(std::uint32_t port) const {
  return Ready(InQueue(port));
}
DeviceQueue* VirtioSerial::out(std::uint32_t port) const {
  return Ready(InQueue(port) + 1);
}

void VirtioSerial::HandleQueue(unsigned index) {
  if (transport_ == nullptr) return;
  if (index == kControlIn || index == kControlOut) {
    if (!multiport()) return;
    if (index == kControlIn) return FlushMessages();
    return ServeControl();
  }
  const auto number = static_cast<std::uint32_t>(index < kControlIn ? 0 : (index - 2) / 2);
  const auto port = ports_.find(number);
  if (port == ports_.end()) return;
  if (index % 2 == 0) {
    port->second->RoomInGuest();
  } else {
    port->second->PumpOutput();
  }
}

// ---- Ports --------------------------------------------------------------------------------------

Result<std::uint32_t> VirtioSerial::ChooseNumber(std::optional<std::uint32_t> wanted,
                                                 bool console) const {
  std::uint32_t number = wanted.value_or(console && !ports_.contains(0) ? 0 : 1);
  if (!wanted && number != 0) {
    while (ports_.contains(number)) ++number;
    if (number >= max_ports_) {
      return Fail(Errc::kExhausted, "virtio-serial-bus: Maximum port limit for this device reached",
                  "Raise max_ports= of the virtio-serial-pci, or add another one.");
    }
  }
  if (number >= max_ports_) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("virtio-serial-bus: Out-of-range port id specified, max. allowed: {}",
                            max_ports_ - 1),
                "Give a smaller nr=, or leave it out.");
  }
  if (ports_.contains(number)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("virtio-serial-bus: A port already exists at id {}", number),
                "Give another nr=, or leave it out.");
  }
  return number;
}

Status VirtioSerial::Attach(SerialPort& port) {
  for (const auto& [number, other] : ports_) {
    if (!port.name().empty() && other->name() == port.name()) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("virtio-serial-bus: A port already exists by name {}", port.name()),
                  "Give each port its own name=.");
    }
  }
  ports_[port.number()] = &port;
  if (driver_ready_) Send(port.number(), Event::kDeviceAdd, 1);
  return {};
}

void VirtioSerial::Detach(SerialPort& port) noexcept {
  ports_.erase(port.number());
  if (driver_ready_) Send(port.number(), Event::kDeviceRemove, 1);
}

// ---- Control messages ---------------------------------------------------------------------------

void VirtioSerial::ServeControl() {
  DeviceQueue* const queue = Ready(kControlOut);
  if (queue == nullptr) return;
  for (unsigned served = 0; served < kControlRequestsAtOnce; ++served) {
    std::optional<Chain> chain = queue->Pop();
    if (!chain) return;
    Message message;
    const auto bytes = std::as_writable_bytes(std::span(&message, 1));
    const bool whole = chain->readable.CopyOut(0, bytes) == bytes.size();
    queue->Complete(*chain, 0);
    if (whole) OnMessage(message.port, static_cast<Event>(message.event), message.value);
  }
  loop_.Post([this, activation = activation_, alive = std::weak_ptr(alive_)] {
    if (!alive.expired() && activation == activation_) ServeControl();
  });
}

void VirtioSerial::OnMessage(std::uint32_t port, Event event, std::uint16_t value) {
  if (event == Event::kDeviceReady) {
    driver_ready_ = value == 1;
    if (!driver_ready_) return;
    for (const auto& [number, one] : ports_) Send(number, Event::kDeviceAdd, 1);
    return;
  }
  const auto found = ports_.find(port);
  if (found == ports_.end()) return;
  if (event == Event::kPortReady && value == 1) Introduce(*found->second);
  if (event == Event::kPortOpen) found->second->GuestOpens(value == 1);
}

void VirtioSerial::Introduce(const SerialPort& port) {
  if (port.console()) Send(port.number(), Event::kConsolePort, 1);
  if (!port.name().empty()) Send(port.number(), Event::kPortName, 1, port.name());
  // A chardev takes what it is given, whether somebody is at its far end or not.
  Send(port.number(), Event::kPortOpen, 1);
}

void VirtioSerial::Send(std::uint32_t port, Event event, std::uint16_t value,
                        std::string_view text) {
  if (!multiport() || messages_.size() >= kMostMessages) return;
  const Message message{port, static_cast<std::uint16_t>(event), value};
  const auto head = std::as_bytes(std::span(&message, 1));
  const auto tail = std::as_bytes(std::span(text));
  std::vector<std::byte> bytes(head.begin(), head.end());
  bytes.insert(bytes.end(), tail.begin(), tail.end());
  messages_.push_back(std::move(bytes));
  FlushMessages();
}

void VirtioSerial::FlushMessages() {
  DeviceQueue* const queue = Ready(kControlIn);
  if (queue == nullptr) return;
  while (!messages_.empty()) {
    std::optional<Chain> chain = queue->Pop();
    if (!chain) return;
    const std::size_t written = chain->writable.CopyIn(0, messages_.front());
    messages_.pop_front();
    queue->Complete(*chain, static_cast<std::uint32_t>(written));
  }
}

}  // namespace holdfast::devices::virtio
