// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "devices/bus.h"
#include "devices/chardev.h"

/// Stand-ins for what the devices' tests put around a device.
namespace holdfast::devices::testing {

inline std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string Text(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += std::to_integer<char>(byte);
  return text;
}

/// Little-endian accesses of `Width` bytes.
template <std::size_t Width = 1>
std::uint32_t In(BusDevice& device, std::uint64_t offset) {
  std::array<std::byte, Width> data{};
  device.Read(offset, data);
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < Width; ++i)
    value |= std::to_integer<std::uint32_t>(data.at(i)) << (8 * i);
  return value;
}

template <std::size_t Width = 1>
void Out(BusDevice& device, std::uint64_t offset, std::uint32_t value) {
  std::array<std::byte, Width> data{};
  for (std::size_t i = 0; i < Width; ++i) data.at(i) = static_cast<std::byte>(value >> (8 * i));
  device.Write(offset, data);
}

/// Remembers its level and how often it rose.
class FakeLine final : public InterruptLine {
 public:
  void Set(bool level) noexcept override {
    if (level) ++rises_;
    level_ = level;
  }
  bool level() const { return level_; }
  int rises() const { return rises_; }

 private:
  std::atomic<bool> level_ = false;
  std::atomic<int> rises_ = 0;
};

/// A far end with as much room as the test says.
class FakeChardev final : public Chardev {
 public:
  std::size_t Write(std::span<const std::byte> data) noexcept override {
    const std::size_t taken = std::min(data.size(), room);
    room -= taken;
    output += Text(data.first(taken));
    return taken;
  }
  void SetReceiver(Receiver receiver) override { receive = std::move(receiver); }
  void SetWritable(WritableCallback callback) override { writable = std::move(callback); }
  void ReceiverReady() noexcept override { ++receiver_ready; }
  void Flush() noexcept override {}
  std::string Describe() const override { return "fake"; }

  std::size_t room = SIZE_MAX;
  std::string output;
  Receiver receive;
  WritableCallback writable;
  int receiver_ready = 0;
};

}  // namespace holdfast::devices::testing
