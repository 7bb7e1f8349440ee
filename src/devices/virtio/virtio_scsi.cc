// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_scsi.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace holdfast::devices::virtio {
namespace {

using scsi::UnitAddress;

constexpr unsigned kControlQueue = 0;
constexpr unsigned kEventQueue = 1;
constexpr unsigned kRequestQueues = 2;

constexpr std::uint64_t kFeatureHotplug = 1ULL << 1;
constexpr std::uint64_t kFeatureChange = 1ULL << 2;

// Sizes of the structures (5.6.6), without CDB and sense data.
constexpr std::size_t kRequestHead = 19;
constexpr std::size_t kResponseHead = 12;
constexpr std::uint32_t kMostCdb = 256;
constexpr std::uint32_t kMostSense = 256;

constexpr std::uint8_t kResponseOk = 0;
constexpr std::uint8_t kResponseOverrun = 1;
constexpr std::uint8_t kResponseAborted = 2;
constexpr std::uint8_t kResponseBadTarget = 3;
constexpr std::uint8_t kResponseFailure = 9;
constexpr std::uint8_t kFunctionComplete = 0;
constexpr std::uint8_t kFunctionSucceeded = 10;
constexpr std::uint8_t kFunctionRejected = 11;
constexpr std::uint8_t kIncorrectLun = 12;

constexpr std::uint32_t kEventMissed = 1U << 31;
constexpr std::uint32_t kEventTransportReset = 1;
constexpr std::uint32_t kReasonRescan = 1;
constexpr std::uint32_t kReasonRemoved = 2;

template <typename T>
void Put(std::span<std::byte> to, std::size_t offset, T value) {
  std::memcpy(to.data() + offset, &value, sizeof value);
}

// The unit an 8-byte LUN field names: single level, peripheral or flat addressing.
std::optional<UnitAddress> ParseLun(std::span<const std::uint8_t> lun) {
  if (lun[0] != 1) return std::nullopt;
  const unsigned kind = lun[2] & 0xc0;
  if (kind != 0x00 && kind != 0x40) return std::nullopt;
  return UnitAddress{.target = lun[1],
                     .lun = static_cast<std::uint16_t>((lun[2] & 0x3f) << 8 | lun[3])};
}

bool IsReportLunsUnit(std::span<const std::uint8_t> lun) {
  return lun[0] == 0xc1 && lun[1] == 0x01;
}

}  // namespace

// A request between its queue and its disk.
struct VirtioScsi::Pending : scsi::Command {
  VirtioScsi* adapter = nullptr;
  unsigned queue = 0;
  Chain chain;
  std::uint32_t sense_size = 0;
  std::uint8_t response = kResponseOk;
};

VirtioScsi::VirtioScsi(const DeviceThread& thread, const Config& config, ChildBuses* buses,
                       std::string bus_name)
    : config_(config),
      buses_(buses),
      queue_sizes_(kRequestQueues + config.num_queues,
                   static_cast<std::uint16_t>(config.queue_size)),
      bus_(std::make_shared<scsi::ScsiBus>(thread)),
      answered_(queue_sizes_.size()) {
  bus_->set_changed([this](UnitAddress where, bool added) { UnitChanged(where, added); });
  bus_->set_batch_end([this] { NotifyQueues(); });
  if (buses_ != nullptr) buses_->Add(std::move(bus_name), *bus_);
}

VirtioScsi::~VirtioScsi() {
  if (buses_ != nullptr) buses_->Remove(*bus_);
  bus_->set_changed({});
  bus_->set_batch_end({});
}

std::uint64_t VirtioScsi::features() const noexcept {
  return (config_.hotplug ? kFeatureHotplug : 0) | (config_.param_change ? kFeatureChange : 0);
}

// struct virtio_scsi_config (5.6.4).
void VirtioScsi::ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::array<std::byte, 36> config{};
  const std::uint64_t segments = config_.seg_max_adjust ? config_.queue_size - 2 : 126;
  Put<std::uint32_t>(config, 0, static_cast<std::uint32_t>(config_.num_queues));
  Put<std::uint32_t>(config, 4, static_cast<std::uint32_t>(segments));
  Put<std::uint32_t>(config, 8, static_cast<std::uint32_t>(config_.max_sectors));
  Put<std::uint32_t>(config, 12, static_cast<std::uint32_t>(config_.cmd_per_lun));
  Put<std::uint32_t>(config, 16, 16);
  Put<std::uint32_t>(config, 20, sense_size_.load());
  Put<std::uint32_t>(config, 24, cdb_size_.load());
  Put<std::uint16_t>(config, 28, 0);
  Put<std::uint16_t>(config, 30, scsi::ScsiBus::kMostTarget);
  Put<std::uint32_t>(config, 32, scsi::ScsiBus::kMostLun);
  std::ranges::fill(data, std::byte{0});
  if (offset >= config.size()) return;
  const std::size_t count = std::min<std::size_t>(data.size(), config.size() - offset);
  std::copy_n(config.begin() + static_cast<std::ptrdiff_t>(offset), count, data.begin());
}

