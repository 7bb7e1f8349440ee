// SPDX-License-Identifier: Apache-2.0
// `-device virtio-net-pci`: its words, and what is made of them.
#include <fmt/format.h>

#include <bit>
#include <optional>
#include <string>

#include "devices/device_model.h"
#include "devices/vhost_user/front_end.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_pci.h"
#include "object/throttle_group.h"

namespace holdfast::devices::virtio {
namespace {

using object::Property;
using object::PropertyInfo;
using object::PropertyType;
using object::PropertyValue;

constexpr std::string_view kModel = "virtio-net-pci";
constexpr std::uint64_t kSmallestQueue = 256;
constexpr std::uint64_t kLargestQueue = 1024;
constexpr std::uint64_t kSmallestMtu = 68;  // of IPv4
constexpr std::string_view kDuplexWords[] = {"half", "full"};

struct Words {
  std::string netdev;
  std::string throttle_group;
  std::optional<net::MacAddress> mac;
  VirtioNet::Config config;
  std::uint64_t rx_queue_size = kSmallestQueue;
  std::uint64_t tx_queue_size = kSmallestQueue;
  std::uint64_t mtu = 0;
};

// What a driver is offered unless the user says otherwise; mq=on asks for the one that is missing.
constexpr std::uint64_t kDefaultFeatures =
    net::kNetHostOffloads | net::kNetGuestOffloads | net::kNetMac | net::kNetMergeableBuffers |
    net::kNetStatus | net::kNetControlQueue | net::kNetControlRx | net::kNetControlVlan |
    net::kNetControlRxExtra | net::kNetControlMac | net::kNetControlGuestOffloads |
    net::kNetGuestAnnounce;

template <std::uint64_t Feature>
Status SetFeature(Words& words, const PropertyValue& value) {
  std::uint64_t& features = words.config.features;
  features = std::get<bool>(value) ? features | Feature : features & ~Feature;
  return {};
}
template <std::uint64_t Feature>
constexpr Property<Words> FeatureProperty(std::string_view name, std::string_view description) {
  return {{.name = name,
           .type = PropertyType::kBool,
           .default_text = (kDefaultFeatures & Feature) != 0 ? "on" : "off",
           .description = description},
          SetFeature<Feature>};
}

Status SetMac(Words& words, const PropertyValue& value) {
  const auto& text = std::get<std::string>(value);
  net::MacAddress mac{};
  if (!net::ReadMac(text, mac)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Property '{}.mac' doesn't take value '{}'", kModel, text),
                "Write six hexadecimal bytes, for example 52:54:00:12:34:56.");
  }
  words.mac = mac;
  return {};
}
Status SetSpeed(Words& words, const PropertyValue& value) {
  words.config.speed = static_cast<std::uint32_t>(std::get<std::uint64_t>(value));
  words.config.features |= net::kNetSpeedDuplex;
  return {};
}
Status SetDuplex(Words& words, const PropertyValue& value) {
  words.config.duplex = static_cast<std::uint8_t>(std::get<std::uint64_t>(value));
  words.config.features |= net::kNetSpeedDuplex;
  return {};
}

constexpr Property<Words> kProperties[] = {
    {{.name = "netdev", .description = "id of the network back end"},
     object::SetField<&Words::netdev>},
    {{.name = "mac", .description = "Ethernet address; without it the next of 52:54:00:12:34:56"},
     SetMac},
    FeatureProperty<net::kNetMultiQueue>("mq", "one pair of queues for each of the back end's"),
    {{.name = "rx_queue_size",
      .type = PropertyType::kUint,
      .default_text = "256",
      .description = "entries of a receive queue",
      .max = UINT16_MAX},
     object::SetField<&Words::rx_queue_size>},
    {{.name = "tx_queue_size",
      .type = PropertyType::kUint,
      .default_text = "256",
      .description = "entries of a transmit queue",
      .max = UINT16_MAX},
     object::SetField<&Words::tx_queue_size>},
    {{.name = "host_mtu",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "the MTU that the driver is told; 0: none",
      .max = UINT16_MAX},
     object::SetField<&Words::mtu>},
    {{.name = "speed",
      .type = PropertyType::kUint,
      .description = "the link's speed in Mb/s that the driver is told",
      .max = INT32_MAX},
     SetSpeed},
    {{.name = "duplex",
      .type = PropertyType::kEnum,
      .description = "the link's duplex that the driver is told",
      .choices = kDuplexWords},
     SetDuplex},
    {{.name = "throttle-group",
      .type = PropertyType::kString,
      .description = "id of a throttle-group object: frames to the guest are its reads, frames "
                     "from the guest its writes"},
     object::SetField<&Words::throttle_group>},
    FeatureProperty<net::kNetCsum>("csum", "the driver may leave checksums to the host"),
    FeatureProperty<net::kNetGuestCsum>("guest_csum", "the host may leave them to the driver"),
    FeatureProperty<net::kNetHostTso4>("host_tso4", "the driver may send large TCP segments"),
    FeatureProperty<net::kNetHostTso6>("host_tso6", "the same over IPv6"),
    FeatureProperty<net::kNetHostEcn>("host_ecn", "the same with ECN"),
    FeatureProperty<net::kNetHostUfo>("host_ufo", "the driver may send large UDP datagrams"),
    FeatureProperty<net::kNetHostUso>("host_uso", "the driver may send large UDP segments"),
    FeatureProperty<net::kNetGuestTso4>("guest_tso4", "the driver takes large TCP segments"),
    FeatureProperty<net::kNetGuestTso6>("guest_tso6", "the same over IPv6"),
    FeatureProperty<net::kNetGuestEcn>("guest_ecn", "the same with ECN"),
    FeatureProperty<net::kNetGuestUfo>("guest_ufo", "the driver takes large UDP datagrams"),
    FeatureProperty<net::kNetGuestUso4>("guest_uso4", "the driver takes large UDP segments"),
    FeatureProperty<net::kNetGuestUso6>("guest_uso6", "the same over IPv6"),
    FeatureProperty<net::kNetMergeableBuffers>("mrg_rxbuf", "a frame may fill several buffers"),
    FeatureProperty<net::kNetStatus>("status", "the driver sees whether there is a link"),
    FeatureProperty<net::kNetGuestAnnounce>("guest_announce",
                                            "the driver announces itself where asked"),
    FeatureProperty<net::kNetControlQueue>("ctrl_vq", "there is a control queue"),
    FeatureProperty<net::kNetControlRx>("ctrl_rx", "the driver sets which frames it wants"),
    FeatureProperty<net::kNetControlRxExtra>("ctrl_rx_extra", "more kinds of them"),
    FeatureProperty<net::kNetControlVlan>("ctrl_vlan", "which virtual LANs"),
    FeatureProperty<net::kNetControlMac>("ctrl_mac_addr", "the driver sets its address"),
    FeatureProperty<net::kNetControlGuestOffloads>("ctrl_guest_offloads",
                                                   "the driver turns offloads off and on"),
};
constexpr std::string_view kQemuOnly[] = {
    "any_layout",    "bootindex", "ebpf-rss-fds", "failover",  "gso",
    "guest_rsc_ext", "hash",      "romfile",      "rombar",    "rsc_interval",
    "rss",           "tx",        "x-txburst",    "x-txtimer", "x-mtu-bypass-backend"};

Status CheckQueueSize(std::string_view name, std::uint64_t size) {
  if (size >= kSmallestQueue && size <= kLargestQueue && std::has_single_bit(size)) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("Invalid {} (= {}), must be a power of 2 between {} and {}", name, size,
                          kSmallestQueue, kLargestQueue),
              fmt::format("For example {}={}.", name, kLargestQueue));
}

