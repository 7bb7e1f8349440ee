// SPDX-License-Identifier: Apache-2.0
// The device model virtio-blk-pci.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "devices/block/storage_daemon.h"
#include "devices/virtio/vhost_user_models.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_pci.h"

namespace holdfast::devices::virtio {
namespace {

using object::Property;
using object::PropertyType;
using Config = VirtioBlk::Config;

constexpr std::uint64_t kAutoQueues = 65535;
constexpr std::uint64_t kMostQueues = 1023;
constexpr std::uint64_t kLargestQueue = 1024;  // as QEMU
// More than a guest's CPUs are of no use, and each costs memory.
constexpr unsigned kMostAutoQueues = 64;

constexpr Property<Config> kProperties[] = {
    {{.name = "iothread", .description = "id of the iothread that serves it"},
     object::SetField<&Config::iothread>},
    {{.name = "num-queues",
      .type = PropertyType::kUint,
      .default_text = "one for each vCPU",
      .description = "request queues",
      .max = kAutoQueues},
     object::SetField<&Config::num_queues>},
    {{.name = "queue-size",
      .type = PropertyType::kUint,
      .default_text = "256",
      .description = "entries of a queue, a power of two",
      .max = kLargestQueue},
     object::SetField<&Config::queue_size>},
    {{.name = "seg-max-adjust",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "segments of a request follow the queue's size"},
     object::SetField<&Config::seg_max_adjust>},
    {{.name = "config-wce",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "the driver may switch the write cache"},
     object::SetField<&Config::config_wce>},
    {{.name = "discard",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "offer discards"},
     object::SetField<&Config::discard>},
    {{.name = "write-zeroes",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "offer write-zeroes requests"},
     object::SetField<&Config::write_zeroes>},
    {{.name = "max-discard-sectors",
      .type = PropertyType::kUint,
      .default_text = "4194303",
      .description = "largest discard, in units of 512 bytes",
      .max = UINT32_MAX / 512},
     object::SetField<&Config::max_discard_sectors>},
    {{.name = "max-write-zeroes-sectors",
      .type = PropertyType::kUint,
      .default_text = "4194303",
      .description = "largest write-zeroes request, in units of 512 bytes",
      .max = UINT32_MAX / 512},
     object::SetField<&Config::max_write_zeroes_sectors>},
};

Result<Config> Parse(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues rest, TakeTransportOptions(values, options));
  Config config;
  config.num_queues = kAutoQueues;
  HF_TRY(const object::KeyValues own, block::TakeDiskOptions(rest, config));
  HF_TRY_STATUS(object::SetProperties<Config>(kProperties, {}, config, own));
  HF_TRY_STATUS(block::CheckDiskOptions(config));
  if (config.num_queues == 0) {
    return Fail(Errc::kInvalidArgument, "num-queues property must be larger than 0");
  }
  if (config.num_queues != kAutoQueues && config.num_queues > kMostQueues) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("num-queues property must be at most {}", kMostQueues));
  }
  if (config.queue_size <= 2 || (config.queue_size & (config.queue_size - 1)) != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("invalid queue-size property ({}), must be a power of 2 (max {})",
                            config.queue_size, kLargestQueue));
  }
  return config;
}

// The same disk for the guest, but its requests go to the program that reads the image.
Result<std::unique_ptr<pci::Function>> MakeServed(const DeviceEnvironment& environment,
                                                  std::string_view id,
                                                  const TransportOptions& options,
                                                  const Config& config,
                                                  block::StorageDaemon& daemon) {
  if (!config.iothread.empty() || !config.serial.empty()) {
    return Fail(Errc::kUnsupported,
                fmt::format("virtio-blk-pci: {} has no effect on an image in the format {}",
                            config.iothread.empty() ? "serial" : "iothread", daemon.format()),
                "Leave it out: qemu-storage-daemon serves the disk.");
  }
  VhostUserBlkConfig served{.queue_size = config.queue_size, .config_wce = config.config_wce};
  if (config.num_queues != kAutoQueues) served.num_queues = config.num_queues;
  HF_TRY(vhost_user::Endpoint endpoint, daemon.endpoint());
  auto device = MakeVhostUserBlk(environment.loop, environment.memory, std::move(endpoint), served);
  if (!device) return Fail(daemon.Explain(std::move(device).error()));
  constexpr std::uint64_t kSector = 512;
  std::uint64_t sectors = 0;
  (*device)->ReadConfig(0, std::as_writable_bytes(std::span(&sectors, 1)));
  daemon.set_plugged(
      {.device = id.empty() ? std::string() : fmt::format("/machine/peripheral/{}", id),
       .size = sectors <= UINT64_MAX / kSector ? sectors * kSector : 0});
  return MakeVirtioPci(environment, id, kVirtioBlkPci.name, options, *std::move(device));
}

Result<std::unique_ptr<pci::Function>> Make(const DeviceEnvironment& environment,
                                            std::string_view id, const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(Config config, Parse(values, options));
  const auto& find_image = environment.backends.image;
  if (block::StorageDaemon* const daemon = find_image ? find_image(config.drive) : nullptr) {
    return MakeServed(environment, id, options, config, *daemon);
  }
  if (config.num_queues == kAutoQueues) {
    config.num_queues = std::clamp(environment.cpus, 1U, kMostAutoQueues);
  }
  HF_TRY(const DeviceThread thread,
         DeviceThread::Find(environment, kVirtioBlkPci.name, config.iothread));
  // The drive calls back only once the device is made.
  const auto device = std::make_shared<VirtioBlk*>(nullptr);
  HF_TRY(
      block::Drive* const drive,
      block::PlugIn(environment, kVirtioBlkPci.name, config,
                    {.name = id.empty() ? std::string() : fmt::format("/machine/peripheral/{}", id),
                     .resized = [device] { (*device)->DriveResized(); },
                     .run_again = [device] { (*device)->RunAgain(); }}));
  auto disk = std::make_unique<VirtioBlk>(thread, *drive, config);
  *device = disk.get();
  return MakeVirtioPci(environment, id, kVirtioBlkPci.name, options, std::move(disk));
}

}  // namespace

constexpr DeviceModel kVirtioBlkPci = {
    .name = "virtio-blk-pci",
    .description = "a disk",
    .properties =
        [] {
          return WithTransportProperties(
              block::WithDiskProperties({std::begin(kProperties), std::end(kProperties)}));
        },
    .check = [](const object::KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(Parse(values, options));
      return {};
    },
    .create = Make,
};

}  // namespace holdfast::devices::virtio
