// SPDX-License-Identifier: Apache-2.0
// vhost-user-blk-pci and vhost-user-fs-pci: what of each is ours and what is the back end's.
#include "devices/virtio/vhost_user_models.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "devices/virtio/virtio_pci.h"

namespace holdfast::devices::virtio {
namespace {

using object::Property;
using object::PropertyType;
using vhost_user::FrontEnd;

constexpr std::uint64_t kMostQueueSize = 1024;  // QEMU's limit
constexpr std::uint64_t kMostQueues = 64;

// virtio_blk_config (virtio 1.2, 5.2.4) up to write_zeroes_may_unmap and its padding: what back
// ends of all ages know.
constexpr std::uint32_t kBlkConfigSize = 60;
constexpr std::uint32_t kBlkWriteback = 32;
constexpr std::uint32_t kBlkNumQueues = 34;
constexpr std::uint64_t kBlkConfigWce = 1ULL << 11;
constexpr std::uint64_t kBlkMq = 1ULL << 12;
// SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, DISCARD, WRITE_ZEROES.
constexpr std::uint64_t kBlkFeatures = (1ULL << 1) | (1ULL << 2) | (1ULL << 4) | (1ULL << 5) |
                                       (1ULL << 6) | (1ULL << 9) | (1ULL << 10) | (1ULL << 13) |
                                       (1ULL << 14);

constexpr std::size_t kTagSize = 36;

Result<std::unique_ptr<FrontEnd>> Greet(vhost_user::Endpoint& endpoint, const AddressSpace& memory,
                                        bool has_config) {
  HF_TRY_STATUS(vhost_user::CheckMemory(memory));
  HF_TRY(UniqueFd socket, endpoint.Connect());
  return FrontEnd::Connect(std::move(socket), VhostUserDevice::ConnectOptions(has_config));
}

struct BlkWords : VhostUserBlkConfig {
  std::string chardev;
};
struct FsWords : VhostUserFsConfig {
  std::string chardev;
};

template <typename Words, typename Base, auto Member>
Status SetBase(Words& words, const object::PropertyValue& value) {
  return object::SetFieldOf<Base, Member>(words, value);
}

constexpr Property<BlkWords> kBlkProperties[] = {
    {{.name = "chardev", .description = "id of a -chardev socket that the back end listens on"},
     object::SetField<&BlkWords::chardev>},
    {{.name = "num-queues",
      .type = PropertyType::kUint,
      .default_text = "the back end's",
      .description = "queues",
      .max = kMostQueues},
     SetBase<BlkWords, VhostUserBlkConfig, &VhostUserBlkConfig::num_queues>},
    {{.name = "queue-size",
      .type = PropertyType::kUint,
      .default_text = "128",
      .description = "entries of each queue, a power of two",
      .max = kMostQueueSize},
     SetBase<BlkWords, VhostUserBlkConfig, &VhostUserBlkConfig::queue_size>},
    {{.name = "config-wce",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "the driver may switch the write cache"},
     SetBase<BlkWords, VhostUserBlkConfig, &VhostUserBlkConfig::config_wce>},
};

constexpr Property<FsWords> kFsProperties[] = {
    {{.name = "chardev", .description = "id of a -chardev socket that virtiofsd listens on"},
     object::SetField<&FsWords::chardev>},
    {{.name = "tag", .description = "what the guest mounts it by"},
     SetBase<FsWords, VhostUserFsConfig, &VhostUserFsConfig::tag>},
    {{.name = "num-request-queues",
      .type = PropertyType::kUint,
      .default_text = "1",
      .description = "queues for requests",
      .max = kMostQueues},
     SetBase<FsWords, VhostUserFsConfig, &VhostUserFsConfig::num_request_queues>},
    {{.name = "queue-size",
      .type = PropertyType::kUint,
      .default_text = "128",
      .description = "entries of each queue, a power of two",
      .max = kMostQueueSize},
     SetBase<FsWords, VhostUserFsConfig, &VhostUserFsConfig::queue_size>},
};

Status CheckQueueSize(std::uint64_t size) {
  if (std::has_single_bit(size) && size >= 4) return {};
  return Fail(Errc::kInvalidArgument, "queue-size property must be a power of 2",
              fmt::format("Choose one from 4 to {}.", kMostQueueSize));
}

Result<BlkWords> ParseBlk(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  BlkWords words;
  HF_TRY_STATUS(object::SetProperties<BlkWords>(kBlkProperties, {}, words, own));
  if (words.chardev.empty()) {
    return Fail(Errc::kInvalidArgument, "chardev is mandatory",
                "Name a -chardev socket,id=ID,path=PATH with chardev=ID.");
  }
  HF_TRY_STATUS(CheckQueueSize(words.queue_size));
  return words;
}

Result<FsWords> ParseFs(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  FsWords words;
  HF_TRY_STATUS(object::SetProperties<FsWords>(kFsProperties, {}, words, own));
  if (words.chardev.empty()) {
    return Fail(Errc::kInvalidArgument, "missing chardev",
                "Name a -chardev socket,id=ID,path=PATH with chardev=ID.");
  }
  if (words.tag.empty()) {
    return Fail(Errc::kInvalidArgument, "missing tag property",
                "Name the folder for the guest: tag=NAME.");
  }
  if (words.tag.size() > kTagSize) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("tag property must be {} bytes or less", kTagSize), "Shorten it.");
  }
  if (words.num_request_queues == 0) {
    return Fail(Errc::kInvalidArgument, "num-request-queues property must be larger than 0",
                "Leave it out for 1.");
  }
  HF_TRY_STATUS(CheckQueueSize(words.queue_size));
  return words;
}