Result<Words> Parse(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  Words words;
  words.config.features = kDefaultFeatures;
  HF_TRY_STATUS(object::SetProperties<Words>(kProperties, kQemuOnly, words, own));
  HF_TRY_STATUS(CheckQueueSize("rx_queue_size", words.rx_queue_size));
  HF_TRY_STATUS(CheckQueueSize("tx_queue_size", words.tx_queue_size));
  if (words.mtu != 0 && words.mtu < kSmallestMtu) {
    return Fail(Errc::kInvalidArgument, fmt::format("host_mtu={} is too small", words.mtu),
                fmt::format("It is {} to 65535, or 0 for none.", kSmallestMtu));
  }
  VirtioNet::Config& config = words.config;
  config.rx_queue_size = static_cast<std::uint16_t>(words.rx_queue_size);
  config.tx_queue_size = static_cast<std::uint16_t>(words.tx_queue_size);
  config.mtu = static_cast<std::uint16_t>(words.mtu);
  if (config.mtu != 0) config.features |= net::kNetMtu;
  return words;
}

Result<std::shared_ptr<object::Throttle>> FindThrottle(const DeviceEnvironment& environment,
                                                       const std::string& id) {
  const object::ObjectStore* const objects = environment.backends.objects;
  const auto* const group =
      objects == nullptr ? nullptr : dynamic_cast<const object::ThrottleGroup*>(objects->Find(id));
  if (group != nullptr) return group->throttle();
  return Fail(Errc::kInvalidArgument,
              fmt::format("Property '{}.throttle-group' can't find value '{}'", kModel, id),
              fmt::format("Make it with -object throttle-group,id={},x-bps-total=N.", id));
}

