// SPDX-License-Identifier: Apache-2.0
#include "devices/scsi/scsi_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/event_loop.h"

namespace holdfast::devices::scsi {
namespace {

using block::OnError;
using block::Operation;

// The pieces of the first `length` bytes.
std::vector<iovec> First(std::span<const iovec> pieces, std::uint64_t length) {
  std::vector<iovec> cut;
  for (const iovec& piece : pieces) {
    if (length == 0) break;
    const std::uint64_t now = std::min<std::uint64_t>(piece.iov_len, length);
    cut.push_back({.iov_base = piece.iov_base, .iov_len = now});
    length -= now;
  }
  return cut;
}

Sense SenseOf(Operation operation, int error) {
  switch (error) {
    case ENOSPC:
      return kNoRoom;
    case EPERM:
      return kWriteProtected;
    case ENOMEDIUM:
      return kNoMedium;
    default:
      return operation == Operation::kRead ? kReadFailed : kTargetFailure;
  }
}

bool Writes(std::uint8_t opcode) {
  switch (opcode) {
    case kWrite6:
    case kWrite10:
    case kWrite12:
    case kWrite16:
    case kWriteSame10:
    case kWriteSame16:
    case kUnmap:
      return true;
    default:
      return false;
  }
}

}  // namespace

ScsiDisk::ScsiDisk(EventLoop& loop, block::Drive& drive, Identity identity)
    : loop_(loop),
      drive_(drive),
      identity_(std::move(identity)),
      write_cache_(drive.write_cache()) {}

ScsiDisk::~ScsiDisk() {
  AbortAll();
}

std::uint64_t ScsiDisk::blocks() const noexcept {
  return HasMedium() ? drive_.size() / identity_.block_size : 0;
}

bool ScsiDisk::InRange(std::uint64_t lba, std::uint64_t count) const noexcept {
  const std::uint64_t all = blocks();
  return lba <= all && count <= all - lba;
}

// ---- Answers ------------------------------------------------------------------------------------

void ScsiDisk::Good(const CommandPtr& command) {
  command->status = kGood;
  command->done(*command);
}

void ScsiDisk::Fail(const CommandPtr& command, const Sense& sense) {
  command->status = kCheckCondition;
  command->sense = sense;
  command->done(*command);
}

// As much of the answer as the guest asked for; what its buffers cannot hold is left out.
void ScsiDisk::Reply(const CommandPtr& command, std::span<const std::uint8_t> data,
                     std::uint64_t allocation) {
  std::uint64_t left = std::min<std::uint64_t>({data.size(), allocation, command->in_size});
  command->transferred = left;
  const std::uint8_t* from = data.data();
  for (const iovec& piece : command->data_in) {
    const std::uint64_t now = std::min<std::uint64_t>(piece.iov_len, left);
    if (now == 0) break;
    std::memcpy(piece.iov_base, from, now);
    from += now;
    left -= now;
  }
  Good(command);
}

std::vector<std::uint8_t> ScsiDisk::Parameters(const CommandPtr& command,
                                               std::uint64_t length) const {
  std::vector<std::uint8_t> bytes(std::min(length, command->out_size));
  std::uint64_t at = 0;
  for (const iovec& piece : command->data_out) {
    const std::uint64_t now = std::min<std::uint64_t>(piece.iov_len, bytes.size() - at);
    if (now == 0) break;
    std::memcpy(bytes.data() + at, piece.iov_base, now);
    at += now;
  }
  return bytes;
}

// ---- Commands -----------------------------------------------------------------------------------

void ScsiDisk::Execute(std::shared_ptr<Command> command) {
  const std::optional<Cdb> cdb = ParseCdb(command->cdb);
  if (!cdb) return Fail(command, kInvalidOpcode);
  const bool tells = cdb->opcode == kInquiry || cdb->opcode == kRequestSense ||
                     cdb->opcode == kReportLuns || cdb->opcode == kGetEventStatus;
  if (attention_ && !tells) return Fail(command, *std::exchange(attention_, std::nullopt));
  if (ExecuteAlways(command, *cdb)) return;
  if (identity_.cdrom && ExecuteCd(command, *cdb)) return;
  if (!HasMedium()) return Fail(command, tray_open_ ? kNoMediumTrayOpen : kNoMedium);
  if (Writes(cdb->opcode) && (identity_.cdrom || drive_.readonly())) {
    return Fail(command, kWriteProtected);
  }
  ExecuteWithMedium(command, *cdb);
}

bool ScsiDisk::ExecuteAlways(const CommandPtr& command, const Cdb& cdb) {
  switch (cdb.opcode) {
    case kInquiry:
      Inquire(command, cdb);
      return true;
    case kRequestSense: {
      const auto sense = FixedSense(std::exchange(attention_, std::nullopt).value_or(kNoSense));
      Reply(command, sense, cdb.length);
      return true;
    }
    case kModeSense6:
    case kModeSense10:
      SenseModes(command, cdb, cdb.opcode == kModeSense10);
      return true;
    case kModeSelect6:
    case kModeSelect10:
      SelectModes(command, cdb, cdb.opcode == kModeSelect10);
      return true;
    case kStartStopUnit:
      StartStop(command, cdb);
      return true;
    case kReserve6:
    case kRelease6:
      Good(command);
      return true;
    default:
      return false;
  }
}

void ScsiDisk::ExecuteWithMedium(const CommandPtr& command, const Cdb& cdb) {
  switch (cdb.opcode) {
    case kTestUnitReady:
    case kPreventAllow:
    case kSeek10:
      return Good(command);
    case kVerify10:
    case kVerify16:
      // Comparing with the guest's data (BYTCHK) is not offered.
      if ((cdb.bytes[1] & 0x06) != 0) return Fail(command, kInvalidField);
      if (!InRange(cdb.lba, cdb.length)) return Fail(command, kLbaOutOfRange);
      return Good(command);
    case kReadCapacity10:
      return ReportCapacity(command, cdb, false);
    case kServiceActionIn16:
      if ((cdb.bytes[1] & 0x1f) != kSaiReadCapacity16) return Fail(command, kInvalidField);
      return ReportCapacity(command, cdb, true);
    case kRead6:
    case kRead10:
    case kRead12:
    case kRead16:
      return ReadWrite(command, cdb, false);
    case kWrite6:
    case kWrite10:
    case kWrite12:
    case kWrite16:
      return ReadWrite(command, cdb, true);
    case kSynchronizeCache10:
    case kSynchronizeCache16: {
      const auto transfer = std::make_shared<Transfer>();
      transfer->command = command;
      transfer->operation = Operation::kFlush;
      return Submit(transfer);
    }
    case kWriteSame10:
    case kWriteSame16:
      return WriteSame(command, cdb);
    case kUnmap:
      return Unmap(command, cdb);
    default:
      return Fail(command, kInvalidOpcode);
  }
}

void ScsiDisk::Inquire(const CommandPtr& command, const Cdb& cdb) {
  const bool vital = (cdb.bytes[1] & 1) != 0;
  if (!vital) {
    if (cdb.bytes[2] != 0) return Fail(command, kInvalidField);
    return Reply(command, InquiryData(identity_), cdb.length);
  }
  const auto page = VitalProductData(identity_, cdb.bytes[2]);
  if (!page) return Fail(command, kInvalidField);
  Reply(command, *page, cdb.length);
}

void ScsiDisk::SenseModes(const CommandPtr& command, const Cdb& cdb, bool ten) {
  const std::uint8_t control = cdb.bytes[2] >> 6;
  if (control == 3) return Fail(command, {0x05, 0x39, 0x00});  // saved values: there are none
  const auto data = ModeData(identity_,
                             {.readonly = !medium_changing_ && drive_.readonly(),
                              .write_cache = control == 2 ? write_cache_ : drive_.write_cache(),
                              .locked = drive_.tray_locked(),
                              .blocks = blocks()},
                             ten, (cdb.bytes[1] & 0x08) != 0, cdb.bytes[2] & 0x3f, control);
  if (!data) return Fail(command, kInvalidField);
  Reply(command, *data, cdb.length);
}

void ScsiDisk::SelectModes(const CommandPtr& command, const Cdb& cdb, bool ten) {
  if (command->out_size < cdb.length) {
    command->overrun = true;
    return Good(command);
  }
  const auto change = ParseModeSelect(Parameters(command, cdb.length), ten);
  if (!change) return Fail(command, kInvalidParameter);
  if (change->write_cache && !identity_.cdrom) drive_.set_write_cache(*change->write_cache);
  command->transferred = cdb.length;
  Good(command);
}

void ScsiDisk::StartStop(const CommandPtr& command, const Cdb& cdb) {
  const bool start = (cdb.bytes[4] & 1) != 0;
  const bool load_eject = (cdb.bytes[4] & 2) != 0;
  if (identity_.cdrom && load_eject) {
    if (!start && !tray_open_ && drive_.tray_locked()) {
      return Fail(command, kRemovalPrevented);
    }
    if (tray_open_ == start) medium_event_ = true;
    tray_open_ = !start;
  }
  Good(command);
}

void ScsiDisk::ReportCapacity(const CommandPtr& command, const Cdb& cdb, bool sixteen) {
  const std::uint64_t last = std::max<std::uint64_t>(blocks(), 1) - 1;
  if (!sixteen) {
    std::array<std::uint8_t, 8> data{};
    StoreBig(data, 0, 4, std::min<std::uint64_t>(last, UINT32_MAX));
    StoreBig(data, 4, 4, identity_.block_size);
    return Reply(command, data, data.size());
  }
  std::array<std::uint8_t, 32> data{};
  StoreBig(data, 0, 8, last);
  StoreBig(data, 8, 4, identity_.block_size);
  std::uint8_t exponent = 0;
  while ((identity_.block_size << exponent) < identity_.physical_block_size) ++exponent;
  data[13] = exponent;
  data[14] = identity_.unmaps && !identity_.cdrom ? 0x80 : 0;  // LBPME
  Reply(command, data, cdb.length);
}

// ---- Transfers ----------------------------------------------------------------------------------

void ScsiDisk::ReadWrite(const CommandPtr& command, const Cdb& cdb, bool write) {
  if (!InRange(cdb.lba, cdb.length)) {
    drive_.stats().of(write ? Operation::kWrite : Operation::kRead).invalid++;
    return Fail(command, kLbaOutOfRange);
  }
  const std::uint64_t bytes = std::uint64_t{cdb.length} * identity_.block_size;
  if (bytes == 0) return Good(command);
  if (bytes > (write ? command->out_size : command->in_size)) {
    command->overrun = true;
    return Good(command);
  }
  const auto transfer = std::make_shared<Transfer>();
  transfer->command = command;
  transfer->operation = write ? Operation::kWrite : Operation::kRead;
  transfer->offset = cdb.lba * identity_.block_size;
  transfer->length = bytes;
  transfer->pieces = First(write ? command->data_out : command->data_in, bytes);
  transfer->fua = write && cdb.bytes.size() > 6 && (cdb.bytes[1] & 0x08) != 0;
  command->transferred = bytes;
  Submit(transfer);
}

void ScsiDisk::WriteSame(const CommandPtr& command, const Cdb& cdb) {
  constexpr std::uint64_t kPattern = 64 * 1024;
  constexpr std::uint64_t kMost = 1ULL << 30;  // VPD page 0xb0 says so
  const bool sixteen = cdb.opcode == kWriteSame16;
  const bool unmap = (cdb.bytes[1] & 0x08) != 0;
  const bool no_data = sixteen && (cdb.bytes[1] & 0x01) != 0;
  const std::uint64_t bytes = std::uint64_t{cdb.length} * identity_.block_size;
  if ((cdb.bytes[1] & 0xe0) != 0 || (cdb.bytes[1] & 0x06) != 0 || cdb.length == 0 ||
      bytes > kMost) {
    return Fail(command, kInvalidField);
  }
  if (!InRange(cdb.lba, cdb.length)) return Fail(command, kLbaOutOfRange);
  std::vector<std::uint8_t> block(identity_.block_size);
  if (!no_data) {
    block = Parameters(command, identity_.block_size);
    if (block.size() < identity_.block_size) {
      command->overrun = true;
      return Good(command);
    }
    command->transferred = block.size();
  }
  const auto transfer = std::make_shared<Transfer>();
  transfer->command = command;
  transfer->offset = cdb.lba * identity_.block_size;
  transfer->length = bytes;
  if (std::ranges::all_of(block, [](std::uint8_t byte) { return byte == 0; })) {
    transfer->operation = Operation::kWriteZeroes;
    transfer->may_unmap = unmap;
    return Submit(transfer);
  }
  transfer->operation = Operation::kWrite;
  transfer->pattern.resize(std::max<std::uint64_t>(kPattern, block.size()));
  for (std::size_t at = 0; at < transfer->pattern.size(); at += block.size()) {
    std::memcpy(transfer->pattern.data() + at, block.data(), block.size());
  }
  for (std::uint64_t left = bytes; left > 0;) {
    const std::uint64_t now = std::min<std::uint64_t>(left, transfer->pattern.size());
    transfer->pieces.push_back({.iov_base = transfer->pattern.data(), .iov_len = now});
    left -= now;
  }
  Submit(transfer);
}

void ScsiDisk::Unmap(const CommandPtr& command, const Cdb& cdb) {
  if ((cdb.bytes[1] & 1) != 0) return Fail(command, kInvalidField);  // anchored
  if (command->out_size < cdb.length) {
    command->overrun = true;
    return Good(command);
  }
  const auto ranges = ParseUnmap(Parameters(command, cdb.length));
  if (!ranges) return Fail(command, kBadParameterLength);
  const bool good = std::ranges::all_of(
      *ranges, [this](const BlockRange& range) { return InRange(range.lba, range.count); });
  if (!good) return Fail(command, kLbaOutOfRange);
  command->transferred = cdb.length;
  if (ranges->empty()) return Good(command);
  const auto siblings = std::make_shared<unsigned>(static_cast<unsigned>(ranges->size()));
  for (const BlockRange& range : *ranges) {
    const auto transfer = std::make_shared<Transfer>();
    transfer->command = command;
    transfer->operation = Operation::kDiscard;
    transfer->offset = range.lba * identity_.block_size;
    transfer->length = std::uint64_t{range.count} * identity_.block_size;
    transfer->siblings = siblings;
    Submit(transfer);
  }
}

void ScsiDisk::Submit(const TransferPtr& transfer) {
  if (submitter_ == nullptr) {
    auto made = drive_.MakeSubmitter(loop_);
    if (!made) return Fail(transfer->command, kTargetFailure);
    submitter_ = *std::move(made);
    submitter_->set_batch_end([this] {
      if (batch_end_) batch_end_();
    });
  }
  transfer->since = std::chrono::steady_clock::now();
  submitter_->Submit({.operation = transfer->operation,
                      .offset = transfer->offset,
                      .length = transfer->length,
                      .buffers = transfer->pieces,
                      .may_unmap = transfer->may_unmap,
                      .fua = transfer->fua,
                      .done = [this, transfer](int error) { Done(transfer, error); }});
}

void ScsiDisk::Done(const TransferPtr& transfer, int error) {
  drive_.Account(transfer->operation, transfer->length, transfer->since, error);
  const CommandPtr& command = transfer->command;
  if (error != 0 && !aborting_) {
    const OnError action = drive_.Failed(transfer->operation, error);
    if (action == OnError::kStop) {
      stopped_.push_back(transfer);
      return;
    }
    if (action == OnError::kIgnore) error = 0;
  }
  if (error != 0) {
    command->status = kCheckCondition;
    command->sense = SenseOf(transfer->operation, error);
    command->transferred = 0;
  }
  if (transfer->siblings != nullptr && --*transfer->siblings > 0) return;
  command->done(*command);
}

void ScsiDisk::Kick() {
  if (submitter_ != nullptr) submitter_->Kick();
}

void ScsiDisk::AbortAll() {
  aborting_ = true;
  if (submitter_ != nullptr) submitter_->Drain();
  for (const TransferPtr& transfer : std::exchange(stopped_, {})) {
    const CommandPtr& command = transfer->command;
    command->status = kCheckCondition;
    command->sense = kAborted;
    command->aborted = true;
    command->transferred = 0;
    if (transfer->siblings != nullptr && --*transfer->siblings > 0) continue;
    command->done(*command);
  }
  aborting_ = false;
}

void ScsiDisk::Reset() {
  AbortAll();
  submitter_.reset();
  attention_ = kPoweredOn;
  tray_open_ = false;
  drive_.set_write_cache(write_cache_);
  drive_.set_tray_locked(false);
}

void ScsiDisk::RunAgain() {
  for (const TransferPtr& transfer : std::exchange(stopped_, {})) Submit(transfer);
  Kick();
}

void ScsiDisk::MediumGoing() {
  medium_changing_ = true;
  AbortAll();
  submitter_.reset();
}

void ScsiDisk::MediumChanged() {
  medium_changing_ = false;
  tray_open_ = drive_.medium() == nullptr;
  medium_event_ = true;
  if (drive_.medium() != nullptr) attention_ = kMediumChanged;
}

}  // namespace holdfast::devices::scsi