void VirtioScsi::WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if (data.size() != sizeof(std::uint32_t)) return;
  std::uint32_t value = 0;
  std::memcpy(&value, data.data(), sizeof value);
  if (offset == 20 && value <= kMostSense) sense_size_ = value;
  if (offset == 24 && value <= kMostCdb && value != 0) cdb_size_ = value;
}

Status VirtioScsi::Activate(Transport& transport) {
  transport_ = &transport;
  if (!transport.restored()) events_missed_ = false;
  return {};
}

void VirtioScsi::SetRunning(bool running) noexcept {
  if (running || transport_ == nullptr) return;
  for (const auto& [where, disk] : bus_->units()) {
    for (const auto& command : disk->Suspend()) {
      auto& pending = static_cast<Pending&>(*command);
      transport_->queue(pending.queue).Requeue(std::move(pending.chain));
    }
  }
  NotifyQueues();
}

void VirtioScsi::VisitState(state::Fields& fields) {
  std::uint32_t sense_size = sense_size_;
  std::uint32_t cdb_size = cdb_size_;
  bool events_missed = events_missed_;
  fields.Value("sense-size", sense_size);
  fields.Value("cdb-size", cdb_size);
  fields.Value("events-missed", events_missed);
  fields.Check(sense_size <= kMostSense && cdb_size <= kMostCdb && cdb_size != 0,
               "sense data or commands of a size that there is not");
  if (!fields.loading() || !fields.ok()) return;
  sense_size_ = sense_size;
  cdb_size_ = cdb_size;
  events_missed_ = events_missed;
}

void VirtioScsi::Reset() noexcept {
  resetting_ = true;
  for (const auto& [where, disk] : bus_->units()) disk->Reset();
  transport_ = nullptr;
  answered_.assign(answered_.size(), false);
  sense_size_ = 96;
  cdb_size_ = 32;
  resetting_ = false;
}

void VirtioScsi::HandleQueue(unsigned index) {
  if (!transport_->queue(index).ready()) return;
  if (index == kControlQueue) return HandleControl();
  if (index == kEventQueue) {
    if (events_missed_) SendEvent(0, {}, 0);
    return;
  }
  HandleRequests(index);
}

// ---- Requests -----------------------------------------------------------------------------------

void VirtioScsi::HandleRequests(unsigned index) {
  DeviceQueue& queue = transport_->queue(index);
  do {
    queue.DisableKicks();
    while (std::optional<Chain> chain = queue.Pop()) Start(index, *std::move(chain));
  } while (queue.EnableKicks());
  for (const auto& [where, disk] : bus_->units()) disk->Kick();
  NotifyQueues();
}

void VirtioScsi::Start(unsigned queue, Chain chain) {
  const auto pending = std::make_shared<Pending>();
  pending->adapter = this;
  pending->queue = queue;
  pending->chain = std::move(chain);
  pending->sense_size = sense_size_;
  const std::size_t response = kResponseHead + pending->sense_size;
  if (pending->chain.writable.size() < response) {
    return transport_->NeedsReset(
        Error(Errc::kMalformed, "a SCSI request has no room for its response"));
  }
  pending->done = [](scsi::Command& command) {
    auto& self = static_cast<Pending&>(command);
    self.adapter->Answer(self);
  };
  const std::uint32_t cdb_size = cdb_size_;
  std::vector<std::uint8_t> head(kRequestHead + cdb_size);
  const auto bytes = std::as_writable_bytes(std::span(head));
  if (pending->chain.readable.CopyOut(0, bytes) != head.size()) {
    return AnswerWithout(pending, kResponseFailure);
  }
  pending->cdb.assign(head.begin() + kRequestHead, head.end());
  pending->out_size = pending->chain.readable.size() - head.size();
  pending->in_size = pending->chain.writable.size() - response;
  if (pending->out_size != 0 && pending->in_size != 0) {
    return AnswerWithout(pending, kResponseFailure);
  }
  pending->data_out = pending->chain.readable.Slice(head.size(), pending->out_size);
  pending->data_in = pending->chain.writable.Slice(response, pending->in_size);

  const auto lun = std::span(head).first(8);
  const bool report_luns = pending->cdb[0] == scsi::kReportLuns;
  if (IsReportLunsUnit(lun)) return AnswerWithout(pending, kResponseBadTarget);
  const std::optional<UnitAddress> where = ParseLun(lun);
  if (!where || !bus_->HasTarget(where->target)) return AnswerWithout(pending, kResponseBadTarget);
  if (report_luns) return ReportLuns(pending, where->target);
  if (scsi::ScsiDisk* const disk = bus_->Find(*where)) return disk->Execute(pending);
  if (pending->cdb[0] == scsi::kInquiry) return InquireAbsent(pending);
  pending->status = scsi::kCheckCondition;
  pending->sense = scsi::kLunNotSupported;
  Answer(*pending);
}