Result<std::unique_ptr<pci::Function>> Make(const DeviceEnvironment& environment,
                                            std::string_view id, const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(Words words, Parse(values, options));
  net::Network* const network = environment.backends.network;
  net::NetBackend* backend = nullptr;
  if (network != nullptr && !words.netdev.empty()) backend = network->Find(words.netdev);
  if (network == nullptr || (backend == nullptr && !words.netdev.empty())) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Property '{}.netdev' can't find value '{}'", kModel, words.netdev),
                fmt::format("Make it with -netdev user,id={}.", words.netdev));
  }
  if (!words.throttle_group.empty()) {
    HF_TRY(words.config.throttle, FindThrottle(environment, words.throttle_group));
    if (backend != nullptr && backend->vhost(0) != nullptr) {
      return Fail(Errc::kUnsupported,
                  fmt::format("throttle-group={} has no effect on a back end with vhost=on",
                              words.throttle_group),
                  "Leave one of the two out: the kernel knows no limits.");
    }
    if (backend != nullptr && backend->vhost_user() != nullptr) {
      return Fail(Errc::kUnsupported,
                  fmt::format("throttle-group={} has no effect on -netdev vhost-user",
                              words.throttle_group),
                  "Leave it out: the frames do not come past here.");
    }
  }
  if (backend != nullptr && backend->vhost_user() != nullptr) {
    HF_TRY_STATUS(vhost_user::CheckMemory(environment.memory));
  }
  words.config.named = !id.empty();
  words.config.name = id.empty() ? network->NextName(kModel) : std::string(id);
  words.config.mac = words.mac ? *words.mac : network->NextMac();
  HF_TRY(std::unique_ptr<VirtioNet> card,
         VirtioNet::Create(environment.loop, *network, backend, std::move(words.config)));
  return MakeVirtioPci(environment, id, kModel, options, std::move(card));
}

}  // namespace

constexpr DeviceModel kVirtioNetPci = {
    .name = kModel,
    .description = "network card",
    .properties =
        [] { return WithTransportProperties({std::begin(kProperties), std::end(kProperties)}); },
    .check = [](const object::KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(Parse(values, options));
      return {};
    },
    .create = Make,
};

}  // namespace holdfast::devices::virtio
