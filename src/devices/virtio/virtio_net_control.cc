// SPDX-License-Identifier: Apache-2.0
// The control queue of the network card, and the filter that it sets.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_net_regs.h"

namespace holdfast::devices::virtio {
namespace {

using net::MacAddress;

constexpr std::size_t kRequestHeader = 2;  // class and command
constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kWithVlanTag = 16;
constexpr MacAddress kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

template <typename Value>
std::optional<Value> ReadLittle(std::span<const std::byte> data) {
  if (data.size() < sizeof(Value)) return std::nullopt;
  Value value = 0;
  for (std::size_t i = 0; i < sizeof(Value); ++i) {
    value =
        static_cast<Value>(value | static_cast<Value>(std::to_integer<Value>(data[i]) << (8 * i)));
  }
  return value;
}

bool Contains(const std::vector<MacAddress>& table, const MacAddress& mac) {
  return std::ranges::find(table, mac) != table.end();
}

}  // namespace

// Whether the driver wants this frame.
bool VirtioNet::Passes(std::span<const iovec> packet) const {
  if (filter_.promiscuous) return true;
  std::array<std::byte, net::kHeaderSize + kWithVlanTag> head{};
  std::size_t size = 0;
  for (const iovec& piece : packet) {
    const std::size_t some = std::min(piece.iov_len, head.size() - size);
    std::memcpy(head.data() + size, piece.iov_base, some);
    size += some;
    if (size == head.size()) break;
  }
  const std::span<const std::byte> frame = std::span(head).first(size).subspan(net::kHeaderSize);
  if (frame.size() < kEthernetHeader) return false;
  if (filter_.filters_vlans && frame.size() >= kWithVlanTag && frame[12] == std::byte{0x81} &&
      frame[13] == std::byte{0x00}) {
    const unsigned vlan = std::to_integer<unsigned>(frame[14] & std::byte{0x0f}) << 8 |
                          std::to_integer<unsigned>(frame[15]);
    if (!vlans_[vlan]) return false;
  }
  MacAddress to{};
  std::memcpy(to.data(), frame.data(), to.size());
  if ((to[0] & 1) != 0) {
    if (to == kBroadcast) return !filter_.no_broadcast;
    if (filter_.no_multicast) return false;
    return filter_.all_multicast || filter_.multicast_overflow || Contains(filter_.multicast, to);
  }
  if (filter_.no_unicast) return false;
  return filter_.all_unicast || filter_.unicast_overflow || to == filter_.main_mac ||
         Contains(filter_.unicast, to);
}

void VirtioNet::HandleControl() {
  DeviceQueue& queue = transport_->queue(control_index_);
  while (std::optional<Chain> request = queue.Pop()) {
    if (request->readable.size() < kRequestHeader || request->writable.empty()) {
      Broken("a control request without header, or without room for the answer");
      return;
    }
    const std::byte ack{Control(*request)};
    request->writable.CopyIn(0, {&ack, 1});
    queue.Complete(*request, 1);
  }
}

VirtioNet::Ack VirtioNet::Control(const Chain& request) {
  std::array<std::byte, kRequestHeader> header{};
  request.readable.CopyOut(0, header);
  const auto command = std::to_integer<std::uint8_t>(header[1]);
  // All but the table of addresses fit into this.
  std::array<std::byte, 8> bytes{};
  const std::size_t size = request.readable.CopyOut(kRequestHeader, bytes);
  const std::span<const std::byte> data = std::span(bytes).first(size);
  switch (std::to_integer<std::uint8_t>(header[0])) {
    case kControlRx:
      return ControlRx(command, data);
    case kControlMac:
      return ControlMac(command, request);
    case kControlVlan:
      return ControlVlan(command, data);
    case kControlAnnounce:
      return ControlAnnounce(command);
    case kControlQueues:
      return ControlQueues(command, data);
    case kControlOffloads:
      return ControlOffloads(command, data);
    default:
      return kControlError;
  }
}

VirtioNet::Ack VirtioNet::ControlRx(std::uint8_t command, std::span<const std::byte> data) {
  const bool extra = command > kRxAllMulticast;
  if (data.empty() || !transport_->has(extra ? net::kNetControlRxExtra : net::kNetControlRx)) {
    return kControlError;
  }
  const bool on = data[0] != std::byte{0};
  switch (command) {
    case kRxPromiscuous:
      filter_.promiscuous = on;
      break;
    case kRxAllMulticast:
      filter_.all_multicast = on;
      break;
    case kRxAllUnicast:
      filter_.all_unicast = on;
      break;
    case kRxNoMulticast:
      filter_.no_multicast = on;
      break;
    case kRxNoUnicast:
      filter_.no_unicast = on;
      break;
    case kRxNoBroadcast:
      filter_.no_broadcast = on;
      break;
    default:
      return kControlError;
  }
  FilterChanged();
  return kControlOk;
}

VirtioNet::Ack VirtioNet::ControlMac(std::uint8_t command, const Chain& request) {
  std::uint64_t at = kRequestHeader;
  const auto take = [&](std::span<std::byte> to) {
    const bool whole = request.readable.CopyOut(at, to) == to.size();
    at += to.size();
    return whole;
  };
  MacAddress mac{};
  if (command == kMacAddressSet) {
    if (!transport_->has(net::kNetControlMac) ||
        request.readable.size() != kRequestHeader + mac.size() ||
        !take(std::as_writable_bytes(std::span(mac)))) {
      return kControlError;
    }
    filter_.main_mac = mac;
    {
      const MutexLock lock(mutex_);
      driver_mac_ = mac;
    }
    FilterChanged();
    return kControlOk;
  }
  if (command != kMacTableSet || !transport_->has(net::kNetControlRx)) return kControlError;
  // Two tables, each with its count in front: unicast, then multicast.
  std::vector<MacAddress> tables[2];
  bool overflow[2] = {};
  for (int i = 0; i < 2; ++i) {
    std::array<std::byte, 4> count_bytes{};
    if (!take(count_bytes)) return kControlError;
    const std::uint64_t count = *ReadLittle<std::uint32_t>(count_bytes);
    if (count * mac.size() > request.readable.size() - at) return kControlError;
    overflow[i] = count + tables[0].size() > kMostMacs;
    if (overflow[i]) {
      at += count * mac.size();
      continue;
    }
    for (std::uint64_t j = 0; j < count; ++j) {
      if (!take(std::as_writable_bytes(std::span(mac)))) return kControlError;
      tables[i].push_back(mac);
    }
  }
  if (at != request.readable.size()) return kControlError;
  filter_.unicast = std::move(tables[0]);
  filter_.multicast = std::move(tables[1]);
  filter_.unicast_overflow = overflow[0];
  filter_.multicast_overflow = overflow[1];
  FilterChanged();
  return kControlOk;
}

VirtioNet::Ack VirtioNet::ControlVlan(std::uint8_t command, std::span<const std::byte> data) {
  const std::optional<std::uint16_t> vlan = ReadLittle<std::uint16_t>(data);
  if (!transport_->has(net::kNetControlVlan) || !vlan || *vlan >= vlans_.size() ||
      command > kVlanDelete) {
    return kControlError;
  }
  vlans_[*vlan] = command == kVlanAdd;
  FilterChanged();
  return kControlOk;
}

VirtioNet::Ack VirtioNet::ControlAnnounce(std::uint8_t command) {
  const MutexLock lock(mutex_);
  if (command != kAnnounceAcknowledge || (status_ & kStatusAnnounce) == 0) return kControlError;
  status_ &= static_cast<std::uint16_t>(~kStatusAnnounce);
  return kControlOk;
}

VirtioNet::Ack VirtioNet::ControlQueues(std::uint8_t command, std::span<const std::byte> data) {
  const std::optional<std::uint16_t> pairs = ReadLittle<std::uint16_t>(data);
  if (command != kQueuePairsSet || !transport_->has(net::kNetMultiQueue) || !pairs || *pairs == 0 ||
      *pairs > most_pairs_) {
    return kControlError;
  }
  const unsigned before = active_pairs_;
  if (!AttachPairs(*pairs)) return kControlError;
  // Kicks of before were not for pairs in use.
  for (unsigned pair = before; pair < *pairs; ++pair) {
    HandleQueue(2 * pair);
    HandleQueue(2 * pair + 1);
  }
  return kControlOk;
}

VirtioNet::Ack VirtioNet::ControlOffloads(std::uint8_t command, std::span<const std::byte> data) {
  const std::optional<std::uint64_t> wanted = ReadLittle<std::uint64_t>(data);
  if (command != kOffloadsSet || !transport_->has(net::kNetControlGuestOffloads) || !wanted) {
    return kControlError;
  }
  const std::uint64_t agreed = transport_->features() & net::kNetGuestOffloads;
  if ((*wanted & ~agreed) != 0 || backend_ == nullptr) return kControlError;
  if (!backend_->SetOffloads(*wanted)) return kControlError;
  offloads_ = *wanted;
  return kControlOk;
}

void VirtioNet::FilterChanged() {
  if (std::exchange(filter_notified_, true)) return;
  nlohmann::json data = {{"path", fmt::format("/machine/peripheral{}/{}/virtio-backend",
                                              config_.named ? "" : "-anon", config_.name)}};
  if (config_.named) data["name"] = config_.name;
  network_.Emit("NIC_RX_FILTER_CHANGED", data);
}

net::RxFilter VirtioNet::rx_filter() {
  filter_notified_ = false;
  net::RxFilter filter = filter_;
  for (std::size_t i = 0; i < vlans_.size(); ++i) {
    if (vlans_[i]) filter.vlans.push_back(static_cast<std::uint16_t>(i));
  }
  return filter;
}

}  // namespace holdfast::devices::virtio
