// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_net.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/event_loop.h"
#include "base/log.h"
#include "devices/net/vhost_user_backend.h"
#include "devices/virtio/virtio_net_regs.h"

namespace holdfast::devices::virtio {
namespace {

using net::kHeaderSize;

constexpr unsigned kFramesARound = 256;  // sent before others have their turn
constexpr std::uint16_t kControlQueueSize = 64;
constexpr unsigned kVlans = 4096;

// What makes no sense without another feature (5.1.3.1).
struct Dependency {
  std::uint64_t feature;
  std::uint64_t needs;
};
constexpr Dependency kDependencies[] = {
    {net::kNetGuestTso4 | net::kNetGuestTso6 | net::kNetGuestUfo | net::kNetGuestUso4 |
         net::kNetGuestUso6,
     net::kNetGuestCsum},
    {net::kNetHostTso4 | net::kNetHostTso6 | net::kNetHostUfo | net::kNetHostUso, net::kNetCsum},
    {net::kNetControlRx | net::kNetControlVlan | net::kNetGuestAnnounce | net::kNetMultiQueue |
         net::kNetControlMac | net::kNetControlGuestOffloads,
     net::kNetControlQueue},
    {net::kNetControlRxExtra, net::kNetControlRx},
};

std::uint64_t Consistent(std::uint64_t features) {
  for (const auto& [feature, needs] : kDependencies) {
    if ((features & needs) == 0) features &= ~feature;
  }
  return features;
}

}  // namespace

Result<std::unique_ptr<VirtioNet>> VirtioNet::Create(EventLoop& loop, net::Network& network,
                                                     net::NetBackend* backend, Config config) {
  std::unique_ptr<VirtioNet> card(new VirtioNet(loop, network, backend, std::move(config)));
  HF_TRY_STATUS(network.AddNic(*card));
  card->registered_ = true;
  return card;
}

VirtioNet::VirtioNet(EventLoop& loop, net::Network& network, net::NetBackend* backend,
                     Config config)
    : loop_(loop),
      network_(network),
      backend_(backend),
      config_(std::move(config)),
      mac_(config_.mac),
      driver_mac_(config_.mac) {
  constexpr std::uint64_t kNeedBackend = net::kNetHostOffloads | net::kNetGuestOffloads;
  features_ = config_.features & (~kNeedBackend | (backend == nullptr ? 0 : backend->offloads()));
  const unsigned queues = backend == nullptr ? 1 : backend->queue_pairs();
  const std::uint64_t several = net::kNetMultiQueue | net::kNetControlQueue;
  if (queues > 1 && (features_ & several) == several) {
    most_pairs_ = queues;
  } else {
    features_ &= ~net::kNetMultiQueue;
  }
  if ((features_ & net::kNetGuestOffloads) == 0) features_ &= ~net::kNetControlGuestOffloads;
  AgreeWithKernel();
  AgreeWithProcess();
  features_ = Consistent(features_);
  for (unsigned i = 0; i < most_pairs_; ++i) {
    queue_sizes_.push_back(config_.rx_queue_size);
    queue_sizes_.push_back(config_.tx_queue_size);
  }
  if ((features_ & net::kNetControlQueue) != 0) queue_sizes_.push_back(kControlQueueSize);
  pairs_.resize(most_pairs_);
  ResetFilter();
  TellStatus();
}

VirtioNet::~VirtioNet() {
  Reset();
  if (kernel_error_.valid()) loop_.RemoveFd(kernel_error_.get());
  if (Process() != nullptr) Process()->SetOnChange({});
  if (registered_) network_.RemoveNic(*this);
}

void VirtioNet::ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept {
  NetRegisters registers{};
  {
    const MutexLock lock(mutex_);
    std::ranges::copy(driver_mac_, registers.mac);
    registers.status = status_;
  }
  registers.max_virtqueue_pairs = static_cast<std::uint16_t>(most_pairs_);
  registers.mtu = config_.mtu;
  registers.speed = config_.speed;
  registers.duplex = config_.duplex;
  const auto bytes = std::as_bytes(std::span(&registers, 1));
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] = offset < bytes.size() && i < bytes.size() - offset ? bytes[offset + i] : std::byte{0};
  }
}

void VirtioNet::ResetFilter() {
  filter_ = {};
  filter_.promiscuous = true;  // until the driver says what it wants
  filter_.main_mac = mac_;
  vlans_.assign(kVlans, false);
}

