// SPDX-License-Identifier: Apache-2.0
// The device models scsi-hd and scsi-cd.
#include "devices/scsi/scsi_models.h"

#include <fmt/format.h>

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/event_loop.h"
#include "devices/block/disk_options.h"
#include "devices/child_bus.h"
#include "devices/scsi/scsi_bus.h"
#include "devices/scsi/scsi_disk.h"

namespace holdfast::devices::scsi {
namespace {

using object::Property;
using object::PropertyType;
using object::PropertyValue;

struct Words : block::DiskOptions {
  std::optional<std::uint64_t> target;
  std::uint64_t channel = 0;
  std::uint64_t lun = 0;
  std::string vendor;
  std::string product;
  std::string version;
  std::string device_id;
  std::uint64_t wwn = 0;
  std::uint64_t rotation_rate = 0;
};

constexpr Property<Words> kProperties[] = {
    {{.name = "scsi-id",
      .type = PropertyType::kUint,
      .default_text = "the first that is free",
      .description = "the target",
      .max = ScsiBus::kMostTarget},
     [](Words& words, const PropertyValue& value) -> Status {
       words.target = std::get<std::uint64_t>(value);
       return {};
     }},
    {{.name = "channel",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "only 0: there is one channel",
      .max = 0},
     object::SetField<&Words::channel>},
    {{.name = "lun",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "the logical unit of the target",
      .max = ScsiBus::kMostLun},
     object::SetField<&Words::lun>},
    {{.name = "vendor", .default_text = "HOLDFAST", .description = "INQUIRY's vendor, 8 letters"},
     object::SetField<&Words::vendor>},
    {{.name = "product", .description = "INQUIRY's product, 16 letters"},
     object::SetField<&Words::product>},
    {{.name = "ver", .default_text = "1.0", .description = "INQUIRY's revision, 4 letters"},
     object::SetField<&Words::version>},
    {{.name = "device_id",
      .default_text = "the serial number, or the drive's id",
      .description = "identifies the disk (VPD page 0x83)"},
     object::SetField<&Words::device_id>},
    {{.name = "wwn", .type = PropertyType::kUint, .description = "world wide name"},
     object::SetField<&Words::wwn>},
    {{.name = "rotation_rate",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "0 not told, 1 none (an SSD), else a minute",
      .max = 0xffff},
     object::SetField<&Words::rotation_rate>},
};

Result<Words> Parse(const object::KeyValues& values, bool cdrom) {
  Words words;
  if (cdrom) words.logical_block_size = words.physical_block_size = 2048;
  HF_TRY(const object::KeyValues own, block::TakeDiskOptions(values, words));
  HF_TRY_STATUS(object::SetProperties<Words>(kProperties, {}, words, own));
  HF_TRY_STATUS(block::CheckDiskOptions(words));
  return words;
}

Identity MakeIdentity(const Words& words, bool cdrom) {
  Identity identity;
  identity.cdrom = cdrom;
  identity.product = cdrom ? "CD-ROM" : "HARDDISK";
  if (!words.vendor.empty()) identity.vendor = words.vendor;
  if (!words.product.empty()) identity.product = words.product;
  if (!words.version.empty()) identity.version = words.version;
  identity.serial = words.serial;
  identity.device_id = !words.device_id.empty() ? words.device_id
                       : !words.serial.empty()  ? words.serial
                                                : words.drive;
  identity.wwn = words.wwn;
  identity.block_size = static_cast<std::uint32_t>(words.logical_block_size);
  identity.physical_block_size = static_cast<std::uint32_t>(words.physical_block_size);
  identity.min_io_blocks = words.min_io_size / words.logical_block_size;
  identity.opt_io_blocks = words.opt_io_size / words.logical_block_size;
  identity.unmap_granularity_blocks =
      std::max<std::uint64_t>(words.discard_granularity.value_or(0) / words.logical_block_size, 1);
  identity.rotation_rate = static_cast<std::uint16_t>(words.rotation_rate);
  return identity;
}

// A disk on its bus, with its drive.
class DiskDevice final : public ChildDevice {
 public:
  DiskDevice(block::Drive& drive, Identity identity, ScsiBus& bus)
      : drive_(drive),
        bus_(bus.shared_from_this()),
        disk_(bus.thread().loop(), drive, std::move(identity)) {}
  ~DiskDevice() override {
    Run([this] {
      bus_->Remove(disk_);
      disk_.MediumGoing();
      alive_.reset();
    });
    drive_.Detach();
  }
  DiskDevice(const DiskDevice&) = delete;
  DiskDevice& operator=(const DiskDevice&) = delete;
  Status Plug(UnitAddress where) {
    Status plugged;
    Run([&] { plugged = bus_->Add(where, disk_); });
    return plugged;
  }

