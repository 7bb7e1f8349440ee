// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/state.h"
#include "devices/block/drive.h"
#include "devices/scsi/scsi_cdb.h"
#include "devices/scsi/scsi_pages.h"

namespace holdfast::devices::scsi {

/// A command on its way through a disk. The adapter fills in the first part and keeps the memory
/// until `done`; the disk answers in the second.
struct Command {
  std::vector<std::uint8_t> cdb;
  std::vector<iovec> data_out;  ///< from the guest
  std::vector<iovec> data_in;   ///< to the guest
  std::uint64_t out_size = 0;   ///< bytes
  std::uint64_t in_size = 0;    ///< bytes
  /// Called once, perhaps inside Execute().
  std::function<void(Command& command)> done;

  std::uint8_t status = kGood;
  Sense sense;
  std::uint64_t transferred = 0;  ///< bytes, in the one direction there is
  bool overrun = false;           ///< the guest's buffers were too small; nothing was done
  bool aborted = false;           ///< AbortAll() ended it
};

/// A logical unit: scsi-hd or scsi-cd (SPC-4, SBC-3, MMC-6) on a drive.
///
/// Thread-safety: the thread of its loop.
class ScsiDisk {
 public:
  /// `drive` is attached already, may be an empty tray for a CD-ROM, and outlives the disk.
  ScsiDisk(EventLoop& loop, block::Drive& drive, Identity identity);
  ScsiDisk(const ScsiDisk&) = delete;
  ScsiDisk& operator=(const ScsiDisk&) = delete;
  /// Drains.
  ~ScsiDisk();

  /// Runs `command`, which stays the disk's until done.
  void Execute(std::shared_ptr<Command> command);
  /// Requests submitted so far start now: call after a batch.
  void Kick();
  /// Ends everything under way, as aborted where it has stopped the machine.
  void AbortAll();
  /// Power-on state.
  void Reset();
  /// Waits until the host has done all that it was asked for. @return commands that it could not do
  /// (werror=stop): they are to be executed anew, and their `done` is not called
  std::vector<std::shared_ptr<Command>> Suspend();
  /// Saves or loads unit attention, tray and caches, after Suspend().
  void VisitState(state::Fields& fields);

  // For DriveUser.
  void RunAgain();
  /// From here to MediumChanged() there is no medium for the guest, and no submitter.
  void MediumGoing();
  void MediumChanged();
  /// Tells the guest that the size has changed, with its next command.
  void Resized() { attention_ = kCapacityChanged; }
  /// Called when a round of answers is through.
  void set_batch_end(std::function<void()> end) { batch_end_ = std::move(end); }

  const Identity& identity() const noexcept { return identity_; }

 private:
  using CommandPtr = std::shared_ptr<Command>;
  // A command's request to the drive; perhaps one of several.
  struct Transfer {
    CommandPtr command;
    block::Operation operation = block::Operation::kRead;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::vector<iovec> pieces;
    bool may_unmap = false;
    bool fua = false;
    std::vector<std::byte> pattern;  // WRITE SAME's
    std::chrono::steady_clock::time_point since;
    std::shared_ptr<unsigned> siblings;  // how many of the command's are not done
  };
  using TransferPtr = std::shared_ptr<Transfer>;

  void Good(const CommandPtr& command);
  void Fail(const CommandPtr& command, const Sense& sense);
  void Reply(const CommandPtr& command, std::span<const std::uint8_t> data,
             std::uint64_t allocation);
  std::vector<std::uint8_t> Parameters(const CommandPtr& command, std::uint64_t length) const;

  // While it changes, the main thread works on it.
  bool HasMedium() const noexcept {
    return !medium_changing_ && !tray_open_ && drive_.medium() != nullptr;
  }
  std::uint64_t blocks() const noexcept;
  bool InRange(std::uint64_t lba, std::uint64_t count) const noexcept;
  // Answers those that need no medium. @return whether it was one
  bool ExecuteAlways(const CommandPtr& command, const Cdb& cdb);
  void ExecuteWithMedium(const CommandPtr& command, const Cdb& cdb);
  bool ExecuteCd(const CommandPtr& command, const Cdb& cdb);
  void Inquire(const CommandPtr& command, const Cdb& cdb);
  void SenseModes(const CommandPtr& command, const Cdb& cdb, bool ten);
  void SelectModes(const CommandPtr& command, const Cdb& cdb, bool ten);
  void StartStop(const CommandPtr& command, const Cdb& cdb);
  void ReportCapacity(const CommandPtr& command, const Cdb& cdb, bool sixteen);
  void ReportEvents(const CommandPtr& command, const Cdb& cdb);
  void ReadWrite(const CommandPtr& command, const Cdb& cdb, bool write);
  void WriteSame(const CommandPtr& command, const Cdb& cdb);
  void Unmap(const CommandPtr& command, const Cdb& cdb);
  void Submit(const TransferPtr& transfer);
  void Done(const TransferPtr& transfer, int error);

  EventLoop& loop_;
  block::Drive& drive_;
  const Identity identity_;
  const bool write_cache_;  // before a guest changed it
  std::unique_ptr<block::BlockDevice::Submitter> submitter_;
  std::vector<TransferPtr> stopped_;  // wait for the machine to run again
  std::optional<Sense> attention_ = kPoweredOn;
  bool tray_open_ = false;
  bool medium_event_ = false;  // GET EVENT STATUS has news
  bool aborting_ = false;
  bool medium_changing_ = false;
  std::function<void()> batch_end_;
};

}  // namespace holdfast::devices::scsi
