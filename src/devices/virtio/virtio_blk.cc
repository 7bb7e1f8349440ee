// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_blk.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/event_loop.h"

namespace holdfast::devices::virtio {
namespace {

using block::OnError;
using block::Operation;

constexpr std::uint64_t kSector = 512;
constexpr std::size_t kHeaderSize = 16;
constexpr std::size_t kIdSize = 20;
constexpr std::size_t kRangeSize = 16;
constexpr std::size_t kMostIdle = 256;

// Feature bits (5.2.3).
constexpr std::uint64_t kFeatureSegMax = 1ULL << 2;
constexpr std::uint64_t kFeatureReadonly = 1ULL << 5;
constexpr std::uint64_t kFeatureBlockSize = 1ULL << 6;
constexpr std::uint64_t kFeatureFlush = 1ULL << 9;
constexpr std::uint64_t kFeatureTopology = 1ULL << 10;
constexpr std::uint64_t kFeatureConfigWce = 1ULL << 11;
constexpr std::uint64_t kFeatureMultiQueue = 1ULL << 12;
constexpr std::uint64_t kFeatureDiscard = 1ULL << 13;
constexpr std::uint64_t kFeatureWriteZeroes = 1ULL << 14;

// Request types and answers (5.2.6).
constexpr std::uint32_t kTypeIn = 0;
constexpr std::uint32_t kTypeOut = 1;
constexpr std::uint32_t kTypeFlush = 4;
constexpr std::uint32_t kTypeGetId = 8;
constexpr std::uint32_t kTypeDiscard = 11;
constexpr std::uint32_t kTypeWriteZeroes = 13;
constexpr std::uint8_t kStatusOk = 0;
constexpr std::uint8_t kStatusError = 1;
constexpr std::uint8_t kStatusUnsupported = 2;
constexpr std::uint32_t kRangeUnmap = 1;

constexpr std::uint64_t kConfigWriteback = 32;

template <typename T>
void Put(std::span<std::byte> config, std::size_t offset, T value) {
  std::memcpy(config.data() + offset, &value, sizeof value);
}
template <typename T>
T Get(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// The pieces of [offset, offset + length) into a vector that keeps its memory.
void CopyPieces(std::span<const iovec> pieces, std::uint64_t offset, std::uint64_t length,
                std::vector<iovec>& to) {
  to.clear();
  for (const iovec& piece : pieces) {
    if (length == 0) return;
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const std::uint64_t now = std::min<std::uint64_t>(piece.iov_len - offset, length);
    to.push_back({.iov_base = static_cast<std::byte*>(piece.iov_base) + offset, .iov_len = now});
    length -= now;
    offset = 0;
  }
}

}  // namespace

VirtioBlk::VirtioBlk(const DeviceThread& thread, block::Drive& drive, const Config& config)
    : thread_(thread),
      drive_(drive),
      config_(config),
      write_cache_(drive.write_cache()),
      queue_sizes_(config.num_queues, static_cast<std::uint16_t>(config.queue_size)),
      self_(std::make_shared<Self>(Self{this})) {
  features_ = kFeatureSegMax | kFeatureBlockSize | kFeatureFlush | kFeatureTopology;
  if (config.config_wce) features_ |= kFeatureConfigWce;
  if (config.num_queues > 1) features_ |= kFeatureMultiQueue;
  if (drive.readonly()) {
    features_ |= kFeatureReadonly;
  } else {
    if (config.discard) features_ |= kFeatureDiscard;
    if (config.write_zeroes) features_ |= kFeatureWriteZeroes;
  }
  answered_.resize(config.num_queues);
}

VirtioBlk::~VirtioBlk() {
  self_->device = nullptr;
  drive_.Detach();
}

void VirtioBlk::DriveResized() {
  loop().Post([self = self_] {
    if (self->device == nullptr) return;
    if (Transport* const transport = self->device->transport_) transport->ConfigChanged();
  });
}

void VirtioBlk::RunAgain() {
  loop().Post([self = self_] {
    VirtioBlk* const device = self->device;
    if (device == nullptr || device->stopped_.empty() || device->transport_ == nullptr) return;
    for (auto& request : std::exchange(device->stopped_, {})) device->Submit(std::move(request));
    device->submitter_->Kick();
  });
}

// struct virtio_blk_config (5.2.4).
std::array<std::byte, 60> VirtioBlk::BuildConfig() const noexcept {
  std::array<std::byte, 60> config{};
  const auto unit = static_cast<std::uint32_t>(config_.logical_block_size);
  const auto granularity = static_cast<std::uint32_t>(
      std::max(config_.discard_granularity.value_or(0), config_.logical_block_size));
  Put<std::uint64_t>(config, 0, drive_.size() / kSector);
  const std::uint64_t segments = config_.seg_max_adjust ? config_.queue_size - 2 : 126;
  Put<std::uint32_t>(config, 12, static_cast<std::uint32_t>(segments));
  Put<std::uint32_t>(config, 20, unit);
  Put<std::uint8_t>(config, 24,
                    static_cast<std::uint8_t>(std::countr_zero(config_.physical_block_size /
                                                               config_.logical_block_size)));
  Put<std::uint16_t>(config, 26, static_cast<std::uint16_t>(config_.min_io_size / unit));
  Put<std::uint32_t>(config, 28, static_cast<std::uint32_t>(config_.opt_io_size / unit));
  Put<std::uint8_t>(config, kConfigWriteback, drive_.write_cache() ? 1 : 0);
  Put<std::uint16_t>(config, 34, static_cast<std::uint16_t>(config_.num_queues));
  Put<std::uint32_t>(config, 36, static_cast<std::uint32_t>(config_.max_discard_sectors));
  Put<std::uint32_t>(config, 40, 1);
  Put<std::uint32_t>(config, 44, static_cast<std::uint32_t>(granularity / kSector));
  Put<std::uint32_t>(config, 48, static_cast<std::uint32_t>(config_.max_write_zeroes_sectors));
  Put<std::uint32_t>(config, 52, 1);
  Put<std::uint8_t>(config, 56, 1);
  return config;
}

void VirtioBlk::ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept {
  const auto config = BuildConfig();
  std::ranges::fill(data, std::byte{0});
  if (offset >= config.size()) return;
  const std::size_t count = std::min<std::size_t>(data.size(), config.size() - offset);
  std::copy_n(config.begin() + static_cast<std::ptrdiff_t>(offset), count, data.begin());
}

void VirtioBlk::WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if (!config_.config_wce || offset != kConfigWriteback || data.size() != 1) return;
  drive_.set_write_cache(data[0] != std::byte{0});
}

Status VirtioBlk::Activate(Transport& transport) {
  HF_TRY(submitter_, drive_.MakeSubmitter(loop()));
  submitter_->set_batch_end([this] { NotifyQueues(); });
  // A driver that can neither flush nor ask for write-through must find its writes durable.
  if (!transport.has(kFeatureConfigWce)) {
    drive_.set_write_cache(write_cache_ && transport.has(kFeatureFlush));
  }
  transport_ = &transport;
  return {};
}

void VirtioBlk::SetRunning(bool running) noexcept {
  if (running || submitter_ == nullptr || transport_ == nullptr) return;
  submitter_->Drain();
  NotifyQueues();
  for (auto& request : std::exchange(stopped_, {})) {
    transport_.load()->queue(request->queue).Requeue(std::move(request->chain));
  }
}

void VirtioBlk::VisitState(state::Fields& fields) {
  std::uint64_t size = drive_.size();
  bool readonly = drive_.readonly();
  bool write_cache = drive_.write_cache();
  fields.Value("size", size);
  fields.Value("readonly", readonly);
  fields.Value("write-cache", write_cache);
  if (!fields.loading() || !fields.ok()) return;
  if (size != drive_.size()) {
    return fields.Malformed(
        fmt::format("the disk had {} bytes and here it has {}", size, drive_.size()));
  }
  if (readonly != drive_.readonly()) {
    return fields.Malformed(readonly ? "the disk was read-only and here it is not"
                                     : "the disk could be written and here it is read-only");
  }
  drive_.set_write_cache(write_cache);
}

void VirtioBlk::Reset() noexcept {
  resetting_ = true;
  if (submitter_ != nullptr) submitter_->Drain();
  submitter_.reset();
  stopped_.clear();
  answered_.assign(answered_.size(), false);
  transport_ = nullptr;
  drive_.set_write_cache(write_cache_);
  resetting_ = false;
}

std::unique_ptr<VirtioBlk::Request> VirtioBlk::Take() {
  if (idle_.empty()) return std::make_unique<Request>();
  std::unique_ptr<Request> request = std::move(idle_.back());
  idle_.pop_back();
  return request;
}

void VirtioBlk::HandleQueue(unsigned index) {
  Transport* const transport = transport_;
  DeviceQueue& queue = transport->queue(index);
  if (!queue.ready()) return;
  do {
    queue.DisableKicks();
    while (std::optional<Chain> chain = queue.Pop()) {
      std::unique_ptr<Request> request = Take();
      request->chain = *std::move(chain);
      request->queue = index;
      request->may_unmap = false;
      Start(std::move(request));
    }
  } while (queue.EnableKicks());
  submitter_->Kick();
  NotifyQueues();
}

void VirtioBlk::Start(std::unique_ptr<Request> request) {
  request->since = std::chrono::steady_clock::now();
  if (request->chain.writable.empty()) {
    transport_.load()->NeedsReset(
        Error(Errc::kMalformed, "a block request has no room for its status"));
    return;
  }
  std::array<std::byte, kHeaderSize> header;
  if (request->chain.readable.CopyOut(0, header) != header.size()) {
    return Answer(std::move(request), kStatusError);
  }
  const auto sector = Get<std::uint64_t>(header, 8);
  switch (Get<std::uint32_t>(header, 0)) {
    case kTypeIn:
      request->operation = Operation::kRead;
      return StartTransfer(std::move(request), sector);
    case kTypeOut:
      request->operation = Operation::kWrite;
      return StartTransfer(std::move(request), sector);
    case kTypeFlush:
      request->operation = Operation::kFlush;
      request->offset = request->length = 0;
      request->data.clear();
      return Submit(std::move(request));
    case kTypeGetId:
      return AnswerId(std::move(request));
    case kTypeDiscard:
      request->operation = Operation::kDiscard;
      if ((features_ & kFeatureDiscard) == 0) break;
      return StartRange(std::move(request));
    case kTypeWriteZeroes:
      request->operation = Operation::kWriteZeroes;
      if ((features_ & kFeatureWriteZeroes) == 0) break;
      return StartRange(std::move(request));
    default:
      break;
  }
  Answer(std::move(request), kStatusUnsupported);
}

bool VirtioBlk::InRange(std::uint64_t sector, std::uint64_t bytes) const noexcept {
  const std::uint64_t sectors = drive_.size() / kSector;
  const std::uint64_t unit = config_.logical_block_size;
  return bytes % unit == 0 && sector <= sectors && bytes / kSector <= sectors - sector &&
         sector * kSector % unit == 0;
}

void VirtioBlk::Invalid(std::unique_ptr<Request> request) {
  drive_.stats().of(request->operation).invalid.fetch_add(1, std::memory_order_relaxed);
  Answer(std::move(request), kStatusError);
}

void VirtioBlk::StartTransfer(std::unique_ptr<Request> request, std::uint64_t sector) {
  const bool read = request->operation == Operation::kRead;
  const std::uint64_t length =
      read ? request->chain.writable.size() - 1 : request->chain.readable.size() - kHeaderSize;
  if (!InRange(sector, length) || (!read && drive_.readonly())) {
    return Invalid(std::move(request));
  }
  request->offset = sector * kSector;
  request->length = length;
  if (length == 0) return Answer(std::move(request), kStatusOk);
  CopyPieces((read ? request->chain.writable : request->chain.readable).pieces(),
             read ? 0 : kHeaderSize, length, request->data);
  Submit(std::move(request));
}

// One segment at most: the configuration says so.
void VirtioBlk::StartRange(std::unique_ptr<Request> request) {
  const bool discard = request->operation == Operation::kDiscard;
  std::array<std::byte, kRangeSize> range;
  if (request->chain.readable.size() != kHeaderSize + kRangeSize ||
      request->chain.readable.CopyOut(kHeaderSize, range) != range.size()) {
    return Invalid(std::move(request));
  }
  const auto sector = Get<std::uint64_t>(range, 0);
  const auto count = Get<std::uint32_t>(range, 8);
  const auto flags = Get<std::uint32_t>(range, 12);
  if ((flags & ~kRangeUnmap) != 0 || (discard && flags != 0)) {
    return Answer(std::move(request), kStatusUnsupported);
  }
  const std::uint64_t most =
      discard ? config_.max_discard_sectors : config_.max_write_zeroes_sectors;
  if (count > most || !InRange(sector, count * kSector)) return Invalid(std::move(request));
  request->offset = sector * kSector;
  request->length = count * kSector;
  request->may_unmap = flags != 0;
  request->data.clear();
  if (count == 0) return Answer(std::move(request), kStatusOk);
  Submit(std::move(request));
}

void VirtioBlk::AnswerId(std::unique_ptr<Request> request) {
  std::array<std::byte, kIdSize> id{};
  const std::size_t used = std::min(config_.serial.size(), id.size());
  std::memcpy(id.data(), config_.serial.data(), used);
  const std::size_t room = std::min<std::uint64_t>(request->chain.writable.size() - 1, id.size());
  request->chain.writable.CopyIn(0, std::span(id).first(room));
  Answer(std::move(request), kStatusOk);
}

void VirtioBlk::Submit(std::unique_ptr<Request> request) {
  Request* const raw = request.release();  // Done() takes it back
  submitter_->Submit({.operation = raw->operation,
                      .offset = raw->offset,
                      .length = raw->length,
                      .buffers = raw->data,
                      .may_unmap = raw->may_unmap,
                      .done = [this, raw](int error) { Done(raw, error); }});
}

void VirtioBlk::Done(Request* raw, int error) {
  std::unique_ptr<Request> request(raw);
  drive_.Account(request->operation, request->length, request->since, error);
  if (resetting_) return;
  if (error != 0) {
    const OnError action = drive_.Failed(request->operation, error);
    if (action == OnError::kStop) {
      stopped_.push_back(std::move(request));
      return;
    }
    if (action == OnError::kIgnore) error = 0;
  }
  Answer(std::move(request), error == 0 ? kStatusOk : kStatusError);
}

void VirtioBlk::Answer(std::unique_ptr<Request> request, std::uint8_t status) {
  Chain& chain = request->chain;
  const auto byte = static_cast<std::byte>(status);
  chain.writable.CopyIn(chain.writable.size() - 1, std::span(&byte, 1));
  const auto written = std::min<std::uint64_t>(chain.writable.size(), UINT32_MAX);
  transport_.load()->queue(request->queue).Push(chain, static_cast<std::uint32_t>(written));
  answered_[request->queue] = true;
  chain = {};
  if (idle_.size() < kMostIdle) idle_.push_back(std::move(request));
}

void VirtioBlk::NotifyQueues() {
  if (resetting_ || transport_ == nullptr) return;
  for (unsigned i = 0; i < answered_.size(); ++i) {
    if (!answered_[i]) continue;
    answered_[i] = false;
    transport_.load()->queue(i).Notify();
  }
}

}  // namespace holdfast::devices::virtio
