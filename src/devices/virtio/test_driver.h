// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>

#include "base/event_loop.h"
#include "devices/virtio/device.h"
#include "devices/virtio/transport_queue.h"

/// The driver's side of virtio for tests: memory, rings, requests, without a guest.
namespace holdfast::devices::virtio {

/// Plain memory from guest physical address 0 on, handed out piece by piece.
class TestMemory {
 public:
  explicit TestMemory(std::uint64_t size = 16ULL << 20);
  const AddressSpace& space() const { return *space_; }
  std::span<std::byte> bytes() const { return block_->host_view(); }
  RamBlock& block() const { return *block_; }
  /// Zeroed, aligned to 16 (or more) bytes, never given back.
  GuestAddress Allocate(std::uint64_t size, std::uint64_t alignment = 16);
  GuestAddress Put(std::span<const std::byte> bytes);
  std::vector<std::byte> Get(GuestAddress from, std::uint64_t size) const;
  template <typename T>
  T Load(GuestAddress from) const {
    T value;
    std::memcpy(&value, bytes().data() + from.value(), sizeof value);
    return value;
  }
  template <typename T>
  void Store(GuestAddress to, T value) const {
    std::memcpy(bytes().data() + to.value(), &value, sizeof value);
  }

 private:
  std::unique_ptr<RamBlock> block_;
  std::unique_ptr<AddressSpace> space_;
  std::uint64_t next_ = 4096;
};

/// A buffer of a request.
struct TestBuffer {
  GuestAddress address;
  std::uint32_t length = 0;
  bool device_writes = false;
};

/// The driver's side of one queue, in either format.
class TestQueue {
 public:
  struct Used {
    std::uint16_t id;
    std::uint32_t written;
  };
  TestQueue(TestMemory& memory, std::uint16_t size, bool packed, bool event_index, bool indirect);

  const QueueLayout& layout() const { return layout_; }
  /// Makes a request available. @return its id
  std::uint16_t Add(std::span<const TestBuffer> buffers, bool as_table = false);
  /// The next answer, if there is one.
  std::optional<Used> Take();
  /// Whether the device wants a kick for what was added since the last call.
  bool NeedsKick();
  /// Asks for an interrupt after the next answer, or for none at all.
  void WantInterrupts(bool wanted);

 private:
  void WriteDescriptor(GuestAddress table, unsigned index, const TestBuffer& buffer,
                       std::uint16_t flags, std::uint16_t next_or_id);

  TestMemory& memory_;
  QueueLayout layout_;
  std::uint16_t next_ = 0;  // split: descriptors and available index; packed: position
  std::uint16_t free_ = 0;  // split: the next descriptor to use, in a circle
  std::uint16_t seen_ = 0;  // split: used index; packed: position of the next answer
  std::uint16_t kicked_ = 0;
  bool wrap_ = true;  // packed: the driver's wrap counter
  bool seen_wrap_ = true;
  std::vector<std::uint16_t> slots_;  // by id: ring entries of the request
};

/// A transport with nothing but memory: drives a device as a driver does.
class TestDriver final : public Transport {
 public:
  /// @param features  what the driver accepts of the device's, and of the common ones
  TestDriver(Device& device, EventLoop& loop, std::uint64_t features = ~0ULL & ~kFeatureRingPacked);
  ~TestDriver() override;

  /// Makes the queues and activates the device. @param size  entries, at most the device's
  Status Start(std::uint16_t size = 64);
  void Stop();
  /// The machine stands, or goes on.
  void SetRunning(bool running);
  /// Stands, and returns what the device alone is saved as.
  Result<std::vector<std::byte>> SaveDevice();
  /// Stands, saves, resets the device, and goes on with `device`, which is made as it was: loaded,
  /// with the same memory and the same rings. The driver notices nothing. `more` loads what else
  /// there is of it, before it goes on.
  Status MoveTo(Device& device, const std::function<void()>& more = {});

  struct Answer {
    std::uint32_t written = 0;
    std::vector<std::byte> data;  ///< all of the writable part
  };
  /// Sends one request and lets the loop run until it is answered; no answer within a minute fails.
  Result<Answer> Ask(unsigned queue, std::span<const std::byte> readable,
                     std::uint32_t writable = 0);
  /// Only sends it. @return its id
  std::uint16_t Send(unsigned queue, std::span<const TestBuffer> buffers);
  void Kick(unsigned queue) { device_->HandleQueue(queue); }
  std::optional<TestQueue::Used> Take(unsigned queue) { return sides_[queue]->Take(); }
  /// Runs the loop until `done()` says so or a minute is over. @return whether it said so; it is
  /// not asked again then
  bool RunUntil(const std::function<bool()>& done);

  TestMemory& ram() { return memory_; }
  TestQueue& side(unsigned queue) { return *sides_[queue]; }
  unsigned interrupts(unsigned queue) const { return interrupts_[queue]; }
  unsigned config_changes() const { return config_changes_; }
  /// What NeedsReset() said last; empty: nothing.
  const std::string& needs_reset() const { return needs_reset_; }

  std::uint64_t features() const noexcept override { return features_; }
  bool restored() const noexcept override { return restored_; }
  DeviceQueue& queue(unsigned index) override { return *queues_[index]; }
  const AddressSpace& memory() const noexcept override { return memory_.space(); }
  void ConfigChanged() noexcept override { ++config_changes_; }
  void NeedsReset(const Error& why) noexcept override { needs_reset_ = why.ToString(); }

 private:
  Result<std::unique_ptr<TransportQueue>> MakeQueue(unsigned index);

  Device* device_;
  EventLoop& loop_;
  const std::uint64_t features_;
  TestMemory memory_;
  std::vector<std::unique_ptr<TestQueue>> sides_;
  std::vector<std::unique_ptr<TransportQueue>> queues_;
  std::vector<unsigned> interrupts_;
  std::atomic<unsigned> config_changes_ = 0;
  std::string needs_reset_;
  bool started_ = false;
  bool restored_ = false;
};

/// `text` as bytes, and back.
std::vector<std::byte> BytesOf(std::string_view text);
template <typename T>
std::vector<std::byte> BytesOfValue(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

}  // namespace holdfast::devices::virtio
