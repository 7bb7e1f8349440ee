// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include "devices/block/drive.h"
#include "devices/block/node_options.h"
#include "object/throttle.h"

namespace holdfast::apps {

/// `-drive if=`: what is made to plug the drive into. The order is that of the words.
enum class DriveInterface : std::uint8_t { kIde, kScsi, kVirtio, kNone };

/// One -drive, or a shorthand of one (-hda, -cdrom).
struct DriveRequest {
  std::string option;  ///< as written, "-drive file=x", for messages
  std::string id;      ///< empty until FinishBlock()
  DriveInterface interface = DriveInterface::kIde;
  std::optional<std::uint64_t> index;
  bool cdrom = false;
  bool format_given = false;
  std::string image_format;      ///< "qcow2": the storage daemon reads it; empty: it is raw
  std::optional<bool> snapshot;  ///< what the guest writes is forgotten; empty: as -snapshot says
  std::optional<devices::block::NodeOptions> node;  ///< empty: no medium
  bool write_cache = true;
  devices::block::OnError read_error = devices::block::OnError::kReport;
  devices::block::OnError write_error = devices::block::OnError::kEnospc;
  object::ThrottleLimits limits;
  std::string throttle_group;

  /// Whether the guest's requests go to the storage daemon, and so past this process.
  bool served() const noexcept {
    return node.has_value() && (!image_format.empty() || snapshot.value_or(false));
  }
};

/// One -blockdev.
struct BlockdevRequest {
  std::string option;
  devices::block::NodeOptions node;
};

/// Whether the storage daemon can do what a drive asks for that it is to serve.
Status CheckServed(const DriveRequest& drive);

/// Reads -drive's argument. Pure.
Result<DriveRequest> ReadDrive(std::string_view argument);

}  // namespace holdfast::apps
