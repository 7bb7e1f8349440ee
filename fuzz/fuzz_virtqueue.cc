// SPDX-License-Identifier: Apache-2.0
// Any bytes as the memory in which a guest keeps a virtqueue. The first three say which format and
// size; the rings and their buffers lie in what follows. Whatever is in there, every buffer that
// comes out must be memory of the guest, and the queue must come to an end.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "devices/virtio/queue.h"
#include "devices/virtio/test_driver.h"

namespace {

using holdfast::GuestAddress;
using holdfast::devices::virtio::Chain;
using holdfast::devices::virtio::Queue;
using holdfast::devices::virtio::QueueLayout;
using holdfast::devices::virtio::TestMemory;

constexpr std::uint64_t kMemory = 64 * 1024;

// Reads or writes a byte of each end of each piece: what lies outside is AddressSanitizer's to
// find.
void Touch(const TestMemory& memory, const holdfast::GuestIoVec& buffers, bool write) {
  const std::byte* const begin = memory.bytes().data();
  for (const iovec& piece : buffers.pieces()) {
    auto* const first = static_cast<std::byte*>(piece.iov_base);
    if (piece.iov_len == 0 || first < begin || first + piece.iov_len > begin + kMemory)
      std::abort();
    if (write) {
      first[0] = first[piece.iov_len - 1] = std::byte{0x5a};
    } else {
      volatile std::byte sink = first[0] | first[piece.iov_len - 1];
      (void)sink;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  static TestMemory memory(kMemory);
  const std::span<std::byte> ram = memory.bytes();
  std::ranges::fill(ram, std::byte{0});
  std::memcpy(ram.data(), data + 3, std::min<std::size_t>(size - 3, kMemory));

  QueueLayout layout;
  layout.packed = (data[0] & 1) != 0;
  layout.event_index = (data[0] & 2) != 0;
  layout.indirect = (data[0] & 4) != 0;
  layout.size = layout.packed ? data[1] : static_cast<std::uint16_t>(1U << (data[1] % 8));
  layout.descriptors = GuestAddress(0);
  layout.driver_area = GuestAddress(0x1000);
  layout.device_area = GuestAddress(0x1800);
  auto queue = Queue::Create(memory.space(), layout);
  if (!queue) return 0;

  std::vector<Chain> held;
  for (unsigned step = 0; step < 1000; ++step) {
    auto popped = queue->Pop();
    if (!popped || !*popped) break;
    Chain chain = std::move(**popped);
    Touch(memory, chain.readable, /*write=*/false);
    Touch(memory, chain.writable, /*write=*/true);
    switch ((data[2] + step) % 4) {
      case 0:
        held.push_back(std::move(chain));
        break;
      case 1:
        queue->Unpop(std::move(chain));
        if (auto again = queue->Pop(); again && *again) queue->Push(**again, 1);
        break;
      default:
        queue->Push(chain, static_cast<std::uint32_t>(chain.writable.size()));
        (void)queue->NeedsNotification();
    }
    if (step % 3 == 0) queue->DisableKicks();
    if (step % 5 == 0) (void)queue->EnableKicks();
  }
  for (const Chain& chain : held) queue->Push(chain, 0);
  return 0;
}
