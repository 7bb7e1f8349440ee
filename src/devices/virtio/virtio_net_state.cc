// SPDX-License-Identifier: Apache-2.0
// What a network card is saved as.
#include <array>
#include <utility>

#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_net_regs.h"

namespace holdfast::devices::virtio {
namespace {

constexpr std::size_t kVlanBytes = 4096 / 8;

}  // namespace

// Buffers that wait for a frame.
void VirtioNet::GiveBuffersBack() {
  for (unsigned pair = 0; pair < most_pairs_; ++pair) {
    Pair& mine = pairs_[pair];
    for (Chain& buffer : std::exchange(mine.buffers, {})) RxQueue(pair).Requeue(std::move(buffer));
    mine.room = 0;
  }
}

void VirtioNet::VisitFilter(state::Fields& fields) {
  net::RxFilter filter = filter_;
  const auto visit_mac = [](state::Fields& each, net::MacAddress& mac) { each.Struct("mac", mac); };
  fields.Value("promiscuous", filter.promiscuous);
  fields.Value("all-unicast", filter.all_unicast);
  fields.Value("no-unicast", filter.no_unicast);
  fields.Value("all-multicast", filter.all_multicast);
  fields.Value("no-multicast", filter.no_multicast);
  fields.Value("no-broadcast", filter.no_broadcast);
  fields.Value("unicast-overflow", filter.unicast_overflow);
  fields.Value("multicast-overflow", filter.multicast_overflow);
  fields.Struct("main-mac", filter.main_mac);
  fields.List("unicast", filter.unicast, kMostMacs, visit_mac);
  fields.List("multicast", filter.multicast, kMostMacs, visit_mac);
  std::array<std::byte, kVlanBytes> vlans{};
  for (std::size_t i = 0; i < vlans_.size() && !fields.loading(); ++i) {
    if (vlans_[i]) vlans[i / 8] |= static_cast<std::byte>(1U << (i % 8));
  }
  fields.Bytes("vlans", vlans);
  if (!fields.loading() || !fields.ok()) return;
  filter_ = std::move(filter);
  for (std::size_t i = 0; i < vlans_.size(); ++i) {
    vlans_[i] = (vlans[i / 8] & static_cast<std::byte>(1U << (i % 8))) != std::byte{0};
  }
}

void VirtioNet::VisitState(state::Fields& fields) {
  net::MacAddress mac{};
  bool announces = false;
  {
    const MutexLock lock(mutex_);
    mac = driver_mac_;
    announces = (status_ & kStatusAnnounce) != 0;
  }
  unsigned pairs = active_pairs_;
  std::uint64_t offloads = offloads_;
  bool link = link_;
  fields.Struct("mac", mac);
  fields.Value("announces", announces);
  fields.Value("link", link);
  fields.Value("pairs", pairs);
  fields.Value("offloads", offloads);
  fields.Check(pairs <= most_pairs_, "it uses more pairs of queues than there are");
  fields.Check((offloads & ~std::uint64_t{net::kNetGuestOffloads}) == 0, "unknown offloads");
  VisitFilter(fields);
  if (!fields.loading() || !fields.ok()) return;
  active_pairs_ = pairs;
  offloads_ = offloads;
  link_ = link;
  {
    const MutexLock lock(mutex_);
    driver_mac_ = mac;
    status_ = static_cast<std::uint16_t>((status_ & ~kStatusAnnounce) |
                                         (announces ? kStatusAnnounce : 0));
  }
  TellStatus();
}

}  // namespace holdfast::devices::virtio