Result<std::unique_ptr<pci::Function>> CreateBlk(const DeviceEnvironment& environment,
                                                 std::string_view id,
                                                 const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(const BlkWords words, ParseBlk(values, options));
  HF_TRY(auto endpoint, VhostUserEndpoint(environment, words.chardev, kVhostUserBlkPci.name));
  HF_TRY(auto device,
         MakeVhostUserBlk(environment.loop, environment.memory, std::move(endpoint), words));
  return MakeVirtioPci(environment, id, kVhostUserBlkPci.name, options, std::move(device));
}

Result<std::unique_ptr<pci::Function>> CreateFs(const DeviceEnvironment& environment,
                                                std::string_view id,
                                                const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(const FsWords words, ParseFs(values, options));
  HF_TRY(auto endpoint, VhostUserEndpoint(environment, words.chardev, kVhostUserFsPci.name));
  HF_TRY(auto device,
         MakeVhostUserFs(environment.loop, environment.memory, std::move(endpoint), words));
  return MakeVirtioPci(environment, id, kVhostUserFsPci.name, options, std::move(device));
}

}  // namespace

Result<vhost_user::Endpoint> VhostUserEndpoint(const DeviceEnvironment& environment,
                                               std::string_view chardev, std::string_view model) {
  Chardev* const found =
      environment.backends.chardev ? environment.backends.chardev(chardev) : nullptr;
  if (found == nullptr) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("Device '{}' can't find value '{}' of property 'chardev'", model, chardev),
        fmt::format("Make it with -chardev socket,id={},path=PATH.", chardev));
  }
  return vhost_user::TakeOver(*found, chardev, model);
}

Result<std::unique_ptr<VhostUserDevice>> MakeVhostUserBlk(EventLoop& loop,
                                                          const AddressSpace& memory,
                                                          vhost_user::Endpoint endpoint,
                                                          const VhostUserBlkConfig& config) {
  HF_TRY(auto front, Greet(endpoint, memory, true));
  constexpr std::uint64_t kAutomatic = 16;
  const std::uint64_t queues = config.num_queues != 0
                                   ? config.num_queues
                                   : std::clamp<std::uint64_t>(front->max_queues(), 1, kAutomatic);
  VhostUserDevice::Config device{
      .name = "vhost-user-blk",
      .type = 2,
      .features =
          kBlkFeatures | (config.config_wce ? kBlkConfigWce : 0) | (queues > 1 ? kBlkMq : 0),
      .queue_sizes = std::vector(queues, static_cast<std::uint16_t>(config.queue_size)),
      .config_size = kBlkConfigSize,
      .own_config = {},
      .edit_config =
          [queues](std::span<std::byte> bytes) {
            const auto count = static_cast<std::uint16_t>(queues);
            std::memcpy(bytes.data() + kBlkNumQueues, &count, sizeof count);
          },
      .writable_byte = kBlkWriteback,
      .requests_end = true};
  return VhostUserDevice::Create(loop, std::move(device), std::move(endpoint), std::move(front));
}

Result<std::unique_ptr<VhostUserDevice>> MakeVhostUserFs(EventLoop& loop,
                                                         const AddressSpace& memory,
                                                         vhost_user::Endpoint endpoint,
                                                         const VhostUserFsConfig& config) {
  HF_TRY(auto front, Greet(endpoint, memory, false));
  std::vector<std::byte> own(kTagSize + sizeof(std::uint32_t));
  std::memcpy(own.data(), config.tag.data(), std::min(config.tag.size(), kTagSize));
  const auto requests = static_cast<std::uint32_t>(config.num_request_queues);
  std::memcpy(own.data() + kTagSize, &requests, sizeof requests);
  VhostUserDevice::Config device{
      .name = "vhost-user-fs",
      .type = 26,
      .features = 0,
      // Before the queues for requests there is one for what must not wait behind them.
      .queue_sizes =
          std::vector(std::size_t{requests} + 1, static_cast<std::uint16_t>(config.queue_size)),
      .config_size = 0,
      .own_config = std::move(own),
      .edit_config = {},
      .writable_byte = {},
      .unsaved_state = "the guest's open files, which it alone knows"};
  return VhostUserDevice::Create(loop, std::move(device), std::move(endpoint), std::move(front));
}

constexpr DeviceModel kVhostUserBlkPci = {
    .name = "vhost-user-blk-pci",
    .description = "a disk that another process serves",
    .properties =
        [] {
          return WithTransportProperties({std::begin(kBlkProperties), std::end(kBlkProperties)});
        },
    .check = [](const object::KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(ParseBlk(values, options));
      return {};
    },
    .create = CreateBlk,
};

constexpr DeviceModel kVhostUserFsPci = {
    .name = "vhost-user-fs-pci",
    .description = "a folder of the host (virtiofsd serves it)",
    .properties =
        [] {
          return WithTransportProperties({std::begin(kFsProperties), std::end(kFsProperties)});
        },
    .check = [](const object::KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(ParseFs(values, options));
      return {};
    },
    .create = CreateFs,
};

}  // namespace holdfast::devices::virtio
