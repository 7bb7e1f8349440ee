// SPDX-License-Identifier: Apache-2.0
// The device model virtio-scsi-pci.
#include <fmt/format.h>

#include <algorithm>

#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_scsi.h"

namespace holdfast::devices::virtio {
namespace {

using object::Property;
using object::PropertyType;
using Config = VirtioScsi::Config;

constexpr std::uint64_t kAutoQueues = UINT32_MAX;
constexpr std::uint64_t kMostQueues = 1021;  // and two more
constexpr std::uint64_t kLargestQueue = 1024;
constexpr unsigned kMostAutoQueues = 64;

constexpr Property<Config> kProperties[] = {
    {{.name = "iothread", .description = "id of the iothread that serves it and its disks"},
     object::SetField<&Config::iothread>},
    {{.name = "num_queues",
      .type = PropertyType::kUint,
      .default_text = "one for each vCPU",
      .description = "request queues",
      .max = kAutoQueues},
     object::SetField<&Config::num_queues>},
    {{.name = "virtqueue_size",
      .type = PropertyType::kUint,
      .default_text = "256",
      .description = "entries of a queue, a power of two",
      .max = kLargestQueue},
     object::SetField<&Config::queue_size>},
    {{.name = "seg_max_adjust",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "segments of a request follow the queue's size"},
     object::SetField<&Config::seg_max_adjust>},
    {{.name = "max_sectors",
      .type = PropertyType::kUint,
      .default_text = "65535",
      .description = "largest request, in units of 512 bytes",
      .max = UINT32_MAX},
     object::SetField<&Config::max_sectors>},
    {{.name = "cmd_per_lun",
      .type = PropertyType::kUint,
      .default_text = "128",
      .description = "requests a disk gets at once",
      .max = UINT32_MAX},
     object::SetField<&Config::cmd_per_lun>},
    {{.name = "hotplug",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "tell the driver of disks that come and go"},
     object::SetField<&Config::hotplug>},
    {{.name = "param_change",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "tell the driver of disks that change"},
     object::SetField<&Config::param_change>},
};

Result<Config> Parse(const object::KeyValues& values, TransportOptions& options) {
  HF_TRY(const object::KeyValues own, TakeTransportOptions(values, options));
  Config config;
  config.num_queues = kAutoQueues;
  HF_TRY_STATUS(object::SetProperties<Config>(kProperties, {}, config, own));
  if (config.num_queues == 0 ||
      (config.num_queues != kAutoQueues && config.num_queues > kMostQueues)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Invalid number of queues (= {}), must be a positive integer less "
                            "than {}",
                            config.num_queues, kMostQueues + 1));
  }
  if (config.queue_size <= 2 || (config.queue_size & (config.queue_size - 1)) != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("invalid virtqueue_size property (= {}), must be a power of 2 between "
                            "4 and {}",
                            config.queue_size, kLargestQueue));
  }
  return config;
}

Result<std::unique_ptr<pci::Function>> Make(const DeviceEnvironment& environment,
                                            std::string_view id, const object::KeyValues& values) {
  TransportOptions options;
  HF_TRY(Config config, Parse(values, options));
  if (config.num_queues == kAutoQueues) {
    config.num_queues = std::clamp(environment.cpus, 1U, kMostAutoQueues);
  }
  HF_TRY(const DeviceThread thread,
         DeviceThread::Find(environment, kVirtioScsiPci.name, config.iothread));
  const std::string bus_name = fmt::format("{}.0", id.empty() ? "scsi" : id);
  return MakeVirtioPci(environment, id, kVirtioScsiPci.name, options,
                       std::make_unique<VirtioScsi>(thread, config, environment.buses, bus_name));
}

}  // namespace

constexpr DeviceModel kVirtioScsiPci = {
    .name = "virtio-scsi-pci",
    .description = "a SCSI adapter, for scsi-hd and scsi-cd",
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