Status VirtioNet::Activate(Transport& transport) {
  transport_ = &transport;
  life_ = std::make_shared<int>();
  const bool restored = transport.restored();
  const std::uint64_t most_offloads = Consistent(transport.features()) & net::kNetGuestOffloads;
  offloads_ = restored ? offloads_ & most_offloads : most_offloads;
  if (!restored) ResetFilter();
  filter_.filters_vlans = transport.has(net::kNetControlVlan);
  // Without several pairs there is only the first, and the control queue follows it.
  control_index_ = transport.has(net::kNetMultiQueue) ? 2 * most_pairs_ : 2;
  if (backend_ == nullptr) return {};
  HF_TRY_STATUS(backend_->SetOffloads(offloads_));
  HF_TRY_STATUS(AttachPairs(restored ? std::max(active_pairs_, 1U) : 1));
  // The network may be another one, or have forgotten the guest.
  if (restored && !Announce() && transport.has(net::kNetStatus)) transport.ConfigChanged();
  return {};
}

Status VirtioNet::AttachPairs(unsigned count) {
  if (Process() != nullptr) {
    AttachToProcess(count);
    return {};
  }
  active_pairs_ = count;
  if (!running_) return {};
  for (unsigned pair = 0; pair < most_pairs_ && backend_ != nullptr; ++pair) {
    Pair& one = pairs_[pair];
    if (pair >= count) {
      DetachPair(pair);
      continue;
    }
    if (one.attached || (UsesKernel() && !link_)) continue;
    one.tx_waits = false;
    if (UsesKernel()) {
      HF_TRY_STATUS(StartKernel(pair));
      continue;
    }
    HF_TRY_STATUS(backend_->Attach(pair, loop_, [this, pair](std::span<const iovec> packet) {
      return Receive(pair, packet);
    }));
    one.attached = true;
    backend_->SetWritable(pair, [this, pair] {
      if (transport_ == nullptr || !std::exchange(pairs_[pair].tx_waits, false)) return;
      Transmit(pair);
    });
  }
  return {};
}

void VirtioNet::DetachPair(unsigned pair) noexcept {
  pairs_[pair].tx_waits = false;
  ForgetTurns(pairs_[pair]);
  if (!std::exchange(pairs_[pair].attached, false)) return;
  if (UsesKernel()) {
    StopKernel(pair);
  } else {
    backend_->SetWritable(pair, {});
  }
  backend_->Detach(pair);
}

// Nobody serves the pairs any more; how many are in use stays.
void VirtioNet::StandStill() noexcept {
  if (Process() != nullptr) Process()->Stop();
  for (unsigned pair = 0; backend_ != nullptr && pair < most_pairs_; ++pair) DetachPair(pair);
}

void VirtioNet::DetachPairs() noexcept {
  StandStill();
  active_pairs_ = 0;
}

void VirtioNet::SetRunning(bool running) noexcept {
  running_ = running;
  if (transport_ == nullptr) return;
  if (!running) {
    if (ServedElsewhere()) StandStill();
    return GiveBuffersBack();
  }
  if (const Status attached = AttachPairs(active_pairs_); !attached) {
    return transport_->NeedsReset(attached.error());
  }
  // Whatever the driver did meanwhile, or what was left for a time of no link.
  for (unsigned index = 0; index < queue_sizes_.size(); ++index) {
    if (transport_->queue(index).ready()) HandleQueue(index);
  }
}

void VirtioNet::Reset() noexcept {
  if (backend_ != nullptr) DetachPairs();
  TakeMemoryBack();
  transport_ = nullptr;
  life_.reset();
  for (Pair& pair : pairs_) {
    ForgetTurns(pair);
    pair = Pair();
  }
  active_pairs_ = 0;
  ResetFilter();
  const MutexLock lock(mutex_);
  driver_mac_ = mac_;
  status_ &= static_cast<std::uint16_t>(~kStatusAnnounce);
}

void VirtioNet::Broken(std::string_view why) {
  transport_->NeedsReset(Error(Errc::kMalformed, std::string(why)));
}

void VirtioNet::HandleQueue(unsigned index) {
  if (transport_ == nullptr || !running_) return;
  if (index == control_index_ && transport_->has(net::kNetControlQueue)) return HandleControl();
  const unsigned pair = index / 2;
  if (pair >= most_pairs_ || pair >= std::max(active_pairs_, 1U)) return;
  if (ServedElsewhere() && pairs_[pair].attached) {
    // Kicks from before somebody else listened.
    (void)::eventfd_write(transport_->queue(index).kick_fd(), 1);
    return;
  }
  if (index % 2 == 1) {
    if (!pairs_[pair].tx_waits) Transmit(pair);
    return;
  }
  RxQueue(pair).DisableKicks();
  if (backend_ != nullptr && pairs_[pair].attached) backend_->ReceiverReady(pair);
}

// ---- Towards the guest ----

