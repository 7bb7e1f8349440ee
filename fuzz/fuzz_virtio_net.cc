// SPDX-License-Identifier: Apache-2.0
// The network card against a driver that puts anything into its buffers, with a back end that
// sometimes has no room and sends frames of any size.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "devices/net/network.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_net.h"

namespace {

using namespace holdfast;
using namespace holdfast::devices;

constexpr unsigned kPairs = 2;
constexpr std::size_t kMostSteps = 200;

class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t byte = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  std::uint32_t Size() { return Byte() | static_cast<std::uint32_t>(Byte() & 7) << 8; }
  std::vector<std::byte> Bytes(std::size_t size) {
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes) byte = std::byte{Byte()};
    return bytes;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

class Backend final : public net::NetBackend {
 public:
  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override { return {}; }
  unsigned queue_pairs() const noexcept override { return kPairs; }
  std::uint64_t offloads() const noexcept override {
    return net::kNetHostOffloads | net::kNetGuestOffloads;
  }
  Status Attach(unsigned pair, EventLoop&, Receiver receiver) override {
    receivers_[pair] = std::move(receiver);
    return {};
  }
  void Detach(unsigned pair) override { receivers_[pair] = nullptr; }
  void ReceiverReady(unsigned pair) override {
    if (!held_.empty() && Offer(pair, held_)) held_.clear();
  }
  bool Send(unsigned, std::span<const iovec> packet) override {
    if (!room) return false;
    // Reads all of it, as a system call would.
    std::vector<std::byte> all;
    net::AppendBytes(packet, 0, all);
    if (all.size() < net::kHeaderSize) std::abort();
    return true;
  }
  void SetWritable(unsigned pair, std::function<void()> writable) override {
    writable_[pair] = std::move(writable);
  }
  void Arrive(unsigned pair, std::vector<std::byte> packet) {
    if (held_.empty() && !Offer(pair, packet)) held_ = std::move(packet);
  }
  void MakeRoom() {
    room = true;
    for (const auto& writable : writable_) {
      if (writable) writable();
    }
  }
  bool room = true;

 private:
  bool Offer(unsigned pair, std::vector<std::byte>& packet) {
    const iovec piece = {packet.data(), packet.size()};
    return !receivers_[pair] || receivers_[pair]({&piece, 1});
  }
  const std::string id_ = "net0";
  Receiver receivers_[kPairs];
  std::function<void()> writable_[kPairs];
  std::vector<std::byte> held_;
};

void Step(Input& input, virtio::VirtioNet& card, virtio::TestDriver& driver, Backend& backend) {
  const std::uint8_t what = input.Byte();
  const unsigned queue = what % 5;
  switch (what >> 5) {
    case 0:
      backend.room = false;
      break;
    case 1:
      backend.MakeRoom();
      break;
    case 2: {
      std::vector<std::byte> packet = input.Bytes(net::kHeaderSize + 20);
      packet.resize(net::kHeaderSize + 1 + input.Size() * 32);
      backend.Arrive(queue % kPairs, std::move(packet));
      break;
    }
    case 3:
      card.SetLink((what & 1) != 0);
      break;
    default: {
      std::vector<virtio::TestBuffer> buffers;
      for (unsigned i = 0; i <= (what >> 3 & 3U); ++i) {
        const std::uint32_t size = input.Size();
        const bool writable = (size & 1) != 0;
        const auto some = input.Bytes(writable ? 0 : std::min<std::uint32_t>(size, 64));
        const GuestAddress at = driver.ram().Allocate(size + 64);
        std::ranges::copy(some,
                          driver.ram().bytes().begin() + static_cast<std::ptrdiff_t>(at.value()));
        buffers.push_back({at, size, writable});
      }
      driver.Send(queue, buffers);
      for (unsigned i = 0; i < 5; ++i) {
        while (driver.Take(i)) {
        }
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  Input input({data, size});
  net::Network network(*loop, {});
  auto made = std::make_unique<Backend>();
  Backend& backend = *made;
  if (!network.Add("fake", std::move(made))) std::abort();
  const std::uint8_t flags = input.Byte();
  virtio::VirtioNet::Config config{.name = "nic", .features = ~0ULL >> 8};
  auto card = virtio::VirtioNet::Create(*loop, network, &backend, config);
  if (!card) std::abort();
  std::uint64_t features = ~0ULL;
  if ((flags & 1) != 0) features &= ~virtio::kFeatureRingPacked;
  if ((flags & 2) != 0) features &= ~net::kNetMergeableBuffers;
  if ((flags & 4) != 0) features &= ~net::kNetMultiQueue;
  if ((flags & 8) != 0) features &= ~virtio::kFeatureEventIndex;
  {
    virtio::TestDriver driver(**card, *loop, features);
    if (!driver.Start(16)) return 0;
    for (std::size_t i = 0; i < kMostSteps && !input.empty(); ++i) {
      Step(input, **card, driver, backend);
    }
    if (!loop->RunOnce(std::chrono::milliseconds(0))) std::abort();
    if ((flags & 16) != 0 && !network.Remove("net0")) std::abort();
  }
  card->reset();
  // What the card posted for later must not meet it dead.
  if (!loop->RunOnce(std::chrono::milliseconds(0))) std::abort();
  return 0;
}