void VirtioScsi::AnswerWithout(const std::shared_ptr<Pending>& pending, std::uint8_t response) {
  pending->response = response;
  Answer(*pending);
}

// struct virtio_scsi_req_cmd's answer (5.6.6.1).
void VirtioScsi::Answer(Pending& pending) {
  if (resetting_ || transport_ == nullptr) return;
  std::uint8_t response = pending.response;
  if (pending.aborted) response = kResponseAborted;
  if (pending.overrun) response = kResponseOverrun;
  std::vector<std::byte> bytes(kResponseHead + pending.sense_size);
  const std::uint64_t asked = pending.out_size + pending.in_size;
  const std::uint64_t left = asked - std::min(asked, pending.transferred);
  Put<std::uint32_t>(bytes, 4,
                     static_cast<std::uint32_t>(std::min<std::uint64_t>(left, UINT32_MAX)));
  if (response == kResponseOk) {
    Put<std::uint8_t>(bytes, 10, pending.status);
    if (pending.status == scsi::kCheckCondition) {
      const auto sense = scsi::FixedSense(pending.sense);
      const std::size_t size = std::min<std::size_t>(sense.size(), pending.sense_size);
      Put<std::uint32_t>(bytes, 0, static_cast<std::uint32_t>(size));
      std::memcpy(bytes.data() + kResponseHead, sense.data(), size);
    }
  }
  Put<std::uint8_t>(bytes, 11, response);
  pending.chain.writable.CopyIn(0, bytes);
  const std::uint64_t written =
      bytes.size() + (pending.in_size != 0 ? std::min(pending.transferred, pending.in_size) : 0);
  transport_->queue(pending.queue)
      .Push(pending.chain,
            static_cast<std::uint32_t>(std::min<std::uint64_t>(written, UINT32_MAX)));
  answered_[pending.queue] = true;
}

namespace {

// An answer from memory, as much of it as there is room for.
void CopyAnswer(scsi::Command& command, std::span<const std::uint8_t> data, std::uint64_t most) {
  std::uint64_t left = std::min<std::uint64_t>({data.size(), most, command.in_size});
  command.transferred = left;
  const std::uint8_t* from = data.data();
  for (const iovec& piece : command.data_in) {
    const std::uint64_t now = std::min<std::uint64_t>(piece.iov_len, left);
    if (now == 0) break;
    std::memcpy(piece.iov_base, from, now);
    from += now;
    left -= now;
  }
}

}  // namespace

void VirtioScsi::ReportLuns(const std::shared_ptr<Pending>& pending, std::uint8_t target) {
  const std::optional<scsi::Cdb> cdb = scsi::ParseCdb(pending->cdb);
  if (!cdb || cdb->length < 16 || cdb->bytes[2] > 2) {
    pending->status = scsi::kCheckCondition;
    pending->sense = scsi::kInvalidField;
    return Answer(*pending);
  }
  const std::vector<std::uint16_t> luns = bus_->Luns(target);
  std::vector<std::uint8_t> data(8 + luns.size() * 8);
  scsi::StoreBig(data, 0, 4, luns.size() * 8);
  for (std::size_t i = 0; i < luns.size(); ++i) {
    // Small numbers by peripheral addressing, others flat.
    const std::uint64_t field = luns[i] < 256 ? luns[i] : 0x4000U | luns[i];
    scsi::StoreBig(data, 8 + i * 8, 2, field);
  }
  CopyAnswer(*pending, data, cdb->length);
  Answer(*pending);
}

// There is a target but no such unit: INQUIRY alone says so (SPC-4, 6.4.2, qualifier 011b).
void VirtioScsi::InquireAbsent(const std::shared_ptr<Pending>& pending) {
  const std::optional<scsi::Cdb> cdb = scsi::ParseCdb(pending->cdb);
  std::array<std::uint8_t, 36> data{};
  data[0] = 0x7f;
  data[4] = data.size() - 5;
  CopyAnswer(*pending, data, cdb ? cdb->length : 0);
  Answer(*pending);
}