// Sees to it that the pair has buffers for `needed` bytes. Those that are too few stay with it: the
// driver's kicks count from the last one taken.
VirtioNet::Room VirtioNet::TakeBuffers(unsigned pair, std::size_t needed) {
  Pair& mine = pairs_[pair];
  DeviceQueue& queue = RxQueue(pair);
  const bool mergeable = transport_->has(net::kNetMergeableBuffers);
  while (mine.room < needed) {
    // A frame that one buffer must hold, or that is more than the whole ring.
    if (!mine.buffers.empty() && (!mergeable || mine.buffers.size() >= queue.layout().size)) {
      return Room::kNever;
    }
    std::optional<Chain> chain = queue.Pop();
    if (!chain) {
      if (!queue.EnableKicks()) return Room::kLater;
      queue.DisableKicks();
      continue;
    }
    const std::uint64_t size = chain->writable.size();
    if (size == 0 || (mine.buffers.empty() && size < kHeaderSize)) {
      Broken(fmt::format("a receive buffer of {} bytes, too short for the header", size));
      return Room::kNever;
    }
    mine.room += size;
    mine.buffers.push_back(*std::move(chain));
  }
  return Room::kEnough;
}

bool VirtioNet::Receive(unsigned pair, std::span<const iovec> header_and_frame) {
  if (!running_) return false;
  const std::size_t needed = net::SizeOf(header_and_frame);
  if (transport_ == nullptr || !link() || needed <= kHeaderSize || !RxQueue(pair).ready() ||
      !Passes(header_and_frame)) {
    return true;
  }
  switch (TakeBuffers(pair, needed)) {
    case Room::kLater:
      return false;
    case Room::kNever:
      return true;
    case Room::kEnough:
      break;
  }
  if (MustWait(pair, false, needed - kHeaderSize)) return false;
  std::array<std::byte, kHeaderSize> header{};
  std::size_t filled = 0;
  for (const iovec& piece : header_and_frame) {
    const std::size_t size = std::min(piece.iov_len, kHeaderSize - filled);
    std::memcpy(header.data() + filled, piece.iov_base, size);
    filled += size;
    if (filled == kHeaderSize) break;
  }
  const std::vector<Chain>& buffers = pairs_[pair].buffers;
  std::size_t count = 0;
  for (std::uint64_t room = 0; room < needed; ++count) room += buffers[count].writable.size();
  // The kernel says "checksum verified" even to those who did not ask.
  if (!transport_->has(net::kNetGuestCsum)) header[0] = std::byte{0};
  header[kHeaderSize - 2] = static_cast<std::byte>(count & 0xff);
  header[kHeaderSize - 1] = static_cast<std::byte>(count >> 8);
  pieces_.assign(1, {header.data(), header.size()});
  net::SkipBytes(header_and_frame, kHeaderSize, pieces_);
  Fill(pair, count);
  return true;
}

// Copies pieces_ into the pair's first `count` buffers, which they fit into, and gives those back.
void VirtioNet::Fill(unsigned pair, std::size_t count) {
  Pair& mine = pairs_[pair];
  DeviceQueue& queue = RxQueue(pair);
  std::size_t buffer = 0;
  std::uint64_t at = 0;  // in it
  for (const iovec& piece : pieces_) {
    std::span<const std::byte> from(static_cast<const std::byte*>(piece.iov_base), piece.iov_len);
    for (;;) {
      const std::size_t copied = mine.buffers[buffer].writable.CopyIn(at, from);
      from = from.subspan(copied);
      at += copied;
      if (from.empty()) break;
      queue.Push(mine.buffers[buffer], static_cast<std::uint32_t>(at));
      ++buffer;
      at = 0;
    }
  }
  queue.Push(mine.buffers[buffer], static_cast<std::uint32_t>(at));
  const auto end = mine.buffers.begin() + static_cast<std::ptrdiff_t>(count);
  for (auto it = mine.buffers.begin(); it != end; ++it) mine.room -= it->writable.size();
  mine.buffers.erase(mine.buffers.begin(), end);
  queue.Notify();
}

// ---- From the guest ----

void VirtioNet::Transmit(unsigned pair) {
  if (!running_) return;  // SetRunning() asks again
  DeviceQueue& queue = TxQueue(pair);
  queue.DisableKicks();
  unsigned sent = 0;
  do {
    while (std::optional<Chain> chain = queue.Pop()) {
      if (chain->readable.size() < kHeaderSize) {
        Broken(
            fmt::format("a frame of {} bytes, too short for the header", chain->readable.size()));
        return;
      }
      bool& counted = pairs_[pair].tx_counted;
      const std::uint64_t bytes = chain->readable.size() - kHeaderSize;
      const bool its_turn = counted || !MustWait(pair, true, bytes);
      if (!its_turn || !SendOne(pair, *chain)) {
        counted = its_turn;
        queue.Unpop(*std::move(chain));
        pairs_[pair].tx_waits = true;
        queue.Notify();
        return;
      }
      counted = false;
      queue.Push(*chain, 0);
      if (++sent == kFramesARound) {
        queue.Notify();
        return ContinueLater(pair);
      }
    }
  } while (queue.EnableKicks());
  if (sent != 0) queue.Notify();
}

