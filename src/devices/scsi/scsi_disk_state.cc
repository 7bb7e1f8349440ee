// SPDX-License-Identifier: Apache-2.0
// A SCSI disk while the machine stands, and what it is saved as.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "devices/scsi/scsi_disk.h"

namespace holdfast::devices::scsi {

std::vector<std::shared_ptr<Command>> ScsiDisk::Suspend() {
  if (submitter_ != nullptr) submitter_->Drain();
  std::vector<CommandPtr> commands;
  // Of a command with several transfers all are done once more: each may be.
  for (const TransferPtr& transfer : std::exchange(stopped_, {})) {
    if (std::ranges::find(commands, transfer->command) == commands.end()) {
      commands.push_back(transfer->command);
    }
  }
  return commands;
}

void ScsiDisk::VisitState(state::Fields& fields) {
  bool has_attention = attention_.has_value();
  Sense attention = attention_.value_or(kNoSense);
  bool has_medium = drive_.medium() != nullptr;
  std::uint64_t size = drive_.size();
  bool readonly = drive_.readonly();
  bool tray_open = tray_open_;
  bool tray_locked = drive_.tray_locked();
  bool medium_event = medium_event_;
  bool write_cache = drive_.write_cache();
  fields.Value("medium", has_medium);
  fields.Value("size", size);
  fields.Value("readonly", readonly);
  fields.Value("attention", has_attention);
  fields.Value("attention-key", attention.key);
  fields.Value("attention-code", attention.code);
  fields.Value("attention-qualifier", attention.qualifier);
  fields.Value("tray-open", tray_open);
  fields.Value("tray-locked", tray_locked);
  fields.Value("medium-event", medium_event);
  fields.Value("write-cache", write_cache);
  fields.Check(identity_.cdrom || (!tray_open && !tray_locked), "a disk has no tray");
  if (!fields.loading() || !fields.ok()) return;
  if (has_medium != (drive_.medium() != nullptr) || size != drive_.size()) {
    return fields.Malformed(
        fmt::format("the medium had {} bytes and here it has {}", size, drive_.size()));
  }
  if (readonly != drive_.readonly()) {
    return fields.Malformed(readonly ? "the medium was read-only and here it is not"
                                     : "the medium could be written and here it is read-only");
  }
  attention_ = has_attention ? std::optional(attention) : std::nullopt;
  tray_open_ = tray_open;
  medium_event_ = medium_event;
  drive_.set_tray_locked(tray_locked);
  drive_.set_write_cache(write_cache);
}

}  // namespace holdfast::devices::scsi