// ---- Control ------------------------------------------------------------------------------------

std::uint8_t VirtioScsi::Manage(std::uint32_t function, std::span<const std::uint8_t> lun) {
  constexpr std::uint32_t kNexusReset = 4;
  constexpr std::uint32_t kUnitReset = 5;
  const std::optional<UnitAddress> where = ParseLun(lun);
  if (!where || !bus_->HasTarget(where->target)) return kResponseBadTarget;
  if (function == kNexusReset) {
    for (const auto& [address, disk] : bus_->units()) {
      if (address.target == where->target) disk->Reset();
    }
    return kFunctionComplete;
  }
  scsi::ScsiDisk* const disk = bus_->Find(*where);
  if (disk == nullptr) return kIncorrectLun;
  switch (function) {
    case 0:  // ABORT TASK: requests here cannot be told apart once the host has them
    case 1:  // ABORT TASK SET
    case 3:  // CLEAR TASK SET
      disk->AbortAll();
      return kFunctionComplete;
    case kUnitReset:
      disk->Reset();
      return kFunctionComplete;
    case 6:  // QUERY TASK
    case 7:  // QUERY TASK SET
      return kFunctionSucceeded;
    default:
      return kFunctionRejected;
  }
}

void VirtioScsi::HandleControl() {
  DeviceQueue& queue = transport_->queue(kControlQueue);
  constexpr std::uint32_t kTaskManagement = 0;
  constexpr std::uint32_t kEventQuery = 1;
  constexpr std::uint32_t kEventSubscribe = 2;
  while (std::optional<Chain> chain = queue.Pop()) {
    std::array<std::uint8_t, 24> request{};
    const std::size_t size = chain->readable.CopyOut(0, std::as_writable_bytes(std::span(request)));
    std::uint32_t type = 0;
    std::memcpy(&type, request.data(), sizeof type);
    std::array<std::byte, 5> answer{};
    std::size_t used = 1;
    if (type == kTaskManagement) {
      std::uint32_t function = 0;
      std::memcpy(&function, request.data() + 4, sizeof function);
      const std::uint8_t response = size < request.size()
                                        ? kResponseFailure
                                        : Manage(function, std::span(request).subspan(8, 8));
      answer[0] = std::byte{response};
    } else if (type == kEventQuery || type == kEventSubscribe) {
      used = answer.size();  // no asynchronous events: none is on
      answer[4] = std::byte{size < 16 ? kResponseFailure : kResponseOk};
    } else {
      answer[0] = std::byte{kResponseFailure};
    }
    if (chain->writable.size() < used) {
      return transport_->NeedsReset(
          Error(Errc::kMalformed, "a SCSI control request has no room for its response"));
    }
    chain->writable.CopyIn(0, std::span(answer).first(used));
    queue.Complete(*chain, static_cast<std::uint32_t>(used));
  }
  NotifyQueues();
}

// ---- Events -------------------------------------------------------------------------------------

void VirtioScsi::UnitChanged(UnitAddress where, bool added) {
  if (transport_ == nullptr || !transport_->has(kFeatureHotplug)) return;
  SendEvent(kEventTransportReset, where, added ? kReasonRescan : kReasonRemoved);
}

// struct virtio_scsi_event (5.6.6.3). `event` 0: only tells that some were missed.
void VirtioScsi::SendEvent(std::uint32_t event, UnitAddress where, std::uint32_t reason) {
  DeviceQueue& queue = transport_->queue(kEventQueue);
  std::optional<Chain> chain = queue.ready() ? queue.Pop() : std::nullopt;
  if (!chain) {
    events_missed_ = true;
    return;
  }
  std::array<std::byte, 16> data{};
  Put<std::uint32_t>(data, 0, event | (std::exchange(events_missed_, false) ? kEventMissed : 0));
  if (event != 0) {
    Put<std::uint8_t>(data, 4, 1);
    Put<std::uint8_t>(data, 5, where.target);
    Put<std::uint8_t>(data, 6, static_cast<std::uint8_t>(where.lun >> 8 | 0x40));
    Put<std::uint8_t>(data, 7, static_cast<std::uint8_t>(where.lun));
    Put<std::uint32_t>(data, 12, reason);
  }
  const std::size_t written = chain->writable.CopyIn(0, data);
  queue.Complete(*chain, static_cast<std::uint32_t>(written));
}

void VirtioScsi::NotifyQueues() {
  if (resetting_ || transport_ == nullptr) return;
  for (unsigned i = 0; i < answered_.size(); ++i) {
    if (!answered_[i]) continue;
    answered_[i] = false;
    transport_->queue(i).Notify();
  }
}

}  // namespace holdfast::devices::virtio