// @return false if the back end has no room
bool VirtioNet::SendOne(unsigned pair, const Chain& chain) {
  const std::uint64_t size = chain.readable.size();
  if (!link() || !pairs_[pair].attached || size <= kHeaderSize ||
      size > kHeaderSize + net::kLargestFrame) {
    return true;
  }
  std::array<std::byte, kHeaderSize> header{};
  chain.readable.CopyOut(0, header);
  // What was not agreed on means nothing.
  if (!transport_->has(net::kNetCsum)) header.fill(std::byte{0});
  header[kHeaderSize - 2] = header[kHeaderSize - 1] = std::byte{0};
  std::vector<iovec> packet = chain.readable.Slice(kHeaderSize, size - kHeaderSize);
  packet.insert(packet.begin(), {header.data(), header.size()});
  return backend_->Send(pair, packet);
}

// Whether the throttle holds a frame back; then it is asked again in time.
bool VirtioNet::MustWait(unsigned pair, bool transmit, std::uint64_t bytes) {
  if (config_.throttle == nullptr || !config_.throttle->enabled() || !link()) return false;
  const EventLoop::Clock::time_point now = EventLoop::Clock::now();
  const auto wait = config_.throttle->Take(transmit, bytes, now);
  if (wait == EventLoop::Clock::duration::zero()) return false;
  auto& turn = transmit ? pairs_[pair].tx_turn : pairs_[pair].rx_turn;
  if (turn) return true;
  turn = loop_.AddTimer(now + wait, [this, pair, transmit] {
    Pair& mine = pairs_[pair];
    (transmit ? mine.tx_turn : mine.rx_turn).reset();
    if (!transmit) {
      if (mine.attached) backend_->ReceiverReady(pair);
    } else if (std::exchange(mine.tx_waits, false)) {
      Transmit(pair);
    }
  });
  return true;
}

void VirtioNet::ForgetTurns(Pair& pair) noexcept {
  for (auto* turn : {&pair.rx_turn, &pair.tx_turn}) {
    if (*turn) loop_.CancelTimer(**turn);
    turn->reset();
  }
}

void VirtioNet::ContinueLater(unsigned pair) {
  pairs_[pair].tx_waits = true;
  loop_.Post([this, pair, life = std::weak_ptr<int>(life_)] {
    if (life.expired() || !std::exchange(pairs_[pair].tx_waits, false)) return;
    Transmit(pair);
  });
}

// ---- Link ----

void VirtioNet::TellStatus() {
  const MutexLock lock(mutex_);
  status_ = static_cast<std::uint16_t>((status_ & ~kStatusLinkUp) | (link() ? kStatusLinkUp : 0));
}

void VirtioNet::SetLink(bool up) {
  if (link_ == up) return;
  link_ = up;
  TellStatus();
  if (transport_ == nullptr) return;
  if (transport_->has(net::kNetStatus)) transport_->ConfigChanged();
  if (ServedElsewhere() && backend_ != nullptr) return SetServedLink(link());
  for (unsigned pair = 0; link() && pair < active_pairs_; ++pair) {
    if (pairs_[pair].attached) backend_->ReceiverReady(pair);
  }
}

void VirtioNet::DropBackend() {
  if (backend_ == nullptr) return;
  StandStill();
  TakeMemoryBack();
  if (Process() != nullptr) Process()->SetOnChange({});
  backend_ = nullptr;
  TellStatus();
  if (transport_ == nullptr) return;
  if (transport_->has(net::kNetStatus)) transport_->ConfigChanged();
  DropWaiting();
}

// What the driver has sent is given back and lost, as on a card without a cable.
void VirtioNet::DropWaiting() {
  for (unsigned pair = 0; pair < active_pairs_; ++pair) {
    if (TxQueue(pair).ready()) Transmit(pair);
  }
}

// The filter stays: it is the driver's, and names the address that the driver still has.
void VirtioNet::SetMac(const net::MacAddress& mac) {
  mac_ = mac;
  {
    const MutexLock lock(mutex_);
    driver_mac_ = mac;
  }
  if (transport_ == nullptr) return ResetFilter();
  if (!Announce() && transport_->has(net::kNetStatus)) transport_->ConfigChanged();
}

bool VirtioNet::Announce() {
  if (transport_ == nullptr || !transport_->has(net::kNetGuestAnnounce) || !link()) return false;
  {
    const MutexLock lock(mutex_);
    status_ |= kStatusAnnounce;
  }
  transport_->ConfigChanged();
  return true;
}

}  // namespace holdfast::devices::virtio
