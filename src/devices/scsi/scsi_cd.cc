// SPDX-License-Identifier: Apache-2.0
// What a CD-ROM has beside a disk's commands (MMC-6).
#include <algorithm>
#include <array>
#include <utility>

#include "devices/scsi/scsi_disk.h"

namespace holdfast::devices::scsi {

bool ScsiDisk::ExecuteCd(const CommandPtr& command, const Cdb& cdb) {
  switch (cdb.opcode) {
    case kPreventAllow:
      drive_.set_tray_locked((cdb.bytes[4] & 1) != 0);
      Good(command);
      return true;
    case kGetConfiguration:
      Reply(command,
            Configuration(blocks(), (cdb.bytes[1] & 0x03) == 2,
                          static_cast<std::uint16_t>(LoadBig(cdb.bytes, 2, 2))),
            cdb.length);
      return true;
    case kGetEventStatus:
      ReportEvents(command, cdb);
      return true;
    case kMechanismStatus: {
      constexpr std::array<std::uint8_t, 8> kIdle{};
      Reply(command, kIdle, cdb.length);
      return true;
    }
    case kReadToc: {
      if (!HasMedium()) return false;
      // The format has two places; the older one counts if the newer one is 0.
      const std::uint8_t newer = cdb.bytes[2] & 0x0f;
      const std::uint8_t format = newer != 0 ? newer : cdb.bytes[9] >> 6;
      const auto toc = TableOfContents(blocks(), (cdb.bytes[1] & 0x02) != 0, format, cdb.bytes[6]);
      if (toc) {
        Reply(command, *toc, cdb.length);
      } else {
        Fail(command, kInvalidField);
      }
      return true;
    }
    case kReadDiscInformation:
      if (!HasMedium()) return false;
      if ((cdb.bytes[1] & 0x07) != 0) {
        Fail(command, kInvalidField);
      } else {
        Reply(command, DiscInformation(), cdb.length);
      }
      return true;
    default:
      return false;
  }
}

// Only polled, and only about the medium (MMC-6, 6.6).
void ScsiDisk::ReportEvents(const CommandPtr& command, const Cdb& cdb) {
  constexpr std::uint8_t kMediaClass = 4;
  if ((cdb.bytes[1] & 1) == 0) return Fail(command, kInvalidField);
  std::array<std::uint8_t, 8> data{};
  data[3] = 1U << kMediaClass;
  if ((cdb.bytes[4] & (1U << kMediaClass)) == 0) {
    data[1] = 2;
    data[2] = 0x80;  // no event of the classes asked for
    return Reply(command, std::span(data).first(4), cdb.length);
  }
  constexpr std::uint8_t kNewMedia = 2;
  constexpr std::uint8_t kMediaRemoval = 3;
  data[1] = 6;
  data[2] = kMediaClass;
  if (std::exchange(medium_event_, false)) data[4] = HasMedium() ? kNewMedia : kMediaRemoval;
  data[5] = static_cast<std::uint8_t>((tray_open_ ? 1 : 0) | (HasMedium() ? 2 : 0));
  Reply(command, data, cdb.length);
}

}  // namespace holdfast::devices::scsi
