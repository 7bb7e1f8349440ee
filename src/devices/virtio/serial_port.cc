// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/serial_port.h"

#include <algorithm>
#include <array>
#include <utility>

#include "devices/virtio/virtio_serial.h"

namespace holdfast::devices::virtio {
namespace {

constexpr std::size_t kChunk = 4096;
// After so many bytes others have their turn on the loop's thread.
constexpr std::size_t kBytesAtOnce = 256 * 1024;

}  // namespace

Result<std::unique_ptr<SerialPort>> SerialPort::Create(VirtioSerial& serial, Config config,
                                                       Chardev* chardev, OpenChanged open_changed) {
  if (chardev != nullptr && !chardev->Take()) {
    return Fail(Errc::kInvalidArgument, "the chardev is in use",
                "Give each user a -chardev of its own.");
  }
  std::unique_ptr<SerialPort> port(
      new SerialPort(serial, std::move(config), chardev, std::move(open_changed)));
  if (Status attached = serial.Attach(*port); !attached) {
    port->BusGone();  // it was never there
    return Fail(std::move(attached).error());
  }
  return port;
}

SerialPort::SerialPort(VirtioSerial& serial, Config config, Chardev* chardev,
                       OpenChanged open_changed)
    : serial_(&serial),
      config_(std::move(config)),
      chardev_(chardev),
      open_changed_(std::move(open_changed)) {
  if (chardev_ == nullptr) return;
  chardev_->SetReceiver([this](std::span<const std::byte> data) { return Receive(data); });
  chardev_->SetWritable([this] { PumpOutput(); });
}

SerialPort::~SerialPort() {
  if (chardev_ != nullptr) {
    chardev_->SetReceiver({});
    chardev_->SetWritable({});
    chardev_->GiveBack();
  }
  if (serial_ != nullptr) serial_->Detach(*this);
}

void SerialPort::GuestOpens(bool open) {
  if (std::exchange(open_, open) == open) return;
  if (open_changed_) open_changed_(open);
  if (open) RoomInGuest();
}

void SerialPort::GuestReset() noexcept {
  ++session_;
  sending_.reset();
  sent_ = 0;
  goes_on_ = false;
  GuestOpens(false);
}

void SerialPort::RoomInGuest() {
  if (open_ && chardev_ != nullptr && std::exchange(refused_, false)) chardev_->ReceiverReady();
}

std::size_t SerialPort::Receive(std::span<const std::byte> data) {
  DeviceQueue* const queue = open_ && serial_ != nullptr ? serial_->in(number()) : nullptr;
  std::size_t taken = 0;
  while (queue != nullptr && taken < data.size()) {
    std::optional<Chain> chain = queue->Pop();
    if (!chain) break;
    const std::size_t written = chain->writable.CopyIn(0, data.subspan(taken));
    queue->Complete(*chain, static_cast<std::uint32_t>(written));
    taken += written;
  }
  refused_ = taken < data.size();
  return taken;
}

bool SerialPort::SendSome(const Chain& chain, std::size_t& budget) {
  std::array<std::byte, kChunk> chunk;
  while (sent_ < chain.readable.size() && budget > 0) {
    const auto wanted = std::span(chunk).first(std::min(kChunk, budget));
    const std::size_t got = chain.readable.CopyOut(sent_, wanted);
    const std::size_t taken =
        chardev_ == nullptr ? got : chardev_->Write(std::span(chunk).first(got));
    sent_ += taken;
    budget -= taken;
    if (taken < got) return false;  // SetWritable's callback goes on
  }
  return sent_ >= chain.readable.size();
}

void SerialPort::GiveRequestBack() {
  DeviceQueue* const queue = serial_ != nullptr ? serial_->out(number()) : nullptr;
  if (!sending_ || queue == nullptr) return;
  queue->Requeue(*std::exchange(sending_, std::nullopt));
  goes_on_ = true;
}

void SerialPort::VisitState(state::Fields& fields) {
  bool open = open_;
  std::uint64_t sent = goes_on_ ? sent_ : 0;
  fields.Value("open", open);
  fields.Value("sent", sent);
  if (!fields.loading() || !fields.ok()) return;
  sent_ = sent;
  goes_on_ = sent != 0;
  GuestOpens(open);
}

void SerialPort::PumpOutput() {
  DeviceQueue* const queue = serial_ != nullptr ? serial_->out(number()) : nullptr;
  if (queue == nullptr) return;
  std::size_t budget = kBytesAtOnce;
  for (;;) {
    if (!sending_) {
      sending_ = queue->Pop();
      if (!sending_) return;
      if (!std::exchange(goes_on_, false)) sent_ = 0;
    }
    if (!SendSome(*sending_, budget)) break;
    queue->Complete(*std::exchange(sending_, std::nullopt), 0);
    if (budget == 0) break;
    --budget;  // an empty request is work too
  }
  if (budget != 0) return;
  serial_->loop().Post([this, session = session_, alive = std::weak_ptr(alive_)] {
    if (!alive.expired() && session == session_) PumpOutput();
  });
}

}  // namespace holdfast::devices::virtio