  void VisitState(state::Fields& fields) override {
    Run([&] { disk_.VisitState(fields); });
  }

  // For DriveUser: what must have happened before the main thread goes on, and what need not.
  void Do(void (ScsiDisk::*work)()) {
    Run([&] { (disk_.*work)(); });
  }
  void DoLater(void (ScsiDisk::*work)()) {
    bus_->thread().loop().Post([this, work, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.expired()) (disk_.*work)();
    });
  }

 private:
  void Run(const std::function<void()>& work) { bus_->thread().Run(work); }

  block::Drive& drive_;
  const std::shared_ptr<ScsiBus> bus_;
  ScsiDisk disk_;
  // The loop's; gone when posted work must not find the disk.
  std::shared_ptr<int> alive_ = std::make_shared<int>();
};

template <bool Cdrom>
Result<std::unique_ptr<ChildDevice>> Attach(const DeviceEnvironment& environment,
                                            std::string_view id, std::string_view bus_name,
                                            const object::KeyValues& values) {
  const std::string_view model = Cdrom ? kScsiCd.name : kScsiHd.name;
  HF_TRY(const Words words, Parse(values, Cdrom));
  if (environment.buses == nullptr) {
    return Fail(Errc::kNotFound, fmt::format("No 'SCSI' bus found for device '{}'", model));
  }
  HF_TRY(ChildBus* const found, environment.buses->Find(bus_name, kScsiBusType, model));
  auto& bus = dynamic_cast<ScsiBus&>(*found);
  UnitAddress where{.target = 0, .lun = static_cast<std::uint16_t>(words.lun)};
  if (words.target) {
    where.target = static_cast<std::uint8_t>(*words.target);
  } else if (const auto free = bus.FreeTarget()) {
    where.target = *free;
  } else {
    return Fail(Errc::kExhausted, "no free target", "Give it a lun of a target there is.");
  }
  // The drive calls back only once the device is made.
  const auto device = std::make_shared<DiskDevice*>(nullptr);
  HF_TRY(
      block::Drive* const drive,
      block::PlugIn(environment, model, words,
                    {.name = id.empty() ? std::string() : fmt::format("/machine/peripheral/{}", id),
                     .resized = [device] { (*device)->DoLater(&ScsiDisk::Resized); },
                     .run_again = [device] { (*device)->DoLater(&ScsiDisk::RunAgain); },
                     .medium_going = [device] { (*device)->Do(&ScsiDisk::MediumGoing); },
                     .medium_changed = [device] { (*device)->Do(&ScsiDisk::MediumChanged); },
                     .removable = Cdrom},
                    Cdrom));
  auto made = std::make_unique<DiskDevice>(*drive, MakeIdentity(words, Cdrom), bus);
  *device = made.get();
  HF_TRY_STATUS(made->Plug(where));
  return Result<std::unique_ptr<ChildDevice>>(std::move(made));
}

std::vector<object::PropertyInfo> Properties() {
  return block::WithDiskProperties({std::begin(kProperties), std::end(kProperties)});
}
template <bool Cdrom>
Status Check(const object::KeyValues& values) {
  HF_TRY_STATUS(Parse(values, Cdrom));
  return {};
}

}  // namespace

constexpr DeviceModel kScsiHd = {
    .name = "scsi-hd",
    .description = "a disk on a SCSI adapter",
    .properties = Properties,
    .check = Check<false>,
    .create = nullptr,
    .bus_type = kScsiBusType,
    .attach = Attach<false>,
};

constexpr DeviceModel kScsiCd = {
    .name = "scsi-cd",
    .description = "a CD-ROM on a SCSI adapter",
    .properties = Properties,
    .check = Check<true>,
    .create = nullptr,
    .bus_type = kScsiBusType,
    .attach = Attach<true>,
};

}  // namespace holdfast::devices::scsi
